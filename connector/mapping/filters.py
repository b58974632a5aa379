"""Filters for templates: money, dates, lengths; each has bounded results for any input.

Jinja's own filters are allowed one by one (`templates.py`); those of them that could multiply a text are reimplemented,
and those for texts get nothing else: they would print null as `None`, and an object as Python does.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_time
from babel.numbers import UnknownCurrencyError, format_currency, format_decimal, validate_currency
from jinja2 import Undefined
from jinja2.filters import FILTERS as JINJA_FILTERS

from connector.core.segments import segments_of, truncated
from connector.mapping.limits import MAX_CHARACTERS, STEPS

_STYLES: Final = ("short", "medium", "long", "full")
_SPACES: Final = dict.fromkeys(map(ord, "\u00a0\u2009\u202f"), " ")
MAX_POWER: Final = 20
"""Of ten, in an amount: Babel calculates with 28 digits."""
_DATE_DIGITS: Final = len("20260131")
"""Longer ISO 8601 values have a letter before the time of day."""


class FilterError(Exception):
    """A filter cannot do what it was asked; the text quotes nothing from the record."""


def default(value: Any, other: Any = "", boolean: bool = False) -> Any:
    """Return `other` if the value is missing or null; with `boolean`, also if it is empty, false or 0."""
    absent = value is None or isinstance(value, Undefined)
    return other if absent or (boolean and not value) else value


def join(items: Any, between: str = "") -> str:
    """Return the items as text, with `between` between them."""
    if not isinstance(items, list | tuple):
        raise FilterError("join takes a list")
    parts = [_text(item, "join") for item in items[: STEPS + 1]]
    if len(items) > STEPS or sum(map(len, parts)) + len(between) * (len(parts) - 1) > MAX_CHARACTERS:
        raise FilterError(f"join gives more than {MAX_CHARACTERS:,} characters")
    return between.join(parts)


def replace(value: Any, old: str, new: str) -> str:
    """Return the text with every `old` in it replaced by `new`."""
    text = _text(value, "replace")
    if len(text) + text.count(old) * (len(new) - len(old)) > MAX_CHARACTERS:
        raise FilterError(f"replace gives more than {MAX_CHARACTERS:,} characters")
    return text.replace(old, new)


def currency(value: Any, code: str, locale: str = "en_US") -> str:
    """Return an amount of money in a locale's format: 12.5 in EUR and `de_DE` becomes `12,50 €`."""
    amount = _amount(value, "currency")
    if not isinstance(code, str):
        raise FilterError("currency needs a code such as USD")
    try:
        validate_currency(code)
    except UnknownCurrencyError:
        raise FilterError("currency does not know the code; such as USD") from None
    return _with_plain_spaces(format_currency(amount, code, locale=_locale(locale)))


def number(value: Any, locale: str = "en_US") -> str:
    """Return a number in a locale's format."""
    return _with_plain_spaces(format_decimal(_amount(value, "number"), locale=_locale(locale)))


def moment(value: Any, zone: str = "UTC", style: str = "medium", locale: str = "en_US") -> str:
    """Return a moment as date and time in a time zone; `style` is short, medium, long, full or a CLDR pattern."""
    at, chosen, there, language = _moment(value, "datetime"), _style(style), _zone(zone), _locale(locale)
    return _dated("datetime", lambda: format_datetime(at, chosen, there, language))


def day(value: Any, zone: str = "UTC", style: str = "medium", locale: str = "en_US") -> str:
    """Return the date of a moment in a time zone; a date without a time is the same everywhere."""
    chosen, language = _style(style), _locale(locale)
    if isinstance(value, str) and len(value) == 10:
        with suppress(ValueError):
            on = date.fromisoformat(value)
            return _dated("date", lambda: format_date(on, chosen, language))
    at, there = _moment(value, "date"), _zone(zone)
    return _dated("date", lambda: format_date(at.astimezone(there), chosen, language))


def hour(value: Any, zone: str = "UTC", style: str = "short", locale: str = "en_US") -> str:
    """Return the time of day of a moment in a time zone."""
    at, chosen, there, language = _moment(value, "time"), _style(style), _zone(zone), _locale(locale)
    return _dated("time", lambda: format_time(at, chosen, there, language))


def segments(value: Any) -> int:
    """Return how many segments a text takes."""
    return segments_of(_text(value, "segments")).count


