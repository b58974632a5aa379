"""Logs are one line per event, whoever logs, and give away no phone number, text or secret."""

import fcntl
import io
import json
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

import pytest
import structlog
from pydantic import SecretStr

from connector.app.application import Connector, RedriveService, StreamService
from connector.app.pages import PagesOnly
from connector.config.settings import LogSettings
from connector.telemetry.logging import (
    HIDDEN,
    configure_logging,
    get_logger,
    is_debugging,
    mask_phone,
    mask_record,
    silence_client,
    toggle_debug,
)
from tests.kit.patience import PATIENCE_SECS

SECRET = "hunter2"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the process's logging as it was found; a test before may have left warnings to a log of its own."""
    logging.captureWarnings(capture=False)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def stream() -> io.StringIO:
    """Log from level debug on, as JSON."""
    target = io.StringIO()
    configure_logging(LogSettings(level="debug", format="json"), stream=target)
    return target


@pytest.mark.parametrize("form", ["json", "console"])
def test_lines_of_a_worker_name_it_whoever_writes_them(form: Literal["json", "console"]) -> None:
    target = io.StringIO()
    configure_logging(LogSettings(format=form), stream=target, worker=3)

    get_logger("here").info("ours")
    thread = threading.Thread(target=lambda: logging.getLogger("a.library").warning("theirs"))
    thread.start()
    thread.join()

    lines = target.getvalue().splitlines()
    assert len(lines) == 2
    assert all(('"worker": 3' if form == "json" else "worker=3") in line for line in lines)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("+15551230101", "+1555***0101"),
        ("to +15551230101, from +447911123456.", "to +1555***0101, from +4479***3456."),
        ('{"to":"+15551230101"}', '{"to":"+1555***0101"}'),
        ("+1 (555) 123-0101", "+1555***0101"),
        ("+1.555.123.0101", "+1555***0101"),
        ("+1 (555) 123 - 0101", "+1555***0101"),
        ("+33\u202f6\u00a012\u00a034\u200956\u200978", "+3361***5678"),
        ("+1\u2011555\u2010123\u20130101", "+1555***0101"),
        ("%2B15551230101", "+1555***0101"),
        ("%2b15551230101", "+1555***0101"),
        ("+1555123", "+15***23"),
        ("+155512301011234", "+1555***1234"),
        ("+123456", "+123456"),
        ("2026-01-31T08:00:00+00:00", "2026-01-31T08:00:00+00:00"),
        ("offset 15551230101", "offset 15551230101"),
        ("1 + 2 = 3", "1 + 2 = 3"),
        ("", ""),
    ],
)
def test_phone_numbers_are_cut_to_their_ends(text: str, masked: str) -> None:
    assert mask_phone(text) == masked


@pytest.mark.parametrize("digits", range(7, 16))
def test_at_least_three_digits_of_a_number_are_hidden(digits: int) -> None:
    number = "+123456789012345"[: digits + 1]

    shown = mask_phone(number).replace("***", "").removeprefix("+")

    assert len(shown) <= digits - 3
    assert mask_phone(number) != number


def test_an_event_is_one_line_with_its_logger_level_and_time(stream: io.StringIO) -> None:
    get_logger("connector.stream").bind(stream="sends").warning("held", reason="bad key\nno, really", records=7)

    (line,) = _lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "held",
        "level": "warning",
        "logger": "connector.stream",
        "stream": "sends",
        "reason": "bad key\\nno, really",
        "records": 7,
    }


