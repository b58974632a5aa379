"""What a stream's own Python is written with: `transform: package.module:function`.

The function gets the records of a chunk, decoded, and returns one value for each, in their order: a changed value (the
event, where no mapping follows), `SKIP`, or `Failed` with the reason. It is called in the stream's reading thread, so
that what takes long there holds up the stream. What it raises is nobody's record's fault: the stream holds and calls
it again with the same records.

    from connector.hooks import SKIP, Failed, Records

    def function(records: Records) -> list[object]:
        return [SKIP if value["test"] else {"to": value["phone"], "body": value["text"]} for value in records.values]

`each` makes such a function of one for a single record.
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
    """Where they came from first: for what is sent again, not the topic it is sent again through."""
    values: Sequence[Any] = field(repr=False)
    """As decoded: objects of JSON are dicts."""
    keys: Sequence[str | None] = field(repr=False)
    """Text; Base64 where a key is no UTF-8."""
    headers: Sequence[Mapping[str, str | None]] = field(repr=False)
    """By name, the last of those that share one; text as keys are."""
    timestamps: Sequence[int | None] = field(repr=False)
    """Milliseconds since 1970."""
    attributes: Sequence[Mapping[str, Any] | None] = field(repr=False)
    """Of CloudEvents; None for other formats."""

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Record:
    """One record, as `each` hands it over."""

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
"""A record that is not to be sent: its outcome is `skipped`."""

Transform = Callable[[Records], Sequence[Any]]


class InvalidTransformError(ValueError):
    """What a setting names is no function that can be called."""


def each(function: Callable[[Record], Any]) -> Transform:
    """Make a transform of a function for one record, where what it raises is that record's failure.

    The text of a failure tells the exception's type and where it was raised, but not its words, which may repeat the
    record.
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
    """Say what a function raised, for whoever called it: the type, and the line of its own file where it happened.

    Not the exception's words, which may repeat the record.
    """
    told = f"raised {type(error).__name__}"
    [_, *places] = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    if not places:  # it was not entered: it is none of Python's, or what it returned is to blame
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
