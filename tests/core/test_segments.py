"""Segments: the alphabets, the lengths, and what may not be split."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.segments import (
    GSM_BASIC,
    GSM_EXTENDED,
    fits,
    segments_of,
    too_long,
    truncated,
)


def _runs(signs: str) -> st.SearchStrategy[str]:
    run = st.builds(str.__mul__, st.sampled_from(signs), st.integers(1, 170))
    return st.lists(run | st.text(signs, max_size=8), max_size=6).map("".join)


TEXTS = st.one_of([_runs(signs) for signs in ("a\n ", "a\t", "aé{€ ^", "aé{€😀 \n`漢^", "a漢😀")])
"""Of all alphabets, and made of runs: a text that is drawn sign by sign hardly ever fills a segment."""


def by_hand(text: str) -> tuple[str, int, int]:
    """Count character by character, as the standard says: what does not fit a segment whole begins the next."""
    gsm = all(sign in GSM_BASIC + GSM_EXTENDED for sign in text)
    single, joined = (160, 153) if gsm else (70, 67)
    sizes = [2 if (sign in GSM_EXTENDED if gsm else ord(sign) > 0xFFFF) else 1 for sign in text]
    if sum(sizes) <= single:
        return ("GSM-7" if gsm else "UCS-2", sum(sizes), 1)
    count, used = 1, 0
    for size in sizes:
        if used + size > joined:
            count, used = count + 1, 0
        used += size
    return ("GSM-7" if gsm else "UCS-2", sum(sizes), count)


@pytest.mark.parametrize(
    ("text", "encoding", "units", "count"),
    [
        ("", "GSM-7", 0, 1),
        ("a" * 160, "GSM-7", 160, 1),
        ("a" * 161, "GSM-7", 161, 2),
        ("a" * 306, "GSM-7", 306, 2),
        ("a" * 307, "GSM-7", 307, 3),
        ("€" * 80, "GSM-7", 160, 1),
        ("€" * 81, "GSM-7", 162, 2),
        ("a" * 152 + "€" + "a" * 152, "GSM-7", 306, 3),
        ("€" * 153, "GSM-7", 306, 3),
        ("€" * 153 + "a" * 152, "GSM-7", 458, 4),
        ("€" + "a" * 304, "GSM-7", 306, 2),
        ("漢" * 70, "UCS-2", 70, 1),
        ("漢" * 71, "UCS-2", 71, 2),
        ("😀" * 35, "UCS-2", 70, 1),
        ("漢" * 66 + "😀" + "漢" * 66, "UCS-2", 134, 3),
        ("😀" + "漢" * 132, "UCS-2", 134, 2),
        ("`", "UCS-2", 1, 1),
        ("\t", "UCS-2", 1, 1),
        ("{}", "GSM-7", 4, 1),
    ],
)
def test_known_texts(text: str, encoding: str, units: int, count: int) -> None:
    found = segments_of(text)

    assert (found.encoding, found.units, found.count) == (encoding, units, count)


def test_the_alphabet_has_as_many_characters_as_the_standard() -> None:
    """128 places, one of them the escape; ten characters behind the escape, with form feed."""
    assert (len(GSM_BASIC), len(set(GSM_BASIC)), len(GSM_EXTENDED)) == (127, 127, 10)


@given(TEXTS)
def test_segments_are_those_counted_by_hand(text: str) -> None:
    found = segments_of(text)

    assert (found.encoding, found.units, found.count) == by_hand(text)


@given(TEXTS, st.integers(1, 4))
def test_what_is_cut_fits_and_is_a_beginning(text: str, count: int) -> None:
    cut = truncated(text, count)

    assert segments_of(cut).count <= count
    assert cut == text if fits(text, count) else text.startswith(cut.removesuffix("..."))


@given(TEXTS, st.integers(1, 3))
def test_not_a_character_more_would_have_fitted(text: str, count: int) -> None:
    cut = truncated(text, count, end="")
    if cut != text and not text[len(cut)].isspace():
        assert not fits(text[: len(cut) + 1], count)


@given(TEXTS, st.integers(1, 3))
def test_a_truncated_text_has_the_given_end_or_is_empty_if_that_end_is_too_long(text: str, count: int) -> None:
    ends = [truncated(text, count, end=end) for end in ("...", "漢" * (67 * count + 4))]

    if fits(text, count):
        assert ends == [text, text]
    else:
        assert ends[0].endswith("...")
        assert ends[1] == ""


def test_an_end_that_fills_all_there_is_stands_alone() -> None:
    assert truncated("a" * 161, 1, end="." * 160) == "." * 160


@given(st.lists(TEXTS, max_size=5), st.integers(1, 3))
def test_too_long_texts_of_a_chunk_are_those_that_do_not_fit(texts: list[str], count: int) -> None:
    assert too_long(texts, count) == [i for i, text in enumerate(texts) if segments_of(text).count > count]