def test_bound_context_reaches_every_logger(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(stream="sends"):
        get_logger("ours").info("one")
        logging.getLogger("theirs").info("two")

    assert [line["stream"] for line in _lines(stream)] == ["sends", "sends"]


def test_values_are_masked_at_every_depth(stream: io.StringIO) -> None:
    get_logger("x").info(
        "to %s",
        "+15551230101",
        text="no such number: +15551230101",
        nested={"+15551230101": 1, "list": ["+15551230101", ("+15551230101",), {"+15551230101"}]},
        error=ValueError("+15551230101"),
        key=SecretStr(SECRET),
        raw=b"+15551230101",
        to="5551230101",
        phone_number=15551230101,
        body="your code is 1234",
        payload={"first_name": "Ada"},
    )

    (line,) = _lines(stream)
    assert line["event"] == "to +1555***0101"
    assert line["text"] == "no such number: +1555***0101"
    assert line["nested"]["list"] == ["+1555***0101", ["+1555***0101"], ["+1555***0101"]]
    assert line["error"] == "+1555***0101"
    assert (line["key"], line["raw"], line["to"]) == ("***", "<12 bytes>", "555***101")
    assert (line["phone_number"], line["body"], line["payload"]) == ("***", "***", "***")


def test_a_phone_number_as_key_of_a_map_is_masked(stream: io.StringIO) -> None:
    get_logger("x").info("counts", by_list={"+15551230101": 3})

    assert _lines(stream)[0]["by_list"] == {"+1555***0101": 3}


def test_plain_values_keep_their_type(stream: io.StringIO) -> None:
    get_logger("x").info("values", whole=5, part=0.5, yes=True, nothing=None, odd=float("nan"), many=[1, 2])

    line = _lines(stream)[0]
    assert [line[key] for key in ("whole", "part", "yes", "nothing", "odd", "many")] == [
        5,
        0.5,
        True,
        None,
        "nan",
        [1, 2],
    ]


def _fail(secret: str) -> None:
    """Raise with a secret among the local variables and a phone number in the message."""
    raise RuntimeError(f"no +15551230101 {len(secret)}")


def test_tracebacks_are_masked_and_show_no_local_variables(stream: io.StringIO) -> None:
    for logger in (get_logger("ours"), logging.getLogger("theirs")):
        try:
            _fail(SECRET)
        except RuntimeError:
            logger.exception("failed")

    lines = _lines(stream)
    assert [line["logger"] for line in lines] == ["ours", "theirs"]
    for line in lines:
        assert line["exception"].startswith("Traceback (most recent call last):\n")
        assert line["exception"].endswith("RuntimeError: no +1555***0101 7")
        assert SECRET not in line["exception"]


def test_control_characters_are_disarmed(stream: io.StringIO) -> None:
    get_logger("x").info("a\x1b[31mred\r\n\u2028b")

    assert _lines(stream)[0]["event"] == "a\\x1b[31mred\\r\\n\\u2028b"


SERVICES = sorted({kind.logger.name for kind in (Connector, StreamService, RedriveService, PagesOnly)})


@pytest.mark.parametrize("name", ["httpx", "aiohttp.access", "faust.app", "asyncio", *SERVICES])
def test_libraries_are_logged_from_warning_on(name: str, stream: io.StringIO) -> None:
    logging.getLogger(name).info("chatter")
    logging.getLogger(name).warning("to %s", "+15551230101")

    assert [(line["logger"], line["event"]) for line in _lines(stream)] == [(name, "to +1555***0101")]


@pytest.mark.parametrize(("level", "expected"), [("warning", ["warning"]), ("error", [])])
def test_errors_of_the_kafka_client_library_are_warnings(level: Any, expected: list[str]) -> None:
    """An error means that somebody has to act; the library logs one for each transaction that a rebalance aborts."""
    target = io.StringIO()
    silence_client()  # as a command does that ran before in this process
    configure_logging(LogSettings(level=level, format="json"), stream=target)

    logging.getLogger("librdkafka").error("TXNERR %s", "Current transaction failed (ILLEGAL_GENERATION)")

    assert [line["level"] for line in _lines(target)] == expected


def test_warnings_of_python_are_logged(stream: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", UserWarning, stacklevel=1)

    line = _lines(stream)[0]
    assert (line["logger"], line["level"]) == ("py.warnings", "warning")
    assert "old ways" in line["event"]


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_is_the_least_that_is_written(level: Any, heard: list[str]) -> None:
    target = io.StringIO()
    configure_logging(LogSettings(level=level, format="json"), stream=target)

    for logger in (get_logger("ours"), logging.getLogger("theirs")):
        for name in ("debug", "info", "warning", "error"):
            getattr(logger, name)(name)

    assert [line["event"] for line in _lines(target)] == heard * 2


def test_libraries_follow_a_level_above_warning() -> None:
    target = io.StringIO()
    configure_logging(LogSettings(level="error", format="json"), stream=target)

    logging.getLogger("httpx").warning("unheard")

    assert target.getvalue() == ""


def test_set_up_again_a_logger_follows_and_nothing_is_written_twice() -> None:
    first, second = io.StringIO(), io.StringIO()
    logger = get_logger("held by a module")
    configure_logging(LogSettings(level="error", format="json"), stream=first)
    logger.info("unheard")
    configure_logging(LogSettings(level="info", format="json"), stream=second)

    logger.info("heard")

    assert first.getvalue() == ""
    assert [line["event"] for line in _lines(second)] == ["heard"]


@pytest.mark.parametrize(
    ("form", "terminal", "is_json"),
    [
        ("auto", False, True),
        ("auto", True, False),
        ("json", True, True),
        ("console", False, False),
    ],
)
def test_the_form_follows_the_setting_and_the_terminal(form: Any, terminal: bool, is_json: bool) -> None:
    target = _Terminal() if terminal else io.StringIO()
    configure_logging(LogSettings(format=form), stream=target)

    get_logger("x").info("ready", records=5)

    text = target.getvalue()
    assert text.startswith("{") == is_json
    assert ("\x1b[" in text) == (terminal and not is_json)
    assert "ready" in text


def test_text_for_people_is_masked_and_shows_no_local_variables() -> None:
    target = _Terminal()
    configure_logging(LogSettings(format="console"), stream=target)
    try:
        _fail(SECRET)
    except RuntimeError:
        get_logger("x").exception("failed", to="+15551230101")

    text = target.getvalue()
    assert "+15551230101" not in text
    assert "+1555***0101" in text
    assert SECRET not in text
    assert "Traceback" in text


def test_logs_go_to_stderr_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="json"))

    get_logger("x").info("there")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert '"event": "there"' in captured.err
    assert sys.stderr is not sys.__stderr__


