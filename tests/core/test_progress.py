"""Laws of progress: encoding to commit metadata and back, whatever was committed."""

import tracemalloc
import zlib
from base64 import b64encode
from time import process_time

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from connector.core.progress import ForeignMetadataError, Progress, _varint, decode, encode
from connector.core.ranges import Range, RangeSet

MARKS = ".sf"
"""Offset by offset from the base: not started, settled, in flight."""


def progress(base: int, text: str, *, birth: int = 0, mark: int = 0) -> Progress:
    made = Progress(base, birth, mark)
    for at, kind in enumerate(text):
        if kind == "s":
            made.settled.add(base + at, base + at + 1)
        elif kind == "f":
            made.in_flight.add(base + at, base + at + 1)
    return made


@given(
    st.integers(0, 2**62),
    st.text(MARKS, max_size=40) | st.text(MARKS, min_size=60, max_size=400),
    st.integers(0, 10_000),
    st.integers(0, 20_000),
)
@example(7, "sf." * 300, 3, 5)
@example(2**62, ".f" * 200, 0, 0)
@example(0, "f" * 64 + "." * 128 + "s" * 64, 128, 1 << 14)
def test_progress_survives_the_trip(base: int, text: str, birth: int, mark: int) -> None:
    before = progress(base, text, birth=birth, mark=mark)

    metadata = encode(before)

    assert metadata.isascii()
    assert decode(base, metadata) == before


def test_the_shorter_encoding_is_chosen() -> None:
    """Lanes interleave offsets: what would take thousands of runs fits as a deflated bitmap, and few runs as runs."""
    few = encode(progress(0, "f" * 3_000 + "s" * 2_000))
    lanes = encode(progress(0, "sf" * 10_000))

    assert (few[1], lanes[1]) == ("r", "b")
    assert len(few) < 20
    assert len(lanes) < 200


def test_two_lanes_that_run_wild_fit_for_three_thousand_records() -> None:
    """Noise cannot be deflated: a bit for each record is settled or not, and one for each in flight or not."""
    noise = [zlib.crc32(b"%d" % at) for at in range(9_000)]

    metadata = encode(progress(0, "".join(MARKS[1 + (number >> 7) % 2] for number in noise)))

    assert len(metadata) < 4_000


@pytest.mark.parametrize("metadata", ["", None])
def test_a_plain_commit_is_progress_without_more(metadata: str | None) -> None:
    """Tools that set offsets commit no metadata: everything from there on is unread."""
    assert decode(17, metadata) == Progress(17)


@pytest.mark.parametrize("metadata", ["2rAAA", "0rAAA", "1xAAA", "1", "NONE", "{}", "1r", "1rA", "1b", "é"])
def test_foreign_and_newer_metadata_is_refused(metadata: str) -> None:
    with pytest.raises(ForeignMetadataError):
        decode(0, metadata)


def test_the_refusal_says_what_was_found() -> None:
    with pytest.raises(ForeignMetadataError, match="'2rAAAAAAAAAA' is not of version 1"):
        decode(0, "2r" + "A" * 100)


@given(st.integers(0, 2**40), st.text(MARKS, min_size=1, max_size=200), st.data())
def test_metadata_that_is_not_whole_is_refused(base: int, text: str, data: st.DataObject) -> None:
    """Truncated metadata could still be decoded, and what was in flight would be posted again."""
    metadata = encode(progress(base, text))

    with pytest.raises(ForeignMetadataError):
        decode(base, metadata[: data.draw(st.integers(1, len(metadata) - 1))])


@given(st.integers(0, 2**40), st.integers(0, 2**40), st.text(MARKS, max_size=100))
def test_metadata_that_was_copied_to_another_offset_is_refused(base: int, other: int, text: str) -> None:
    """Tools that mirror a group translate its offsets, and copy the metadata unchanged."""
    assume(base != other)

    with pytest.raises(ForeignMetadataError, match="another offset"):
        decode(other, encode(progress(base, text)))


