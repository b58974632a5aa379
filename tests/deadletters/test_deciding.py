"""Nobody is texted twice: what is sent again, what is parked, and what is left, and why."""

from dataclasses import replace
from typing import Any

import pytest

from connector.config.mapping import OverrideSettings
from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk, Headers, Partition
from connector.core.ranges import RangeSet
from connector.deadletters.deciding import Action, Automatic, Known, Plan, Rules, Survey, plan, survey
from connector.deadletters.evidence import Finding
from connector.deadletters.progressing import Place, place_at, read_place
from connector.deadletters.selection import Criteria
from connector.deadletters.settling import streams_of
from tests.deadletters.making import NOW_MS, STREAM, headers_of
from tests.deadletters.test_letters import CONNECT

SENDS = StreamSettings.model_validate(STREAM)
RULES = Rules({"sends": SENDS})
DEAD, SMS = Partition("dead", 0), Partition("sms", 0)
GOOD = b'{"to":"+15550000001","body":"Hello"}'


def planned(
    rows: list[Headers],
    rules: Rules = RULES,
    *,
    known: Known | None = None,
    values: list[bytes | None] | None = None,
    done: dict[Partition, tuple[int, RangeSet]] | None = None,
) -> Plan:
    """Return what becomes of dead letters with these headers, at offsets 0, 1, ..."""
    count = len(rows)
    chunk = Chunk(DEAD, 0, range(count), values or [GOOD] * count, headers=list(rows), timestamps=[NOW_MS] * count)
    found = survey([chunk], criteria=Criteria(), rules=rules, done=done or {})
    return plan(found, known or Known(), rules)


def acted(made: Plan, action: Action, partition: Partition = DEAD) -> set[int]:
    """Return the offsets with that action."""
    return {offset for offset, found in made.actions[partition].by_offset.items() if found == action}


def again(offset: int, redrives: int, **told: Any) -> Headers:
    """Return the headers of a record that was sent again and failed anew."""
    origin: Headers = [
        ("trackly.origin.topic", b"sms"),
        ("trackly.origin.partition", b"0"),
        ("trackly.origin.offset", b"%d" % offset),
        ("trackly.redrives", b"%d" % redrives),
    ]
    return headers_of(topic="sends.redrive", offset=900 + offset, source=origin, **told)


def test_what_nothing_stands_against_is_sent_again() -> None:
    made = planned([headers_of(offset=1), headers_of("server_error", offset=2)])

    assert made.reasons["redrive"] == {"provider_error": 1, "server_error": 1}
    assert acted(made, "redrive") == {0, 1}


def test_what_the_platform_may_have_is_left_unless_it_is_asked_for() -> None:
    rows = [headers_of("in_doubt", offset=1), [*headers_of("server_error", offset=2), ("trackly.resent", b"true")]]

    assert planned(rows).skipped == {"in_doubt": 2}
    assert planned(rows, replace(RULES, include_in_doubt=True)).reasons["redrive"].total() == 2


@pytest.mark.parametrize("include_in_doubt", [False, True])
def test_what_has_an_outcome_queued_is_left_whatever_is_asked_for(include_in_doubt: bool) -> None:
    known = Known(queued={"sends": {SMS: RangeSet([(5, 7)])}})
    rules = replace(RULES, include_in_doubt=include_in_doubt)

    made = planned([headers_of("in_doubt", offset=5), again(6, 1), headers_of(offset=7)], rules, known=known)

    assert (made.skipped, made.reasons["redrive"]) == ({"queued": 2}, {"provider_error": 1})


def test_a_record_that_failed_again_stands_for_its_earlier_dead_letters() -> None:
    made = planned([headers_of(offset=5), again(5, 1), again(5, 2)])

    assert acted(made, "redrive") == {2}
    assert made.skipped == {"superseded": 2}


def test_what_waits_in_the_redrive_topic_is_not_sent_there_again() -> None:
    made = planned([headers_of(offset=5), again(6, 1)], known=Known(redriven={"sends.redrive": {SMS: {5: 1, 6: 1}}}))

    assert made.skipped == {"redriven": 1}
    assert acted(made, "redrive") == {1}, "that one failed again since"


def test_a_record_that_stands_twice_is_sent_again_once() -> None:
    made = planned([headers_of(offset=5), headers_of(offset=5)])

    assert (made.reasons["redrive"].total(), made.skipped) == (1, {"superseded": 1})


