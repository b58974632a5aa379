"""What `dead-letters redrive` and `park` check, print, ask and write, with a plan that needs no broker."""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import KafkaError
from typer.testing import CliRunner, Result

from connector.cli.dead_letters import redriving
from connector.cli.main import app
from connector.core.chunks import Partition
from connector.deadletters.deciding import Action, Candidate, Plan, Rules, Survey
from connector.deadletters.preparing import NameTakenError, selection_of
from connector.deadletters.redriving import Written
from connector.deadletters.running import Redrive
from connector.deadletters.selection import Seen
from connector.deadletters.settling import Heard
from connector.kafka.errors import FatalError
from connector.kafka.topics import TopicsMissingError
from tests.deadletters.making import STREAM

DEAD = Partition("dead", 0)


@dataclass
class Desk:
    """What a redrive finds and writes, and the command on it."""

    settings: Path
    matched: int = 3
    to_write: int = 3
    """How many of them are sent again, or parked; the others are left."""
    still: int = 3
    """How many of these are after the confirmation."""
    seen: tuple[str, ...] = ("rejected",)
    too_large: int = 0
    missing: bool = False
    trouble: Exception | None = None
    """Why nothing can be carried out."""
    warned: list[str] = field(default_factory=list)
    done_before: int = 0
    rules: list[Rules] = field(default_factory=list)
    selections: list[str] = field(default_factory=list)
    carried_out: list[dict[str, Any]] = field(default_factory=list)

    def run(self, *arguments: str, command: str = "redrive", typed: str = "") -> Result:
        return CliRunner().invoke(app, ["dead-letters", command, str(self.settings), *arguments], input=typed)

    def candidates(self) -> list[Candidate]:
        source = Partition("sms", 0)
        return [Candidate(DEAD, at, 0, "rejected", "sends", (source, at), 0, "") for at in range(self.matched)]

    def plan(self, count: int, action: Action) -> Plan:
        plan = Plan()
        for one in self.candidates():
            if one.offset < count:
                plan.put(one, action)
            else:
                plan.leave(one, "queued")
        return plan


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Desk:
    """Make a desk; what is printed is as wide as it takes."""
    content = {"kafka": {"bootstrap_servers": "127.0.0.1:1"}, "trackly": {"api_key": "k"}, "streams": [STREAM]}
    made = Desk(tmp_path / "connector.yaml")
    made.settings.write_text(yaml.safe_dump(content))

    class Known(Redrive):
        def __init__(self, *given: Any, name: str | None, **_: object) -> None:
            self.settings, _topics, self.criteria, self.rules = given[:4]
            made.rules.append(self.rules)
            made.selections.append(selection_of(given[4]))
            self.name = name or "made-of-filters"
            self.found = Survey()
            self._heard = Heard()

        def look(self) -> Survey:
            self.found = Survey(Seen(set(made.seen)), made.matched, made.candidates()[made.done_before :])
            return self.found

        def plan(self, heard: Heard | None = None) -> Plan:
            assert heard is None
            return made.plan(made.to_write, "park" if self.rules.park else "redrive")

        def look_again(self, confirmed: Plan) -> Plan:
            assert confirmed.count == made.to_write
            return made.plan(made.still, "park" if self.rules.park else "redrive")

        def warnings(self, _plan: Plan) -> list[str]:
            return made.warned

        def refuse_missing(self, plan: Plan) -> None:
            if made.missing:
                raise TopicsMissingError("create it: kafka-topics.sh")

        def carry_out(self, plan: Plan, told: object, **more: Any) -> Written:
            made.carried_out.append({"count": plan.count, **more})
            if made.trouble is not None:
                raise made.trouble
            limit = more["limit"]
            written = plan.count if limit is None else min(limit, plan.count)
            by_action: Counter[Action] = Counter({"park" if self.rules.park else "redrive": written} if written else {})
            return Written(by_action, made.too_large)

    monkeypatch.setattr(redriving, "Redrive", Known)
    monkeypatch.setenv("COLUMNS", "200")
    return made


UNLIMITED = {"rate": None, "limit": None, "note": ""}


@pytest.mark.parametrize("rate", ["inf", "nan", "-1"])
def test_a_rate_that_nothing_can_be_reckoned_with_is_refused(rate: str, tmp_path: Path) -> None:
    """And not met first where it is reckoned with, by a traceback, when it was confirmed."""
    result = CliRunner().invoke(app, ["dead-letters", "redrive", str(tmp_path / "x.yaml"), "--rate", rate])

    assert (result.exit_code, "--rate" in result.stderr) == (2, True), result.output