@pytest.mark.parametrize(("level", "quiet"), [("info", "info"), ("error", "error"), ("debug", "info")])
def test_the_level_changes_while_loggers_are_bound_already(
    level: Literal["debug", "info", "error"], quiet: Literal["info", "error"]
) -> None:
    target = io.StringIO()
    configure_logging(LogSettings(level=level, format="json"), stream=target)
    bound = get_logger("stream").bind(stream="sends")
    if level == "debug":
        toggle_debug()

    told = []
    for _ in range(3):
        bound.debug("detail")
        told.append("detail" in target.getvalue())
        target.truncate(0)
        toggle_debug()

    assert told == [False, True, False]
    assert is_debugging()
    toggle_debug()
    assert logging.getLogger().level == logging.getLevelNamesMapping()[quiet.upper()]


def test_a_change_of_level_is_logged_while_its_level_is_enabled() -> None:
    target = io.StringIO()
    configure_logging(LogSettings(level="warning", format="json"), stream=target)

    toggle_debug()
    toggle_debug()

    told = [(line["event"], line["to"]) for line in _lines(target)]
    assert told == [("log level changed", "debug"), ("log level changed", "warning")]


def test_libraries_stay_quiet_at_level_debug() -> None:
    target = io.StringIO()
    configure_logging(LogSettings(format="json"), stream=target)

    toggle_debug()
    logging.getLogger("aiohttp.client").info("chatter")

    assert "chatter" not in target.getvalue()


def test_nothing_is_shown_of_what_is_nested_too_deeply_to_be_masked() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]

    assert mask_record(deep) == HIDDEN


@pytest.fixture
def unread() -> Iterator[int]:
    """Log into a small pipe, and return the end that nobody reads yet."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 16_384)
    os.set_blocking(reading, False)
    with os.fdopen(writing, "w") as target:
        configure_logging(LogSettings(level="info", format="json"), stream=target)
        yield reading
    os.close(reading)


def test_a_log_that_nobody_reads_does_not_stop_who_logs(unread: int) -> None:
    """What does not fit is dropped, and counted as soon as somebody reads."""
    log = get_logger("test")

    def write() -> None:
        for number in range(200):
            log.info("a line", number=number, filler="x" * 100)
        log.info("a long line", filler="x" * 10_000)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(PATIENCE_SECS)
    assert not writer.is_alive()
    kept = [json.loads(line)["number"] for line in os.read(unread, 1_000_000).splitlines()]
    assert kept == list(range(len(kept)))

    log.info("after it")

    dropped, after = (json.loads(line) for line in os.read(unread, 1_000_000).splitlines())
    assert (dropped["event"], dropped["count"]) == ("log lines dropped", 201 - len(kept))
    assert after["event"] == "after it"


def test_what_follows_a_line_of_which_a_part_was_dropped_begins_on_its_own(unread: int) -> None:
    log = get_logger("test")
    log.info("long", filler="x" * 20_000)
    torn = os.read(unread, 1_000_000)

    log.info("after it")

    rest, *lines = (torn + os.read(unread, 1_000_000)).splitlines()
    assert rest == torn
    assert [json.loads(line)["event"] for line in lines] == ["log lines dropped", "after it"]


def test_a_line_longer_than_what_a_pipe_holds_is_written_as_it_is_read(unread: int) -> None:
    writer = threading.Thread(target=lambda: get_logger("test").info("long", filler="\u00fc" * 100_000))
    writer.start()
    read = b""
    while writer.is_alive() or not read.endswith(b"\n"):
        with suppress(BlockingIOError):
            read += os.read(unread, 1_000_000)

    assert json.loads(read)["filler"] == "\u00fc" * 100_000