def test_what_became_of_a_copy_is_looked_for_from_the_time_that_it_failed_on() -> None:
    """A parked dead letter bears the time at which it was parked, and may have been sent again and taken before."""
    rows: list[Headers | None] = [headers_of(offset=5), headers_of(offset=6, now_ms=NOW_MS + 5_000)]
    chunk = Chunk(
        Partition("dead.parking", 0), 0, range(2), [GOOD] * 2, headers=rows, timestamps=[NOW_MS + 172_800_000] * 2
    )

    found = survey([chunk], criteria=Criteria(), rules=RULES, done={})

    assert streams_of(found.candidates, RULES) == {"sends": NOW_MS}


BOTH = Rules({name: StreamSettings.model_validate({**STREAM, "name": name}) for name in ("sends", "welcomes")})
"""Two streams that read the same topic: each has a record of its own at each place."""


def test_the_dead_letters_of_two_streams_that_read_one_topic_are_of_two_records() -> None:
    made = planned([headers_of(offset=5), headers_of(offset=5, stream="welcomes")], BOTH)

    assert (made.reasons["redrive"].total(), made.skipped) == (2, {})


def test_what_one_stream_did_says_nothing_of_the_record_that_another_read_at_the_same_place() -> None:
    rows = [headers_of(offset=offset, stream="welcomes") for offset in range(4)]
    known = Known(
        queued={"sends": {SMS: RangeSet([(0, 1)])}, "welcomes": {SMS: RangeSet([(3, 4)])}},
        redriven={"sends.redrive": {SMS: {1: 1}}},
    )

    made = planned([*rows, again(2, 1)], BOTH, known=known)

    assert (acted(made, "redrive"), made.skipped) == ({0, 1, 2, 4}, {"queued": 1})


def test_what_was_sent_to_another_stream_is_the_record_of_whoever_sent_it() -> None:
    """The other does not read that topic, so that it has no record of its own there."""
    other = StreamSettings.model_validate({**STREAM, "name": "welcomes", "topics": ["signups"]})
    rules = Rules({"sends": SENDS, "welcomes": other})
    rows = [
        headers_of(offset=5),
        again(5, 1, stream="welcomes"),
        headers_of(offset=6),
        headers_of(offset=7),
        again(8, 1, stream="welcomes"),
    ]
    known = Known(
        queued={
            "sends": {SMS: RangeSet([(8, 9)])},
            "welcomes": {SMS: RangeSet([(6, 7)])},
            "": {SMS: RangeSet([(7, 8)])},
        },
    )

    made = planned(rows, rules, known=known)

    assert (acted(made, "redrive"), made.skipped) == ({1}, {"superseded": 1, "queued": 3})


def test_a_stream_that_gets_what_is_sent_is_asked_whoever_failed() -> None:
    known = Known(queued={"welcomes": {SMS: RangeSet([(5, 6)])}}, redriven={"welcomes.redrive": {SMS: {6: 1}}})
    rows = [headers_of(offset=offset) for offset in (5, 6, 7)]

    made = planned([*rows, headers_of(offset=7, stream="welcomes")], replace(BOTH, to="welcomes.redrive"), known=known)

    assert acted(made, "redrive") == {2}
    assert made.skipped == {"queued": 1, "redriven": 1, "superseded": 1}


def test_a_stream_that_reads_the_topic_that_is_sent_to_is_asked_as_well() -> None:
    other = StreamSettings.model_validate({**STREAM, "name": "welcomes", "topics": ["sms", "signups"]})
    known = Known(queued={"welcomes": {SMS: RangeSet([(5, 6)])}})

    made = planned([headers_of(offset=5)], Rules({"sends": SENDS, "welcomes": other}, to="signups"), known=known)

    assert made.skipped == {"queued": 1}


def test_a_stream_that_does_not_get_what_is_sent_says_nothing_of_it() -> None:
    known = Known(queued={"welcomes": {SMS: RangeSet([(5, 6)])}})

    assert acted(planned([headers_of(offset=5)], replace(BOTH, to="sends.redrive"), known=known), "redrive") == {0}


def test_outcomes_of_other_partitions_say_nothing_of_a_record() -> None:
    known = Known(queued={"sends": {Partition("sms", 1): RangeSet([(5, 6)])}})

    assert acted(planned([headers_of(offset=5)], known=known), "redrive") == {0}


def in_doubt(partition: Partition, *rows: Headers, findings: dict[str, Finding]) -> Plan:
    """Return what evidence makes of dead letters in doubt with these headers, at offsets 0, 1, ..."""
    count = len(rows)
    chunk = Chunk(partition, 0, range(count), [GOOD] * count, headers=list(rows), timestamps=[NOW_MS] * count)
    rules = replace(RULES, include_in_doubt=True)
    return plan(survey([chunk], criteria=Criteria(), rules=rules, done={}), Known(), rules, findings)