def test_a_plan_is_printed_and_carried_out_once_it_is_confirmed(desk: Desk) -> None:
    desk.to_write = desk.still = 2

    result = desk.run("--rate", "5", typed="y\n")

    assert result.exit_code == 0, result.output
    assert "redrive made-of-filters: 3 selected" in result.stdout
    assert "to be sent again" in result.stdout
    assert "would be skipped, because" in result.stdout
    assert "Write 2 records?" in result.stderr
    assert "2 sent again in " in result.stdout
    assert "handled by others" not in result.stderr
    assert "this time" not in result.stdout
    assert desk.carried_out == [{"count": 2, "rate": 5.0, "limit": None, "note": ""}]


@pytest.mark.parametrize("typed", ["n\n", ""])
def test_without_a_confirmation_nothing_is_written(desk: Desk, typed: str) -> None:
    result = desk.run(typed=typed)

    assert (result.exit_code, "not confirmed" in result.stderr, desk.carried_out) == (1, True, [])


def test_what_others_handled_while_somebody_was_asked_is_left_and_told(desk: Desk) -> None:
    desk.still = 1

    result = desk.run(typed="y\n")

    assert (result.exit_code, "2 left: handled by others since the plan was made" in result.stderr) == (0, True)
    assert desk.carried_out == [{"count": 1, **UNLIMITED}]


def test_a_limit_is_told_asked_for_and_kept_to(desk: Desk) -> None:
    asked = desk.run("--limit", "2", typed="y\n")
    told = json.loads(desk.run("--limit", "2", "--yes", "--json").stdout)
    beyond = desk.run("--limit", "3", "--yes")

    assert "of these 2 this time (--limit)" in asked.stdout
    assert "Write 2 records?" in asked.stderr
    assert (told["would_redrive"], told["this_time"], told["written"]) == (3, 2, {"redrive": 2})
    assert "this time" not in beyond.stdout
    assert [one["limit"] for one in desk.carried_out] == [2, 2, 3]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_writes_nothing_and_asks_nothing(desk: Desk, *, as_json: bool) -> None:
    result = desk.run("--dry-run", *(["--json"] if as_json else []))

    assert (result.exit_code, desk.carried_out, "records?" in result.stderr) == (0, [], False)
    if as_json:
        told = json.loads(result.stdout)
        assert (told["selected"], told["would_redrive"], told["written"]) == (3, 3, {})
    else:
        assert "nothing left to do" not in result.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_where_nothing_is_left_to_write_how_far_it_came_is_noted_without_a_question(
    desk: Desk, *, as_json: bool
) -> None:
    desk.to_write = 0
    desk.missing = True

    result = desk.run(*(["--json"] if as_json else []))

    assert (result.exit_code, desk.carried_out) == (0, [{"count": 0, **UNLIMITED}]), result.output
    if as_json:
        assert json.loads(result.stdout)["written"] == {}
    else:
        assert "nothing left to do" in result.stdout


def test_a_missing_topic_is_told_before_anybody_is_asked_and_stops_no_dry_run(desk: Desk) -> None:
    desk.missing = True

    refused, dry = desk.run(typed="y\n"), desk.run("--dry-run")

    assert (refused.exit_code, "kafka-topics.sh" in refused.stderr, "records?" in refused.stderr) == (2, True, False)
    assert (dry.exit_code, "kafka-topics.sh" in dry.stderr) == (0, True)
    assert desk.carried_out == []


def test_what_was_too_large_is_told_if_anything_was(desk: Desk) -> None:
    fitting = json.loads(desk.run("--yes", "--json").stdout)
    desk.too_large = 2
    told, printed = json.loads(desk.run("--yes", "--json").stdout), desk.run("--yes")

    assert ("too_large" in fitting, told["too_large"]) == (False, 2)
    assert "2 left: is larger than the target topic allows" in printed.stderr


def test_filters_that_select_none_fail_and_a_topic_without_dead_letters_does_not(desk: Desk) -> None:
    desk.matched = 0
    filtered = desk.run("--yes")
    desk.seen = ()
    empty, told = desk.run("--yes"), json.loads(desk.run("--yes", "--json").stdout)

    assert (filtered.exit_code, "the filters select none" in filtered.stderr) == (1, True)
    assert (empty.exit_code, empty.stdout) == (0, "no dead letters in dead\n")
    assert (told["selected"], told["this_time"], told["written"]) == (0, 0, {})
    assert desk.carried_out == []


