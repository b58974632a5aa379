"""What pages say: the worst first, in words that tell what to do, and everything from outside escaped."""

import ast
import json
import re
from collections.abc import Callable
from typing import Any, Final

import pytest

from connector.console import rendering
from connector.console.advice import HOLDS, MOVED, ROWS, advice_for
from connector.console.pages import _pieces
from connector.console.rendering import duration, headline, holds_of, number, prose, rate, render
from connector.console.sampling import SERIES
from connector.console.sessions import Session
from connector.console.task_process import TaskRequest
from connector.console.tasks import Task
from connector.core.concurrency import ConcurrencyLimit
from connector.core.verdicts import TABLE
from tests.console.making import hold, snapshot, status, stream
from tests.deploy.conftest import ROOT
from tests.docs.test_holds import _given

SESSION: Final = Session("abc", "csrf-of-the-session", 2e9)
HOSTILE: Final = "<script>alert(1)</script>'\"&"
COMMON: Final[dict[str, Any]] = {
    "root": "../",
    "session": SESSION,
    "may_log_in": True,
    "since_choices": {"": "all", "24h": "last 24 hours"},
}
LETTER: Final[dict[str, Any]] = {
    "position": "t.dead:0:7",
    "at": "2026-01-31T08:00:00Z",
    "stream": "campaign-sends",
    "reason": "invalid_phone",
    "code": None,
    "text": "no number",
    "http_status": 200,
    "attempts": 1,
    "redrives": 0,
    "source": "t:0:1",
    "origin": "t:0:1",
    "key": "k",
    "value": {"to": "***"},
    "headers": [["trackly.reason", "invalid_phone"], ["x", None]],
}


def _task(kind: str, result: dict[str, Any], state: str = "done") -> Task:
    return Task("f00", TaskRequest(kind, stream="campaign-sends", reason="invalid_phone"), state=state, result=result)


_PLAN: Final = {
    "name": "n",
    "selected": 5,
    "done_before": 1,
    "would_redrive": 3,
    "redrive": {"invalid_phone": 3},
    "would_park": 1,
    "park": {"invalid_phone": 1},
    "would_accept": 0,
    "would_skip": 1,
    "skipped": {"queued": 1},
    "warnings": ["campaign-sends: outcomes are written of failures only"],
}
_COUNTS: Final = {"total": 3, "reasons": {"invalid_phone": 3}, "ages": {"1h": 3, "older": 0}}