def test_a_record_in_doubt_that_stands_twice_is_sent_again_once_where_the_evidence_does_not_name_it() -> None:
    twice = headers_of("in_doubt", offset=5)

    made = in_doubt(DEAD, twice, twice, findings={"dead:0:0": "redrive", "dead:0:1": "redrive"})

    assert (made.reasons["redrive"].total(), made.skipped) == (1, {"superseded": 1})


def test_above_the_cap_a_record_in_doubt_that_is_parked_stays_where_it_is() -> None:
    parked = Partition("dead.parking", 0)

    made = in_doubt(parked, again(6, 3, reason="in_doubt"), findings={"dead.parking:0:0": "redrive"})

    assert (made.reasons["park"].total(), made.skipped) == (0, {"parked": 1})


def test_what_evidence_names_is_settled_and_what_it_cannot_settle_is_left() -> None:
    rows = [headers_of("in_doubt", offset=offset) for offset in range(3)]

    made = in_doubt(DEAD, *rows, findings={"dead:0:0": "accepted", "dead:0:1": "still_in_doubt"})

    assert (acted(made, "accept"), made.skipped) == ({0}, {"still_in_doubt": 2}), "nor what came meanwhile"


def test_what_is_settled_stays_so_where_evidence_settles_nothing() -> None:
    """It is not looked at again: what became of it is final."""
    rows: list[Headers | None] = [headers_of("in_doubt", offset=5), headers_of("in_doubt", offset=5)]
    chunk = Chunk(DEAD, 0, range(2), [GOOD] * 2, headers=rows, timestamps=[NOW_MS] * 2)
    rules = replace(RULES, include_in_doubt=True)
    found = survey([chunk], criteria=Criteria(), rules=rules, done={})
    known = Known(queued={"sends": {SMS: RangeSet([(5, 6)])}})
    findings: dict[str, Finding] = {"dead:0:0": "still_in_doubt", "dead:0:1": "redrive"}

    made = plan(found, known, rules, findings)

    assert (made.skipped, made.actions) == ({"queued": 2}, {})


def test_what_evidence_cannot_settle_now_is_looked_at_again_under_the_same_name() -> None:
    """Settings that are mended tell its number, and what came meanwhile was not looked for in the evidence."""
    rows = [headers_of("in_doubt", offset=offset) for offset in range(4)]

    made = in_doubt(DEAD, *rows, findings={"dead:0:0": "accepted", "dead:0:1": "still_in_doubt", "dead:0:2": "redrive"})

    assert list(made.actions[DEAD].leave) == [(1, 2), (3, 4)]


def test_above_the_cap_a_record_is_parked() -> None:
    made = planned([again(5, 2), again(6, 3), again(7, 4)])

    assert (acted(made, "redrive"), acted(made, "park")) == ({0}, {1, 2})


def test_above_the_cap_a_record_that_is_parked_stays_where_it_is_for_a_larger_cap() -> None:
    parked = Partition("dead.parking", 0)
    rows = [again(5, 2), again(6, 3), again(7, 4)]
    chunk = Chunk(parked, 0, range(3), [GOOD] * 3, headers=list(rows), timestamps=[NOW_MS] * 3)
    found = survey([chunk], criteria=Criteria(), rules=RULES, done={})

    made = plan(found, Known(), RULES)
    more = plan(found, Known(), replace(RULES, cap=5))

    assert (acted(made, "redrive", parked), acted(made, "park", parked), made.skipped) == ({0}, set(), {"parked": 2})
    assert list(made.actions[parked].leave) == [(1, 3)], "another cap finds them again"
    assert acted(more, "redrive", parked) == {0, 1, 2}


def test_without_its_value_or_a_known_stream_a_record_stays() -> None:
    omitted: Headers = [*headers_of(offset=1), ("trackly.value_omitted", b"9 bytes")]
    rows = [omitted, headers_of(stream="gone"), headers_of(stream="gone", offset=8), CONNECT]

    made = planned(rows)

    assert made.skipped == {"value_omitted": 1, "unknown_stream": 2, "no_stream": 1}
    assert list(made.actions[DEAD].leave) == [(1, 4)], "what settings decide is looked at again"
    assert planned(rows, replace(RULES, to="anywhere")).reasons["redrive"].total() == 3


def test_what_its_stream_sends_again_by_itself_is_left_to_it_from_where_the_rule_began() -> None:
    rule = Automatic(frozenset({"provider_error"}), 2, {DEAD: 1})
    rules = replace(RULES, automatic={"sends": (rule,)})

    made = planned(
        [headers_of(offset=1), headers_of(offset=2), headers_of("server_error", offset=3), again(4, 2)], rules
    )

    assert made.skipped == {"automatic": 1}
    assert acted(made, "redrive") == {0, 2, 3}


