"""Logs: one line per event, of our own loggers and of the libraries', without phone numbers or secrets.

Everything passes one processor that masks, whatever logged it, so that no call site has to think of it. It works on the
final values, including tracebacks. Tracebacks are printed without local variables, which contain payloads.
"""

import json
import logging
import math
import os
import re
import select
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import structlog
from pydantic import SecretBytes, SecretStr
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from connector.config.settings import LogSettings

HIDDEN: Final = "***"

_QUIET: Final = ("aiohttp", "asyncio", "faust", "httpcore", "httpx", "mode", "urllib3")
"""Libraries whose messages at level info only repeat our own events."""

_CLIENT: Final = "librdkafka"
"""The logger of the Kafka client library."""

_SEPARATOR: Final = r"[ .()/\-\u00a0\u2000-\u200b\u202f\u2010-\u2015]{0,3}"  # including typographic spaces and dashes
_DIGITS: Final = rf"(?:[0-9]{{7,15}}|[0-9](?:{_SEPARATOR}[0-9]){{6,14}})"  # in one piece, or with separators
_INTERNATIONAL: Final = re.compile(rf"(?:\+|%2[Bb]){_DIGITS}")
_EXTENSION: Final = r"(?:x|ext\.?) ?[0-9]"  # ends the number before it
_BARE: Final = re.compile(rf"(?<![0-9A-Za-z])\(?{_DIGITS}(?:(?![0-9A-Za-z])|(?={_EXTENSION}))")

# Bounded, so that a long text without any address does not take quadratic time.
_MAIL_PART: Final = r"[^\s@<>\"'(),:;\\\[\]]{1,256}"
_MAIL: Final = re.compile(rf"{_MAIL_PART}@{_MAIL_PART}")
_HIDDEN_MAIL: Final = f"{HIDDEN}@{HIDDEN}"

_LONG_NUMBER: Final = re.compile(r"(?<![0-9A-Za-z])[0-9]{10,15}(?![0-9A-Za-z])")

_PATIENCE_SECS: Final = 1.0
"""How long whoever reads the log may keep us waiting before lines are dropped."""

MAX_SHOWN: Final = 500
"""Maximum length of the platform's texts when displayed."""

_PHONE_KEYS: Final = frozenset({"to", "to_number", "phone_number", "phone"})
_CONTENT_KEYS: Final = frozenset({"body", "message", "value", "payload", "contact_data", "custom_fields"})
_MULTI_LINE_KEYS: Final = frozenset({"exception", "stack"})

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def mask_phone(text: str) -> str:
    """Return a text with every international phone number shortened to its ends: `+15551230101` becomes `+1555***0101`.

    Numbers in international form are found with the usual separators, and with `%2B` for the plus. Digits without a
    plus stay, because offsets and times look like that.
    """
    return _INTERNATIONAL.sub(_cut, text)


def mask_mail(text: str) -> str:
    """Return a text with every e-mail address as `***@***`: the domain may be a person's own."""
    return _MAIL.sub(_HIDDEN_MAIL, text) if "@" in text else text


