"""The interface of transforms, a stream's own Python: `transform: package.module:function`.

The function gets the decoded records of a chunk and returns one value per record, in order: a changed value (the event,
if no mapping follows), `SKIP`, or `Failed` with the reason. It is called in the stream's reader thread, so a slow
function slows the stream down. An exception is not attributed to a record: the stream holds and calls the function
again with the same records.

    from connector.hooks import SKIP, Failed, Records

    def function(records: Records) -> list[object]:
        return [SKIP if value["test"] else {"to": value["phone"], "body": value["text"]} for value in records.values]

`each` turns a function for a single record into such a function.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import PurePath
from traceback import walk_tb
from typing import Any, Final, cast


@dataclass(frozen=True, slots=True)
class Records:
    """Records of one topic, column by column; all columns have the length of `values`."""

    topic: str
    """The topic they came from first: for redriven records, not the redrive topic."""
    values: Sequence[Any] = field(repr=False)
    """Decoded: JSON objects are dicts."""
    keys: Sequence[str | None] = field(repr=False)
    """Text; Base64 if a key is not UTF-8."""
    headers: Sequence[Mapping[str, str | None]] = field(repr=False)
    """By name; the last of repeated headers counts; values are text like keys."""
    timestamps: Sequence[int | None] = field(repr=False)
    """Milliseconds since 1970."""
    attributes: Sequence[Mapping[str, Any] | None] = field(repr=False)
    """Attributes of CloudEvents; None for other formats."""

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Record:
    """One record, as a function for `each` gets it."""

    topic: str
    value: Any = field(repr=False)
    key: str | None = field(repr=False)
    headers: Mapping[str, str | None] = field(repr=False)
    timestamp: int | None
    attributes: Mapping[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """A record that cannot be transformed: a dead letter `transform_failed` with this text, cut at 500 characters."""

    text: str


class Skip:
    """The type of `SKIP`."""

    def __repr__(self) -> str:
        return "SKIP"


SKIP: Final = Skip()
"""A record that should not be sent: its outcome is `skipped`."""

Transform = Callable[[Records], Sequence[Any]]


class InvalidTransformError(ValueError):
    """The setting does not name a callable function."""


def each(function: Callable[[Record], Any]) -> Transform:
    """Turn a function for one record into a transform; its exceptions are failures of that record.

    The text of such a failure has the exception's type and place, but not its message, which may repeat the record.
    """

    @wraps(function)
    def transform(records: Records) -> Sequence[Any]:
        columns = (records.values, records.keys, records.headers, records.timestamps, records.attributes)
        made: list[Any] = []
        for value, key, headers, timestamp, attributes in zip(*columns, strict=True):
            try:
                made.append(function(Record(records.topic, value, key, headers, timestamp, attributes)))
            except (Exception, SystemExit) as error:  # noqa: BLE001 (whatever it is, it is about this record)
                made.append(Failed(raised(error)))
        return made

    return transform


def raised(error: BaseException) -> str:
    """Return a description of an exception for the function's author: its type, and the line in the function's file.

    Without the exception's message, which may repeat the record.
    """
    told = f"raised {type(error).__name__}"
    [_, *places] = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    if not places:  # the function was not entered: not Python, or its return value is at fault
        return told
    own = places[0][0]
    line = [line for file, line in places if file == own][-1]
    return f"{told} in line {line} of {PurePath(own).name}"


def load_transform(name: str) -> Transform:
    """Return the function that `package.module:function` names; raises `InvalidTransformError`."""
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        raise InvalidTransformError("must be package.module:function")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InvalidTransformError(
            f"names a module that does not exist ({error.name}); install it, or add its folder to PYTHONPATH"
        ) from None
    except (Exception, SystemExit) as error:  # a script ends when it is imported: this process must not
        raise InvalidTransformError(f"names a module that fails when it is imported: {type(error).__name__}") from error
    found = getattr(module, function_name, None)
    if not callable(found):
        raise InvalidTransformError(
            f"does not name a function: {module_name} has no {function_name} that can be called"
        )
    return cast(Transform, found)