def metadata_of(base: int, kind: str, payload: bytes) -> str:
    check = zlib.crc32(_varint(base) + payload).to_bytes(4, "big")[:3]
    return f"1{kind}{b64encode(check + payload).decode().rstrip('=')}"


def garbage(base: int) -> st.SearchStrategy[str]:
    """Return texts, and some that only the checksum distinguishes from metadata written for this offset."""
    return (
        st.text(max_size=60)
        | st.builds(metadata_of, st.just(base), st.sampled_from("rb"), st.binary(max_size=80))
        | st.builds(
            lambda span, bits: metadata_of(base, "b", b"\0\0" + bytes([span]) + zlib.compress(bits)),
            st.integers(0, 127),
            st.binary(max_size=34),
        )
    )


@given(st.integers(0, 2**63 - 1).flatmap(lambda base: st.tuples(st.just(base), garbage(base))))
@example((0, metadata_of(0, "b", b"\0\0\x08" + zlib.compress(b"\xff\xff"))))
def test_garbage_is_refused_or_makes_sense(committed: tuple[int, str]) -> None:
    """Whatever was committed by whomever: it is refused, or it is progress that can be committed again."""
    base, metadata = committed
    try:
        found = decode(base, metadata)
    except ForeignMetadataError:
        return

    assert members_within(found.settled, found.in_flight) == set()
    assert decode(base, encode(found)) == found


def members_within(one: RangeSet, other: RangeSet) -> set[Range]:
    """Return what two sets share, as ranges."""
    both = ((max(a, c), min(b, d)) for a, b in one for c, d in other)
    return {(start, stop) for start, stop in both if start < stop}


def test_a_bitmap_that_was_cut_short_is_refused() -> None:
    metadata = encode(progress(100, "sf.s" * 200))
    assert metadata[1] == "b"

    for length in range(1, len(metadata)):
        with pytest.raises(ForeignMetadataError):
            decode(100, metadata[:length])


def test_a_bitmap_that_says_something_below_the_base_is_refused() -> None:
    """It begins at a multiple of 8; what it says of offsets before the base would never go away again."""
    metadata = metadata_of(9, "b", b"\0\0\x08" + zlib.compress(b"\xff\0"))

    with pytest.raises(ForeignMetadataError, match="below"):
        decode(9, metadata)


VARINTS = {"nothing": 0, "a bit": 1, "all a decoder may be asked": 2**24, "more than that": 2**28, "the sky": 2**62}


@pytest.mark.parametrize("span", VARINTS.values(), ids=VARINTS)
@pytest.mark.parametrize("pattern", [b"\0", b"\xff", b"\x55"], ids=["empty", "full", "every other"])
def test_what_anybody_wrote_cannot_exhaust_memory(span: int, pattern: bytes) -> None:
    """Three thousand bytes inflate to three million, and a span may claim anything."""
    bomb = zlib.compress(pattern * 2_900_000, 9)
    tracemalloc.start()
    try:
        with pytest.raises(ForeignMetadataError):
            decode(0, metadata_of(0, "b", b"\0\0" + _varint(span) + bomb))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 64_000_000


def test_a_hole_as_wide_as_the_topic_costs_nothing() -> None:
    """Compaction may remove millions of offsets between records that are settled: no bitmap of that is ever made."""
    wide = Progress(0)
    for at in range(100):
        wide.settled.add(at * 10**10 + 1, at * 10**10 + 2)

    metadata = encode(wide)

    assert decode(0, metadata) == wide


def test_a_long_bitmap_takes_little_time() -> None:
    """A tick is planned under the lock: what 64,000 records in two lanes take must stay far below its interval."""
    busy = progress(0, "".join(MARKS[zlib.crc32(b"%d" % at) >> 9 & 1] for at in range(200_000)))

    began = process_time()
    metadata = encode(busy)
    found = decode(0, metadata)
    took = process_time() - began

    assert found == busy
    assert took < 1.0
