"""Faults over time: the script's steps over the standing ones. Time is a number here."""

import time
from pathlib import Path

import httpx
import pytest

from connector.config.problems import SettingsError
from connector.simulator import Faults, Outage, ScriptStep, load_faults, load_script, load_switches
from connector.simulator.script import Timeline
from tests.deploy.conftest import ROOT
from tests.docs.pages import blocks
from tests.kit.patience import PATIENCE_SECS
from tests.simulator.conftest import Serve

STANDING = Faults(latency_ms=(5, 5), status_override=500)


def step(at_secs: float, until_secs: float | None = None, **faults: object) -> ScriptStep:
    return ScriptStep.model_validate({"at_secs": at_secs, "until_secs": until_secs, "faults": faults})


def test_a_step_lays_its_own_faults_over_the_standing_ones_for_its_time() -> None:
    timeline = Timeline(STANDING, (step(10, 20, status_override=503),))
    timeline.start(100)

    statuses = [timeline.at(now).status_override for now in (100, 109.9, 110, 119.9, 120)]

    assert statuses == [500, 500, 503, 503, 500]
    assert timeline.at(115).latency_ms == (5, 5)


def test_a_later_step_lies_over_an_earlier_one_and_a_default_may_be_a_step() -> None:
    timeline = Timeline(
        STANDING, (step(0, status_override=503), step(5, 10, status_override=None), step(7, 8, status_override=429))
    )
    timeline.start(0)

    assert [timeline.at(now).status_override for now in (0, 5, 7, 8, 10)] == [503, None, 429, None, 503]


def test_the_clock_runs_from_its_first_start_only() -> None:
    timeline = Timeline(STANDING, (step(1, status_override=503),))

    before = timeline.at(1_000).status_override
    timeline.start(1_000)
    timeline.start(1_000.5)

    assert (before, timeline.at(1_000.9).status_override, timeline.at(1_001).status_override) == (500, 500, 503)


def test_the_next_change_is_the_nearest_edge_of_a_step_or_the_end_of_an_outage() -> None:
    timeline = Timeline(Faults(), (step(10, 20, status_override=503), step(15, latency_ms=1)))

    assert timeline.next_change(0) is None
    timeline.start(100)
    assert [timeline.next_change(now) for now in (100, 110, 115, 120)] == [110, 115, 120, None]
    timeline.replace(Faults(outage=Outage(secs=3)), now=104)
    assert [timeline.next_change(now) for now in (104, 107)] == [107, 110]


def test_an_outage_ends_after_its_time_and_not_before() -> None:
    timeline = Timeline(Faults(), ())
    timeline.replace(Faults(outage=Outage(secs=3)), now=10)

    assert [timeline.at(now).outage is not None for now in (10, 12.9, 13, 1_000)] == [True, True, False, False]
    timeline.replace(Faults(outage=Outage()), now=20)
    assert timeline.at(1e9).outage is not None


def test_a_script_begins_with_the_first_request(serve: Serve) -> None:
    served = serve(script=[step(0, 0.4, status_override=503)])
    time.sleep(0.5)

    during = served.send("a").status_code
    time.sleep(0.5)

    assert (during, served.send("b").status_code) == (503, 200)


def test_a_script_may_refuse_connections_and_take_them_again(serve: Serve) -> None:
    served = serve(script=[step(0.1, 2.0, outage={"how": "refuse"})])
    first = served.send("a").status_code
    seen: list[str] = []
    deadline = time.monotonic() + PATIENCE_SECS
    while seen[-2:] != ["refused", "ok"] and time.monotonic() < deadline:
        time.sleep(0.02)
        try:
            served.send("b")
        except httpx.ConnectError:
            seen.append("refused")
        except (httpx.RemoteProtocolError, httpx.ReadError):
            seen.append("dropped")  # the connection that was open when the port closed
        else:
            seen.append("ok")

    assert first == 200
    assert seen[-2:] == ["refused", "ok"]
    assert seen.count("dropped") <= 1


def test_the_files_of_faults_scripts_and_switches_are_yaml_or_json(tmp_path: Path) -> None:
    faults, script, switches = (tmp_path / name for name in ("faults.yaml", "script.json", "switches.yaml"))
    faults.write_text("latency_ms: [20, 80]\nerror_rate: {503: 0.05}\nlose_reply: 0.01\nempty_body: {next: 2}\n")
    script.write_text('[{"at_secs": 5, "until_secs": 9.5, "faults": {"outage": {"how": "close"}}}]')
    switches.write_text("index_base: 1\n")

    read = load_faults(faults)

    assert (read.latency_ms, read.error_rate) == ((20, 80), {503: 0.05})
    assert (read.lose_reply.rate, read.lose_reply.next, read.empty_body.next) == (0.01, 0, 2)
    assert load_script(script) == (step(5, 9.5, outage={"how": "close"}),)
    assert load_switches(switches).index_base == 1


def test_the_files_on_the_reference_page_are_taken(tmp_path: Path) -> None:
    faults, script = (block.text for block in blocks(ROOT / "docs/reference/simulator.md"))
    (tmp_path / "faults.yaml").write_text(faults)
    (tmp_path / "script.yaml").write_text(script)

    assert load_faults(tmp_path / "faults.yaml").record_codes[0].times == 1
    assert len(load_script(tmp_path / "script.yaml")) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "line 1, column 2"),
        ("- 1", "must be a group of settings"),
        ("latency: 5", "latency: is not a setting; did you mean latency_ms?"),
        ("batch: 5", "batch: is not a setting; known here: latency_ms, only_paths, "),
        ("outage: {hw: close}", "outage.hw: is not a setting; did you mean how?"),
        ("lose_reply: 1.5\nstall: {next: x}", "lose_reply: must be at most 1\nstall.next: must be a whole number"),
        ("latency_ms: 20-80", "latency_ms: must be a number, or a list of minimum and maximum: [20, 80]"),
        ("latency_ms: [1, 2, 3]", "latency_ms: must be a number, or a list of minimum and maximum: [20, 80]"),
        ("account_suspended: maybe", "account_suspended: must be true or false"),
        ("stall_above_bytes: 0.5", "stall_above_bytes: must be a whole number"),
        ("retry_after_secs: soon", "retry_after_secs: must be a number"),
        (b"\xff\xfe\xff", "UTF-8"),
        ("a: \x07", "is not valid YAML"),
        ("a: 2026-02-30", "is not valid YAML: day is out of range for month"),
        ("[" * 5_000, "is nested too deeply"),
        (None, "No such file"),
    ],
)
def test_a_bad_file_of_faults_is_refused_with_its_name_and_the_place(
    tmp_path: Path, text: str | bytes | None, said: str
) -> None:
    path = tmp_path / "faults.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(SettingsError) as caught:
        load_faults(path)

    assert caught.value.source == path
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("at_secs: 1", "a list of steps"),
        ("- {at_secs: 1}", r"steps\[0\].faults: is required"),
        ("- {at_secs: 2, until_secs: 2, faults: {}}", "until_secs is not after at_secs"),
        ("- {at_secs: 2, faults: {outage: {secs: 3}}}", "until_secs"),
    ],
)
def test_a_bad_script_is_refused_with_the_place(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)

    with pytest.raises(SettingsError, match=place):
        load_script(path)


def test_an_empty_file_of_faults_is_good_health(tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").touch()

    assert load_faults(tmp_path / "faults.yaml") == Faults()