@pytest.mark.parametrize(
    ("trouble", "exit_code", "words"),
    [
        (FatalError(KafkaError(KafkaError._FENCED)), 4, "another redrive took the name mine over"),
        (FatalError(KafkaError(KafkaError._ALL_BROKERS_DOWN)), 3, "All broker connections are down"),
        (NameTakenError("the name mine is taken"), 2, "the name mine is taken"),
    ],
    ids=["taken over", "no broker", "name taken"],
)
def test_what_ends_a_redrive_has_an_exit_code_and_words(
    desk: Desk, trouble: Exception, exit_code: int, words: str
) -> None:
    desk.trouble = trouble

    result = desk.run("--yes", "--name", "mine")

    assert (result.exit_code, words in result.stderr) == (exit_code, True), result.output


def test_what_a_plan_cannot_know_is_told_and_a_reason_that_does_not_exist_is_refused(desk: Desk) -> None:
    desk.warned = ["outcomes are written of failures only"]

    assert desk.warned[0] in desk.run("--dry-run", "--json").stderr
    refused = desk.run("--dry-run", "--reason", "rejekted")
    assert (refused.exit_code, "no dead letter has the reason rejekted" in refused.stderr) == (2, True)


def test_what_is_set_aside_is_asked_for_and_told_as_that(desk: Desk) -> None:
    result = desk.run("--note", "why", command="park", typed="y\n")

    assert result.exit_code == 0, result.output
    assert "park made-of-filters: 3 selected" in result.stdout
    assert "to be parked, sent again" not in result.stdout
    assert "Set aside 3 records?" in result.stderr
    assert "3 parked in" in result.stdout
    assert desk.carried_out == [{"count": 3, "rate": None, "limit": None, "note": "why"}]


def test_a_patch_is_read_from_a_file_as_well_and_a_file_that_cannot_be_read_is_named(
    desk: Desk, tmp_path: Path
) -> None:
    (tmp_path / "patch.json").write_text('{"list_number": null}')
    (tmp_path / "latin.json").write_bytes(b"\xe4")

    for patch in (f"@{tmp_path}/patch.json", '{"list_number": null}'):
        assert desk.run("--dry-run", "--patch", patch).exit_code == 0
    failed = [desk.run("--patch", patch) for patch in (f"@{tmp_path}/none", f"@{tmp_path}/latin.json", "[1]")]

    assert [rules.patch for rules in desk.rules] == [{"list_number": None}] * 2
    assert [result.exit_code for result in failed] == [2, 2, 2]
    assert ["--patch" in result.stderr for result in failed] == [True] * 3


def test_what_was_handled_before_under_the_same_name_is_counted(desk: Desk) -> None:
    first = desk.run("--dry-run")
    desk.done_before = 1

    assert "already handled" not in first.stdout
    assert "1 of them were already handled, under this name" in desk.run("--dry-run").stdout


def test_whoever_includes_what_is_in_doubt_is_told_what_that_means(desk: Desk) -> None:
    assert "a second time" in desk.run("--dry-run", "--include", "in_doubt").stderr
    assert "a second time" not in desk.run("--dry-run").stderr


@pytest.mark.parametrize(
    ("command", "to", "words"),
    [
        ("redrive", "dead", "cannot be the target of a redrive"),
        ("redrive", "sms.outcomes", "cannot be the target of a redrive"),
        ("park", "sms", "cannot be the target for parked records"),
        ("park", "dead", "cannot be the target for parked records"),
    ],
)
def test_a_target_that_would_be_read_in_a_circle_is_refused(desk: Desk, command: str, to: str, words: str) -> None:
    result = desk.run("--to", to, "--yes", command=command)

    assert (result.exit_code, words in result.stderr, desk.carried_out) == (2, True, []), result.output


def test_dead_letters_that_are_parked_already_are_not_parked_where_they_are(desk: Desk) -> None:
    result = desk.run("--topic", "dead.parking", "--yes", command="park")

    assert (result.exit_code, "cannot be the target for parked records" in result.stderr) == (2, True), result.output


def test_the_same_options_are_the_same_selection_and_others_are_not(desk: Desk) -> None:
    """Each can be gone on with, and another one under its name would skip what this one left."""
    options: list[tuple[str, ...]] = [
        ("--limit", "2"),
        ("--reason", "rejected"),
        ("--to", "sms"),
        ("--patch", "{}"),
        ("--include", "in_doubt"),
        ("--cap", "4"),
    ]
    for own in [(), *options]:
        desk.run("--dry-run", *own)
    desk.run("--dry-run", command="park")
    desk.run("--dry-run", "--note", "why", command="park")
    plain, limited, *others = desk.selections

    assert plain == limited
    assert len({plain, *others}) == len(others) + 1 == 8