def _cut(match: re.Match[str]) -> str:
    """Keep four digits at either end, fewer of a short number, so that at least three are hidden."""
    text = match[0]
    digits = re.sub(r"[^0-9]", "", re.sub(r"^%2[Bb]", "", text))
    plus = "+" if text[0] in "+%" else ""
    kept = min(4, (len(digits) - 3) // 2)
    return f"{plus}{digits[:kept]}{HIDDEN}{digits[-kept:]}"


def mask_event(_logger: WrappedLogger | None, _method: str, event: EventDict) -> EventDict:
    """Mask phone numbers, texts and secrets in every value of an event, and escape control characters."""
    return {key: _clean(value, key) for key, value in event.items()}


def mask_record(value: Any) -> Any:
    """Return the content of a record as JSON-ready values, masked more strictly than an event.

    A record may contain anything. So any 7 to 15 digits count as a phone number, also as a JSON number and without a
    plus, and e-mail addresses are masked, also in names of fields. In logs such digits are offsets and times, and stay.
    Values that are nested too deeply are left out.
    """
    try:
        return _clean(value, "", of_record=True)
    except RecursionError:
        return HIDDEN


def disarm(text: str, *, keep_lines: bool = False) -> str:
    """Return a text with control characters escaped, so that a terminal does not execute them."""
    control = _CONTROL_BUT_LINES if keep_lines else _CONTROL
    return control.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def fit_to_show(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text of the platform's without phone numbers and secrets, truncated: it may repeat what was sent.

    Digits without a plus are hidden as well, so this is not for our own texts, where they are offsets.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    text = _LONG_NUMBER.sub(HIDDEN, mask_phone(text))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _clean(value: Any, key: str, *, of_record: bool = False) -> Any:
    """Return a value as JSON-ready and masked."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such numbers
    if isinstance(value, int | float):
        return HIDDEN if key in _PHONE_KEYS else _clean_number(value) if of_record else value
    if key in _CONTENT_KEYS or isinstance(value, SecretStr | SecretBytes):
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            _name(str(inner), of_record=of_record): _clean(item, str(inner), of_record=of_record)
            for inner, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item, key, of_record=of_record) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    text = value if isinstance(value, str) else str(value)
    text = _masked(mask_mail(text) if of_record else text, bare=of_record or key in _PHONE_KEYS)
    return disarm(text, keep_lines=key in _MULTI_LINE_KEYS)


def _clean_number(value: float) -> float | str:
    """Return a number of a record, masked if it has as many digits before the point as a phone number."""
    digits = str(abs(int(value)))
    masked = _BARE.sub(_cut, digits)
    return value if masked == digits else masked


def _name(text: str, *, of_record: bool) -> str:
    """Return the name of a field, masked, since it may identify a person."""
    return _masked(mask_mail(text), bare=True) if of_record else mask_phone(text)


def _masked(text: str, *, bare: bool) -> str:
    text = mask_phone(text)
    return _BARE.sub(_cut, text) if bare else text


def say(text: str) -> None:
    """Write to stderr, not to the log, and ignore that it cannot be written: what follows does not depend on it."""
    descriptor = _descriptor(sys.stderr)
    if descriptor is None or _takes_more(descriptor, within_secs=0):
        with suppress(OSError):
            sys.stderr.write(text)


def _descriptor(stream: TextIO) -> int | None:
    """Return what a stream writes to, None if that is memory."""
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return None


def _takes_more(descriptor: int, *, within_secs: float) -> bool:
    """Return whether `select.PIPE_BUF` bytes can be written without blocking; also if writing would fail at once."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(within_secs * 1000))


def _not_above_warning(record: logging.LogRecord) -> bool:
    """Lower an error of the Kafka client library to a warning.

    Whoever called it handles what failed, and reports an error if somebody has to act; an aborted transaction at a
    rebalance, which the library logs as an error, needs nobody.
    """
    if record.levelno > logging.WARNING:
        record.levelno, record.levelname = logging.WARNING, logging.getLevelName(logging.WARNING)
    return logging.getLogger().isEnabledFor(logging.WARNING)


class LogLimit:
    """Counts events of which at most one in `every_secs` is logged, so that they cannot flood the log."""

    def __init__(self, every_secs: float) -> None:
        self._every_secs = every_secs
        self._count, self._logged_at = 0, float("-inf")

    def due(self, *, at: float) -> int:
        """Count an event; return how many a line is due for now, this one included, or 0."""
        self._count += 1
        if at - self._logged_at < self._every_secs:
            return 0
        due, self._count, self._logged_at = self._count, 0, at
        return due


class _Unblocked:
    """What the log is written to, if not to memory: a pipe that is full keeps nobody waiting for long.

    If nobody reads the log, the streams continue, and a signal still ends the process. Lines are dropped until there is
    room again, and are then counted in one.
    """

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._dropped = 0
        self._ending = b""
        """What ends a line of which the last part was dropped, so that the next one begins on its own."""

    def write(self, line: str) -> None:
        """Write a line, or drop it; raises what writing to a descriptor does."""
        descriptor = self._target.fileno()
        if self._dropped and _takes_more(descriptor, within_secs=0):
            dropped, self._dropped = self._dropped, 0
            get_logger("log").warning("log lines dropped", count=dropped, why="nobody read the log")
        rest = whole = self._ending + line.encode(self._target.encoding, "backslashreplace")
        while rest:
            if not _takes_more(descriptor, within_secs=0 if self._dropped else _PATIENCE_SECS):
                self._dropped += 1
                if rest is not whole:
                    self._ending = b"\n"
                return
            rest = rest[os.write(descriptor, rest[: select.PIPE_BUF]) :]
            self._ending = b""


class _Handler(logging.StreamHandler[_Unblocked | TextIO]):
    """The handler of this module, recognised by its type when logging is configured again."""

    asked_level = logging.INFO
    """The level of the settings."""


def configure_logging(settings: LogSettings, *, stream: TextIO | None = None, worker: int | None = None) -> None:
    """Send all logs of the process to a stream (stderr unless given), in the format of the settings.

    May be called again, with another level or format. Libraries stay at warning whatever the level. With `worker`,
    every line names it, whichever thread or library writes it.
    """
    target = sys.stderr if stream is None else stream
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    on_terminal = settings.format == "console" or (settings.format == "auto" and target.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker is not None:
        shared.append(lambda _logger, _method, event: {**event, "worker": worker})
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        # The root logger's level is checked for each event: a change affects loggers that are bound already.
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        cache_logger_on_first_use=False,  # modules keep their loggers, which must follow a change of format
    )
    handler = _Handler(target if _descriptor(target) is None else _Unblocked(target))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                mask_event,
                _renderer(on_terminal=on_terminal, colors=on_terminal and target.isatty()),
            ],
        )
    )
    root = logging.getLogger()
    for old in [known for known in root.handlers if isinstance(known, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    client = logging.getLogger(_CLIENT)
    client.addFilter(_not_above_warning)
    client.setLevel(logging.NOTSET)
    _set_level(level)
    _Handler.asked_level = level
    logging.captureWarnings(capture=True)


def _set_level(level: int) -> None:
    logging.getLogger().setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def is_debugging() -> bool:
    """Return whether events of level debug are written; otherwise those of each batch are not even built."""
    return logging.getLogger().level <= logging.DEBUG


def silence_client() -> None:
    """Drop what the Kafka client library logs: a command says itself, once, what failed."""
    logging.getLogger(_CLIENT).setLevel(logging.CRITICAL)


def toggle_debug() -> None:
    """Switch to level debug, or back to the level of the settings, as SIGUSR1 does.

    If the settings say debug, the other level is info.
    """
    log = get_logger("log")
    if not is_debugging():
        _set_level(logging.DEBUG)
        log.warning("log level changed", to="debug")
        return
    quiet = _Handler.asked_level if _Handler.asked_level > logging.DEBUG else logging.INFO
    log.warning("log level changed", to=logging.getLevelName(quiet).lower())
    _set_level(quiet)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return the logger of a module (`get_logger(__name__)`); it follows every later `configure_logging`."""
    return cast(FilteringBoundLogger, structlog.stdlib.get_logger(name))


def _renderer(*, on_terminal: bool, colors: bool) -> Processor:
    if on_terminal:
        return structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    return structlog.processors.JSONRenderer(serializer=json.dumps, ensure_ascii=False)