PAGES: Final[dict[str, Callable[[], str]]] = {
    "overview": lambda: render("overview.html", snapshot=snapshot(), **COMMON),
    "held": lambda: render(
        "overview.html", snapshot=snapshot(stream(holds=[hold()]), stream(name="b", lag=None)), **COMMON
    ),
    "stream": lambda: render("stream.html", snapshot=snapshot(), stream=stream(), did=None, **COMMON),
    "login": lambda: render("login.html", next="", problem="the token is wrong", **{**COMMON, "session": None}),
    "no token": lambda: render("login.html", next="", problem=None, **{**COMMON, "session": None, "may_log_in": False}),
    "refused": lambda: render("refused.html", problem="no", **COMMON),
    "pause": lambda: render("confirm.html", stream=stream(), action="pause", **COMMON),
    "resume": lambda: render(
        "confirm.html",
        stream=stream(holds=[hold(reason="in_doubt", partition="t:1", ends="operator")]),
        action="resume",
        **COMMON,
    ),
    "acted": lambda: render("acted.html", stream=stream(), action="pause", told={"problem": "x"}, **COMMON),
    "dead letters": lambda: render(
        "dead_letters.html", snapshot=snapshot(), chosen={"stream": "", "reason": "", "position": ""}, **COMMON
    ),
    "look": lambda: render(
        "task.html",
        task=_task("look", {"topics": ("t.dead",), "counts": _COUNTS, "letters": [LETTER], "others": [], "most": 50}),
        **COMMON,
    ),
    "look none": lambda: render(
        "task.html",
        task=_task("look", {"topics": ("t.dead",), "counts": {"total": 0}, "others": ["a"], "most": 50}),
        **COMMON,
    ),
    "letter": lambda: render("task.html", task=_task("letter", {"letters": [LETTER], "revealed": False}), **COMMON),
    "in doubt": lambda: render(
        "task.html",
        task=_task(
            "in_doubt",
            {
                "groups": [
                    {
                        "stream": "s",
                        "batch_id": None,
                        "worker": None,
                        "list_number": None,
                        "from": "a",
                        "to": "b",
                        "detail": "d",
                        "count": 3,
                    }
                ],
                "hidden": 1,
                "settled": {"redriven": 2},
                "unsure": ["stream <b>s</b> is not in the settings"],
                "capped": True,
            },
        ),
        **COMMON,
    ),
    "plan": lambda: render("task.html", task=_task("redrive", _PLAN, "asks"), **COMMON),
    "written": lambda: render(
        "task.html",
        task=_task("redrive", {**_PLAN, "written": {"redrive": 3}, "too_large": 1, "by_others": 2, "took_secs": 0.4}),
        **COMMON,
    ),
    "nothing left": lambda: render(
        "task.html", task=_task("redrive", {**_PLAN, "written": {}, "too_large": 0, "by_others": 0}), **COMMON
    ),
    "running": lambda: render("task.html", task=_task("redrive", {}, "running"), **COMMON),
    "cancelled": lambda: render("task.html", task=_task("redrive", {}, "cancelled"), **COMMON),
    "failed": lambda: render("task.html", task=_task("redrive", {}, "failed"), **COMMON),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_nothing_that_its_policy_forbids(name: str) -> None:
    """No scripts, styles or handlers within the page; every field is labelled, every form of a session is signed."""
    page = PAGES[name]()

    assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:|https?://", page)
    assert '<html lang="en">' in page
    for field in re.findall(r'<(?:input|select)[^>]* id="([^"]+)"', page):
        assert f'for="{field}"' in page
    posts = re.findall(r'<form method="post".*?</form>', page, re.DOTALL)
    if name != "login":
        assert all(SESSION.csrf in form for form in posts)


@pytest.mark.parametrize("part", ["overview", "stream"])
def test_everything_from_outside_is_escaped(part: str) -> None:
    """Names, reasons and texts may hold anything: each is put where it would do harm."""
    held = hold(reason=HOSTILE, detail=HOSTILE, commands=[HOSTILE], worker=HOSTILE, runbook=f"javascript:{HOSTILE}")
    bad = stream(
        name=HOSTILE,
        state=HOSTILE,
        operation=HOSTILE,
        group=HOSTILE,
        error=HOSTILE,
        dead_letters={HOSTILE: 3},
        requests_by_row={HOSTILE: 1},
        holds=[held, {**held, "partition": HOSTILE, "reason": "in_doubt", "ends": "operator"}],
        standstills=[
            {"partition": HOSTILE, "offset": 1, "lag": 2, "since": 3.0, "waits_for": HOSTILE}
            | {"known": False, "detail": HOSTILE}
        ],
        partitions={HOSTILE: {"committed": 1, "read": 2, "in_doubt": 0, "worker": HOSTILE}},
        failures=[
            {"at": 1.0, "reason": HOSTILE, "code": HOSTILE, "text": HOSTILE, "http_status": 400}
            | {"position": HOSTILE, "count": 2}
        ],
        redrives=[
            {
                "rule": HOSTILE,
                "reasons": [HOSTILE],
                "error": HOSTILE,
                "redriven": 1,
                "passed_over": {"redriven": 3, "too_large": 4},
                "waiting": 2,
                "next_at": 1.0,
                "held": False,
            }
        ],
    )  # fmt: skip
    worker = {"ordinal": HOSTILE, "instance_id": HOSTILE, "state": HOSTILE, "pid": 1, "restarts": 0, "last_exit": None}
    member = {"name": HOSTILE, "address": HOSTILE, "state": "silent", "version": HOSTILE, "workers": 1}
    seen = snapshot(bad, workers=[worker], members=[member])

    if part == "overview":
        page = render("overview.html", snapshot=seen, **COMMON)
    else:
        page = render("stream.html", snapshot=seen, stream=bad, did=None, **COMMON)
    events = "".join(text for _, text in _pieces(seen, None if part == "overview" else HOSTILE))

    for told in (page, events):
        assert told.count("&lt;script&gt;") > 10
        assert "<script>" not in told
        assert "'\"&" not in told
        assert "javascript:" not in told


def test_code_in_a_sentence_is_shown_as_code_and_all_else_is_escaped() -> None:
    assert prose("an outcome `<b>` & more") == "an outcome <code>&lt;b&gt;</code> &amp; more"
    assert "`" not in PAGES["written"]()


def test_hostile_letters_are_escaped() -> None:
    letter = {key: HOSTILE if isinstance(value, str) else value for key, value in LETTER.items()}
    letter |= {"headers": [[HOSTILE, HOSTILE]], "value": {HOSTILE: HOSTILE}}

    for kind, result in (
        ("letter", {"letters": [letter], "revealed": True}),
        ("look", {"topics": (HOSTILE,), "counts": _COUNTS, "letters": [letter], "others": [], "most": 1}),
    ):
        page = render("task.html", task=_task(kind, result), **COMMON)

        assert "<script>" not in page
        assert page.count("&lt;script&gt;") > 5


@pytest.mark.parametrize(
    ("seen", "tone", "words"),
    [
        (snapshot(), "good", "Texts flow"),
        (snapshot(stream(holds=[hold()])), "bad", "On hold: campaign-sends"),
        (snapshot(stream(state="failed", error="x")), "bad", "Failed: campaign-sends"),
        (snapshot(rates={"campaign-sends": None}), "good", "Texts flow"),
        (snapshot(stream(lag=0), rates={"campaign-sends": dict.fromkeys(("settled",), 0.0)}), "quiet", "Idle"),
        (snapshot(rates={"campaign-sends": dict.fromkeys(("settled",), 0.0)}), "warn", "Nothing was settled"),
        (snapshot(members=[{"name": "b", "state": "silent"}]), "warn", "Not answering: b"),
        (snapshot(workers=[{"ordinal": 1, "state": "restarting"}]), "warn", "Not running: worker 1"),
        (snapshot(workers=[{"ordinal": "b/1", "state": "silent"}]), "warn", "Not running: worker b/1"),
        (snapshot(workers=[{"ordinal": 0, "state": "running"}]), "good", "Texts flow"),
        (snapshot(stream(lag=None, partitions={})), "warn", "Not in its group: campaign-sends"),
        (snapshot(stream(lag=None), rates={"campaign-sends": {"settled": 0.0}}), "warn", "Nothing was settled"),
    ],
)
def test_the_headline_says_whether_texts_flow(seen: Any, tone: str, words: str) -> None:
    said = headline(seen)

    assert said.tone == tone
    assert said.text.startswith(words)


def test_holds_of_many_partitions_are_reported_as_one() -> None:
    """And name whose they are, the first to begin and what ends them; stream-wide ones stay apart."""
    found = [
        hold(reason="in_doubt", partition=f"t:{n}", since=100.0 + n, ends="operator", worker=n % 2) for n in range(20)
    ]

    told = holds_of(stream(holds=[hold(), *found]))

    assert [one["reason"] for one in told] == ["unauthorized", "in_doubt"]
    assert told[1]["since"] == 100.0
    assert told[1]["where"].startswith("t:0, t:1, t:2")
    assert told[1]["where"].endswith("and 12 more")
    assert told[1]["who"] == "0, 1"


def test_every_reason_of_a_hold_has_advice() -> None:
    reasons = {reason.replace("<>", "x") for reason in _given() if reason is not None}

    assert {reason for reason in reasons if ":" not in reason} == set(HOLDS)
    assert all(advice_for(reason).means for reason in reasons)
    assert advice_for("something new").do


def test_every_move_of_the_limit_and_every_row_has_words() -> None:
    source = ast.parse((ROOT / "connector" / "core" / "concurrency.py").read_text())
    doc = ast.get_docstring(
        next(n for n in ast.walk(source) if isinstance(n, ast.ClassDef) and n.name == ConcurrencyLimit.__name__)
    )
    moves = set(re.findall(r"`(\w+)`", (doc or "").partition("(")[2]))

    assert moves
    assert moves | {"differs"} == set(MOVED)
    assert {row.name for row in TABLE} == set(ROWS)


def test_figures_are_written_as_people_read_them() -> None:
    assert (number(1_234_567), number(None)) == ("1,234,567", "\N{EN DASH}")
    assert (rate(0.0), rate(3.25), rate(12_345.6), rate(None)) == ("0", "3.2", "12,346", "\N{EN DASH}")
    assert [duration(secs) for secs in (0.3, 42, 125, 7_300, 200_000, None)] == [
        "0.3 s",
        "42 s",
        "2 min 5 s",
        "2 h 1 min",
        "2 d 7 h",
        "\N{EN DASH}",
    ]


def test_only_so_many_partitions_are_shown_and_the_page_says_so() -> None:
    many = {f"t:{n}": {"committed": n, "read": n, "in_doubt": 0} for n in range(250)}

    told = render("tables.html", stream=stream(partitions=many))

    assert told.count("<tr><td>t:") == rendering.MOST_PARTITIONS
    assert "150 more" in told


def test_the_script_reads_the_columns_that_are_sent() -> None:
    script = rendering.assets()["console.js"][0].decode()

    named = dict(re.findall(r"(\w+) = (\d)[,;]", script.partition("const AT")[2].partition("\n")[0].join(["AT", ""])))
    columns = {
        "AT": "at",
        "READ": "read",
        "SETTLED": "settled",
        "DEAD": "dead",
        "LAG": "lag",
        "IN_FLIGHT": "in_flight",
        "LIMIT": "limit",
    }
    assert {name: SERIES.index(column) for name, column in columns.items()} == {n: int(v) for n, v in named.items()}


def test_what_others_wrote_is_as_it_was_published() -> None:
    """The table of versions beside the assets has a line for each, and its licence."""
    import hashlib  # noqa: PLC0415

    folder = ROOT / "connector" / "console" / "assets"
    rows = re.findall(
        r"^\| `([\w.]+)` \| `([\w.-]+)` \| [\d.]+ \| \w+ \| `([0-9a-f]{64})` \|$",
        (folder / "README.md").read_text(),
        re.MULTILINE,
    )

    ours = {"console.css", "console.js", "favicon.svg"}
    assert {name for name, _, _ in rows} == set(rendering.assets()) - ours
    for name, package, digest in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert (folder / "licences" / f"{package.removesuffix('.org')}.txt").exists()


def test_points_are_json_without_names() -> None:
    told = json.loads(rendering.points_of(snapshot(), {"a": [(1.0, None, 2.0)]}))

    assert told["streams"] == {"a": [[1.0, None, 2.0]]}


def test_a_group_without_streams_is_reported_as_one_that_does_not_answer() -> None:
    assert headline(snapshot().__class__(1, 1.0, {**status(), "streams": []}, {})).tone == "bad"