def test_where_no_rule_has_begun_nothing_is_left_to_it() -> None:
    """As in a partition that was added to the topic: nobody would ever send it again."""
    rule = Automatic(frozenset({"provider_error"}), 2, {Partition("dead", 1): 0})

    made = planned([headers_of(offset=1)], replace(RULES, automatic={"sends": (rule,)}))

    assert (made.reasons["redrive"].total(), made.skipped) == (1, {})


def test_what_was_in_doubt_once_is_no_rules_and_is_sent_where_it_is_asked_for() -> None:
    """A rule passes over it, so that it would wait for nobody."""
    rule = Automatic(frozenset({"server_error"}), 2, {DEAD: 0})
    rules = replace(RULES, automatic={"sends": (rule,)}, include_in_doubt=True)

    made = planned([[*headers_of("server_error", offset=1), ("trackly.resent", b"true")]], rules)

    assert (made.reasons["redrive"], made.skipped) == ({"server_error": 1}, {})


def test_a_patch_that_does_not_fit_leaves_the_record_and_says_why() -> None:
    values: list[bytes | None] = [GOOD, b"{", b'{"to":"+15550000001"}']
    rows = [headers_of(offset=at) for at in range(3)]

    breaking = planned(rows, replace(RULES, patch={"body": None}), values=values)
    mending = planned(rows, replace(RULES, patch={"body": "Hi"}), values=values)

    assert breaking.skipped == {"patch_invalid": 2, "patch_not_json": 1}
    assert (mending.reasons["redrive"].total(), mending.skipped) == (2, {"patch_not_json": 1})


def test_without_a_patch_a_record_is_sent_again_as_it_is_valid_or_not() -> None:
    assert planned([headers_of("missing_body")], values=[b'{"to":"+15550000001"}']).reasons["redrive"].total() == 1


@pytest.mark.parametrize(
    ("to", "left"), [(None, {}), ("people.redrive", {"patch_invalid": 1}), ("sends.redrive", {}), ("nobodys", {})]
)
def test_a_patched_record_is_to_be_an_event_of_the_stream_that_gets_it(to: str | None, left: dict[str, int]) -> None:
    people = StreamSettings.model_validate({**STREAM, "name": "people", "topics": ["p"], "operation": "contacts"})
    rules = Rules({"people": people, "sends": SENDS}, to=to, patch={"body": "Hi"})

    assert planned([headers_of()], rules).skipped == left


def test_a_patched_record_of_a_stream_that_is_not_known_is_sent_where_it_is_asked_for() -> None:
    made = planned([headers_of(stream="gone")], replace(RULES, to="nobodys", patch={"body": None}))

    assert made.reasons["redrive"].total() == 1


def fails(records: object) -> None:
    """Fail, as a function of a stream's own may for all events."""
    raise ValueError(records)


@pytest.mark.parametrize("told", [{"format": "avro"}, {"transform": f"{__name__}:fails"}])
def test_a_patched_record_that_cannot_be_shaped_here_is_sent_as_its_stream_can(told: dict[str, Any]) -> None:
    """A value that was patched is JSON, whatever the format; a function may fail here alone."""
    rules = Rules({"sends": StreamSettings.model_validate({**STREAM, **told})}, patch={"body": "Hi"})

    assert planned([headers_of()], rules).reasons["redrive"].total() == 1


def test_what_is_too_large_for_its_topic_is_left() -> None:
    value = b'{"to":"+15550000001","body":"%s"}' % (b"x" * 2_000)

    rules = replace(RULES, limits={"sends.redrive": 1_500})

    assert planned([headers_of()], rules, values=[value]).skipped == {"too_large": 1}
    assert planned([headers_of(source=[("trace", b"x" * 2_000)])], rules).skipped == {"too_large": 1}
    assert planned([headers_of()], replace(RULES, limits={"sends.redrive": 9_000})).skipped == {}


def test_what_was_dealt_with_is_not_looked_at_again() -> None:
    done = {DEAD: (1, RangeSet([(2, 3)]))}

    made = planned([headers_of(offset=at) for at in range(4)], done=done)

    assert acted(made, "redrive") == {1, 3}