def truncate_segments(value: Any, count: int = 1, end: str = "...") -> str:
    """Return the longest beginning of a text that fits into `count` segments, followed by `end` if it is cut."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 255:
        raise FilterError("truncate_segments takes a number from 1 to 255")
    return truncated(_text(value, "truncate_segments"), count, _text(end, "truncate_segments"))


def truncate(value: Any, length: int = 255, end: str = "...") -> str:
    """Return at most `length` characters of a text, including `end` if it is cut."""
    text = _text(value, "truncate")
    if isinstance(length, bool) or not isinstance(length, int) or length < len(end):
        raise FilterError("truncate takes a number of characters, not below that of its end")
    return text if len(text) <= length else text[: length - len(end)].rstrip() + end


def _for_text(name: str) -> Callable[..., str]:
    """Return Jinja's filter of this name, for texts and numbers only."""
    of_jinja: Callable[..., str] = JINJA_FILTERS[name]
    return lambda value, *more, **named: of_jinja(_text(value, name), *more, **named)


def rounded(value: Any, digits: int = 0) -> Any:
    """Return a number rounded to `digits` decimal places; an integer if that is 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FilterError(f"round takes a number{_not(value)}")
    if isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits <= 10:
        raise FilterError("round takes 0 to 10 digits")
    return round(value, digits) if digits else round(value)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "currency": currency,
    "d": default,
    "date": day,
    "datetime": moment,
    "default": default,
    "join": join,
    "number": number,
    "replace": replace,
    "round": rounded,
    "segments": segments,
    "time": hour,
    "truncate": truncate,
    "truncate_segments": truncate_segments,
    **{name: _for_text(name) for name in ("capitalize", "lower", "title", "trim", "upper")},
}


def _with_plain_spaces(written: str) -> str:
    """Return Babel's output with ordinary spaces.

    A no-break space, as in `8:00 AM`, is not in the GSM alphabet: the text would take twice as many segments.
    """
    return written.translate(_SPACES)


def _dated(name: str, write: Callable[[], str]) -> str:
    """Return what Babel writes, or why it writes nothing."""
    try:
        return _with_plain_spaces(write())
    except AttributeError:
        lacks = "time of day" if name == "date" else "date"
        raise FilterError(f"{name} has no {lacks}, which this pattern asks for; datetime has both") from None
    except OverflowError:
        raise FilterError(f"{name} takes a time from the years 1 to 9999") from None
    except ValueError:
        raise FilterError(f"{name} does not know this pattern; such as EEE d MMM") from None


def _text(value: Any, name: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise FilterError(f"{name} takes text{_not(value)}")
    return as_written(value)


def as_written(value: float | Decimal) -> str:
    """Return a number as text; NaN and infinity are none that anybody wants to read."""
    if not (isinstance(value, int) or isfinite(value)):
        raise FilterError("would print a number that is not finite")
    return str(value)


def _not(value: Any) -> str:
    if isinstance(value, Undefined):
        return f", and {value._undefined_message}"  # noqa: SLF001 (nothing else says what is missing)
    return ", not null" if value is None else f", not a {type(value).__name__}"


def _amount(value: Any, name: str) -> Decimal:
    """Return a number, or a text that is one, as a decimal: cents must not be lost to binary fractions."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal) or len(str(value)) > 100:
        raise FilterError(f"{name} takes a number{_not(value)}")
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise FilterError(f"{name} takes a number, and this text is none") from None
    if not amount.is_finite() or abs(amount.adjusted()) > MAX_POWER:
        raise FilterError(f"{name} takes a number of a size that people write")
    return amount


def _moment(value: Any, name: str) -> datetime:
    """Return a moment: from ISO 8601 text (without an offset it is UTC), or from seconds or milliseconds since 1970."""
    try:
        if isinstance(value, datetime):
            found = value
        elif isinstance(value, str):
            # Some texts of milliseconds since 1970 would be valid times in the year 1700 for Python.
            found = datetime.fromisoformat("" if len(value) > _DATE_DIGITS and value.isdigit() else value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            # Seconds reach this number in the year 5138, milliseconds reached it in 1973.
            found = datetime.fromtimestamp(value / 1000 if abs(value) >= 1e11 else value, UTC)
        else:
            raise FilterError(f"{name} takes ISO 8601 text, or seconds or milliseconds since 1970{_not(value)}")
    except (ValueError, OverflowError, OSError):
        text = "and this is none; of microseconds or days since 1970 the template makes one: // 1000, * 86400"
        raise FilterError(f"{name} takes ISO 8601 text, or seconds or milliseconds since 1970, {text}") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _zone(name: Any) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
        raise FilterError("there is no such zone; such as America/New_York") from None


def _style(style: Any) -> Any:
    if isinstance(style, str) and 0 < len(style) <= 100:
        return style
    raise FilterError(f"a style is {', '.join(_STYLES)} or a pattern such as EEE d MMM")


def _locale(name: Any) -> Locale:
    try:
        return Locale.parse(str(name).replace("-", "_"))
    except (UnknownLocaleError, ValueError, TypeError):
        raise FilterError("there is no such locale; such as en_US") from None
