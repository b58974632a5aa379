"""Builds the values of a mapping, column by column: expressions, templates, objects.

Each builder takes the records of a chunk and returns a value for each of them, null if there is none.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import UNSET

from connector.core.mapped import mapped
from connector.mapping.columns import Columns
from connector.mapping.expressions import EvaluationError, Expression, Scope, is_true
from connector.mapping.limits import MAX_CHARACTERS, TOO_LONG
from connector.mapping.projection import FieldPath, Printed

if TYPE_CHECKING:
    from connector.mapping.templates import Template

_TEXT: Final = {str}
_PRINTED: Final = frozenset({str, int, float})
"""Types that a template prints as Python does, except for numbers that are not finite."""
_PRINTED_OR_NULL: Final = _PRINTED | {type(None)}
_NOT_FINITE: Final = frozenset({"nan", "inf", "-inf"})


Failures = dict[int, str]
"""Why records have no event, by index; the first cause counts."""

Make = Callable[[Columns, Failures], Sequence[Any]]
"""Builds a column of values; where one has no result it is null, and the failure is noted."""


def all_hold(terms: Sequence[tuple[FieldPath, str | None]], columns: Columns) -> list[int] | None:
    """Return the indices of the records for which all terms are true, None for all records."""
    holding: list[int] | None = None
    for path, text in terms:
        column = columns.follow(path)
        # One count in C is enough for most columns. Values equal to True are the number 1 and true, and both count as
        # true.
        if column.count(True if text is None else text) == len(column):
            continue
        indices = range(len(column)) if holding is None else holding
        if text is None:
            holding = [
                index
                for index in indices
                if (value := column[index]) or (value is not None and value is not False and is_true(value))
            ]
        else:
            holding = [index for index in indices if column[index] == text]
    return holding


class Group:
    """Builds objects from columns; null members are left out, and so are objects without members."""

    def __init__(self, makes: Mapping[str, Make]) -> None:
        self._makes = dict(makes)
        self._kind = _kind(tuple(makes))

    def __call__(self, columns: Columns, failures: Failures) -> Sequence[Any]:
        """Build the objects."""
        return self.objects(columns, failures)[0]

    def objects(self, columns: Columns, failures: Failures) -> tuple[Sequence[Any], Mapping[str, Sequence[Any]]]:
        """Return the objects, and their fields as columns, UNSET where an object has none."""
        fields = {name: make(columns, failures) for name, make in self._makes.items()}
        gaps = [name for name, column in fields.items() if None in column]
        made = fields | {name: [UNSET if value is None else value for value in fields[name]] for name in gaps}
        objects = list(map(self._kind, *made.values()))
        if len(gaps) == len(fields):
            nothing = (None,) * len(fields)
            rows = zip(*fields.values(), strict=True)
            objects = [None if row == nothing else found for row, found in zip(rows, objects, strict=True)]
        return objects, made


def _kind(names: Sequence[str]) -> Callable[..., Any]:
    """Return a function that builds an object from values, leaving out UNSET."""
    places = {f"f{number}": name for number, name in enumerate(names)}
    try:
        # Measured: created and encoded in half the time of a dict.
        return msgspec.defstruct("Event", places, rename=places, gc=False)
    except ValueError:  # a name contains a quote, a backslash or similar
        return lambda *values: {n: value for n, value in zip(names, values, strict=True) if value is not UNSET}


def with_default(make: Make, default: Any) -> Make:
    """Use a default where a column is null."""
    if default is None:
        return make

    def with_default(columns: Columns, failures: Failures) -> Sequence[Any]:
        return [default if value is None else value for value in make(columns, failures)]

    return with_default


def by_template(template: "Template", where: str) -> Make:
    """Build texts; `where` names the field in failures."""

    def render(columns: Columns, failures: Failures) -> Sequence[Any]:
        return _each(template.evaluate, columns.scopes(template.roots), where, failures)

    if not template.pieces:
        return render

    *before, last = template.pieces
    if not before:
        return lambda columns, _failures: [last] * len(columns)

    def fill(columns: Columns, failures: Failures) -> Sequence[Any]:
        fields = [_shown(columns, field) for field in template.printed]
        kinds = [set(map(type, column)) for column in fields]
        if not all(_PRINTED.issuperset(kind) for kind in kinds):
            odd = set().union(*(unprintable(column, None) for column in fields))
            plain = [index for index in range(len(columns)) if index not in odd]
            return _in_parts(columns, failures, ((fill, plain), (render, sorted(odd))))
        # As the template would print each record, but column by column.
        parts: list[Iterable[str]] = []
        try:
            for piece, column, kind in zip(before, fields, kinds, strict=True):
                texts = column if kind == _TEXT else [f"{one}" for one in column]
                if float in kind and not _NOT_FINITE.isdisjoint(texts):  # only a transform returns such numbers
                    return render(columns, failures)
                parts += repeat(piece), texts
        except ValueError:  # an integer with thousands of digits, which only a transform can return
            return render(columns, failures)
        made = list(map("".join, zip(*parts, repeat(last))))
        if max(map(len, made), default=0) > MAX_CHARACTERS:
            for index, text in enumerate(made):
                if len(text) > MAX_CHARACTERS:
                    failures.setdefault(index, f"{where}: {TOO_LONG}")
        return made

    return fill


def _shown(columns: Columns, field: Printed) -> Sequence[Any]:
    column, instead = columns.follow(field.path), field.instead
    if instead is None or None not in column:
        return column
    return [instead if found is None else found for found in column]


def _in_parts(columns: Columns, failures: Failures, parts: Iterable[tuple[Make, list[int]]]) -> list[Any]:
    """Build one column in parts, each for the records at some indices."""
    made: list[Any] = [None] * len(columns)
    for make, indices in parts:
        inner = Failures()
        for index, value in zip(indices, make(columns.pick(indices), inner), strict=True):
            made[index] = value
        for at, text in inner.items():
            failures.setdefault(indices[at], text)
    return made


def unprintable(column: Sequence[Any], instead: str | None) -> set[int]:
    """Return the indices of values that a template does not print as Python does; null is one if `instead` is None."""
    kinds = _PRINTED if instead is None else _PRINTED_OR_NULL
    if kinds.issuperset(map(type, column)):
        return set()
    return {index for index, value in enumerate(column) if type(value) not in kinds}


def by_expression(expression: Expression, where: str) -> Make:
    """Build the results of an expression; `where` names it in failures."""
    path = expression.path
    if path is None:
        return lambda columns, failures: evaluated(columns, expression, where, failures)
    return lambda columns, _failures: columns.follow(path)


def evaluated(columns: Columns, expression: Expression, where: str, failures: Failures) -> Sequence[Any]:
    """Evaluate an expression for each record."""
    return _each(expression.evaluate, columns.scopes(expression.roots), where, failures)


def _each(evaluate: Callable[[Scope], Any], scopes: list[Scope], where: str, failures: Failures) -> list[Any]:
    """Evaluate for each record; those without a result are null and noted."""

    def null(index: int, error: Exception) -> None:
        failures.setdefault(index, f"{where}: {error}")

    return mapped(evaluate, scopes, EvaluationError, null)