def test_what_is_too_young_yet_is_looked_at_again_as_one_stretch() -> None:
    """`--until 2h` means more dead letters tomorrow, under the same name."""
    offsets = [0, 1, 3, 5, 7, 8]  # 2, 4 and 6 are markers of transactions
    times = [NOW_MS, NOW_MS + 9, NOW_MS + 9, NOW_MS + 9, NOW_MS, NOW_MS + 9]
    rows: list[Headers | None] = [headers_of(offset=offset) for offset in offsets]
    chunk = Chunk(DEAD, 0, offsets, [GOOD] * 6, headers=rows, timestamps=times)

    pieces = [chunk.slice(0, 2), chunk.slice(2, 6)]
    first = plan(survey(pieces, criteria=Criteria(until_ms=NOW_MS + 1), rules=RULES, done={}), Known(), RULES)
    base, metadata = place_at(Place(), 9, first.actions[DEAD].leave, "0123456789abcdef")
    done = {DEAD: read_place(base, metadata).done}
    again = survey([chunk], criteria=Criteria(until_ms=NOW_MS + 1), rules=RULES, done=done)
    later = plan(survey([chunk], criteria=Criteria(until_ms=NOW_MS + 10), rules=RULES, done=done), Known(), RULES)

    assert (acted(first, "redrive"), list(first.actions[DEAD].leave)) == ({0, 7}, [(1, 6), (8, 9)])
    assert (again.candidates, again.matched) == ([], 2)
    assert acted(later, "redrive") == {1, 3, 5, 8}


def test_what_was_dealt_with_is_never_open_again_whatever_the_clock_says() -> None:
    chunk = Chunk(DEAD, 0, range(5), [GOOD] * 5, headers=[headers_of()] * 5, timestamps=[NOW_MS] * 5)

    found = survey([chunk], criteria=Criteria(until_ms=0), rules=RULES, done={DEAD: (1, RangeSet([(2, 3)]))})

    assert list(found.open[DEAD]) == [(1, 2), (3, 5)]


def test_what_does_not_match_and_never_will_is_not_open() -> None:
    chunk = Chunk(
        DEAD, 0, range(2), [GOOD] * 2, headers=[headers_of(), headers_of("rejected")], timestamps=[NOW_MS] * 2
    )

    found = survey([chunk], criteria=Criteria(reasons=frozenset({"rejected"})), rules=RULES, done={})

    assert (found.open, found.seen.reasons) == ({}, {"provider_error", "rejected"})


def test_a_survey_of_pieces_is_one_of_the_whole() -> None:
    """Each may be another process's."""
    rows: list[Headers | None] = [headers_of(), again(5, 2), again(5, 1), headers_of("rejected", stream="gone")]
    times = [NOW_MS, NOW_MS, NOW_MS, NOW_MS + 9]
    chunk = Chunk(DEAD, 0, range(4), [GOOD] * 4, headers=rows, timestamps=times)

    def found(*pieces: Chunk) -> Survey:
        return survey(pieces, criteria=Criteria(until_ms=NOW_MS + 1), rules=RULES, done={})

    whole, together = found(chunk), Survey()
    for piece in (chunk.slice(0, 2), chunk.slice(2, 3), chunk.slice(3, 4)):
        together.add(found(piece))

    assert (together.seen.reasons, together.matched, together.candidates, together.latest) == (
        whole.seen.reasons,
        whole.matched,
        whole.candidates,
        whole.latest,
    )
    assert list(together.open[DEAD]) == list(whole.open[DEAD]) == [(3, 4)]
    assert (whole.matched, whole.latest["sends"]) == (3, {(SMS, 5): 2})


@pytest.mark.parametrize(("park", "topic"), [(True, "mine"), (False, "dead.parking")])
def test_what_is_above_the_cap_is_not_parked_where_the_rest_is_sent(park: bool, topic: str) -> None:
    assert replace(RULES, park=park, to="mine").parking("dead") == topic


def test_parking_takes_everything_that_is_meant() -> None:
    made = planned([headers_of("in_doubt"), CONNECT, again(5, 9)], replace(RULES, park=True))

    assert made.reasons["park"].total() == 3


def test_a_patch_fixes_the_source_of_a_mapped_event() -> None:
    """What is sent again is mapped as it was at its origin, so that is how a mended value is checked."""
    mapping = {"fields": {"to": "value.phone", "body": {"template": "Hi {{ value.name }}"}}}
    mapped = SENDS.model_copy(
        update={"overrides": [OverrideSettings.model_validate({"topics": ["sms"], "mapping": mapping})]}
    )
    rows = [headers_of("mapping_failed", offset=offset) for offset in (1, 2)]
    values: list[bytes | None] = [b'{"phone":"+15550000001"}', b'{"name":"Ada"}']
    made = planned(rows, Rules({"sends": mapped}, patch={"name": "Ada"}), values=values)

    assert (made.reasons["redrive"], made.skipped) == ({"mapping_failed": 1}, {"patch_invalid": 1})
