"""A mapping, compiled: from what a record is to the event that the platform takes, column by column.

A field is an expression, or says which of these it is: `template`, `const`, `from` with a `default`, or further
`fields`. What comes out null is left out, so that a number that is not there falls out as it would of any event. A
field that has no result for a record makes that record a failure that names the field.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from connector.mapping.columns import Columns
from connector.mapping.expressions import (
    EvaluationError,
    Expression,
    InvalidSourceError,
    Scope,
    compile_expression,
    is_true,
)
from connector.mapping.limits import MAX_CHARACTERS

if TYPE_CHECKING:
    from connector.mapping.templates import Template

KeyPath = tuple[str | int, ...]

_FORMS: Final = "an expression, a number, true, false, or one of template, const, from, fields"
_CONSTANT: Final = "; text that stands for itself is written {const: ...}"
_WORDS: Final = frozenset({"template", "const", "from", "default", "fields"})
_PRINTED: Final = frozenset({str, int, float})
"""Types that a template prints as Python does."""
_LIST_WORDS: Final = frozenset({"table", "by", "default"})


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a mapping: at which of its keys, and where in the text there, if that is known."""

    path: KeyPath
    message: str
    offset: int | None = None


class InvalidMappingError(ValueError):
    """A mapping cannot be compiled; `flaws` says everything that is wrong with it."""

    def __init__(self, flaws: Sequence[Flaw]) -> None:
        super().__init__("; ".join(f"{_dotted(flaw.path)}: {flaw.message}" for flaw in flaws))
        self.flaws = tuple(flaws)


class Failures(dict[int, str]):
    """Why records have no event, by index; the first reason counts."""

    def add(self, index: int, text: str) -> None:
        """Note a reason."""
        self.setdefault(index, text)


Make = Callable[[Columns, Failures], Sequence[Any]]
"""Makes a column of values; where one has no result it is null, and the failure is noted."""

_NONE: Final[Mapping[str, Make]] = {}


@dataclass(frozen=True, slots=True)
class Maker:
    """What makes one value of an event: its place, what stands in the settings, and the roots it looks at."""

    path: KeyPath
    source: str
    roots: frozenset[str]
    make: Make = field(repr=False)


@dataclass(frozen=True, slots=True)
class CompiledMapping:
    """Makes events of records. Without `make` an event is the record's value, with its list where that is chosen.

    `sources` says where each field comes from, by its name as people write it (`metadata.order_id`).
    """

    when: Expression | None
    make: Make | None = field(repr=False)
    list_number: Make | None = field(repr=False)
    max_segments: int | None
    roots: frozenset[str]
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def keeps_values(self) -> bool:
        """Tell whether events are the values as they came, so that nothing need be encoded anew."""
        return self.make is None and self.list_number is None

    def passing(self, columns: Columns, failures: Failures) -> list[int] | None:
        """Return the indices of the records that `when` lets pass, None for all."""
        if self.when is None:
            return None
        found = _evaluated(columns, self.when, "mapping.when", failures)
        passing = [index for index, value in enumerate(found) if is_true(value)]
        return None if len(passing) == len(columns) else passing

    def events(self, columns: Columns, failures: Failures) -> Sequence[Any]:
        """Return the event of each record."""
        events = columns.values
        if self.make is not None:
            events = self.make(columns, failures)
            return [{} if event is None else event for event in events] if None in events else events
        if self.list_number is None:
            return events
        lists = self.list_number(columns, failures)
        return [
            event if number is None or not isinstance(event, dict) else {**event, "list_number": number}
            for event, number in zip(events, lists, strict=True)
        ]


def compile_mapping(
    *,
    fields: Mapping[str, Any],
    when: str | None = None,
    list_number: Any = None,
    max_segments: int | None = None,
) -> CompiledMapping:
    """Compile a mapping as settings have it; raises `InvalidMappingError` with everything that is wrong with it."""
    compiler = _Compiler()
    condition = None if when is None else compiler.expression(when, ("when",))
    chosen = None if list_number is None else compiler.list_number(list_number, ("list_number",))
    more = {} if chosen is None else {"list_number": chosen}
    made = compiler.group(fields, ("fields",), more=more) if fields else None
    if chosen is not None and "list_number" in fields:
        compiler.flaws.append(Flaw(("list_number",), "stands among the fields too"))
    if compiler.flaws:
        raise InvalidMappingError(compiler.flaws)
    roots: frozenset[str] = condition.roots if condition is not None else frozenset()
    for maker in compiler.makers:
        roots |= maker.roots
    sources = {_dotted(maker.path).removeprefix("fields."): maker.source for maker in compiler.makers}
    return CompiledMapping(condition, made, chosen, max_segments, roots, sources)


class _Compiler:
    """One pass over a mapping, which goes on after a flaw."""

    def __init__(self) -> None:
        self.flaws: list[Flaw] = []
        self.makers: list[Maker] = []

    def expression(self, text: Any, path: KeyPath) -> Expression | None:
        if not isinstance(text, str):
            self.flaws.append(Flaw(path, "must be an expression"))
            return None
        try:
            return compile_expression(text)
        except InvalidSourceError as error:
            hint = _CONSTANT if path[-1] not in ("when", "by", "from") else ""
            self.flaws.append(Flaw(path, f"{error}{hint}", error.offset))
            return None

    def group(self, fields: Any, path: KeyPath, *, more: Mapping[str, Make] = _NONE) -> Make | None:
        if not isinstance(fields, dict):
            self.flaws.append(Flaw(path, "must be a group of fields"))
            return None
        makes = {name: self.field(spec, (*path, name)) for name, spec in fields.items()}
        complete = {name: make for name, make in makes.items() if make is not None}
        return _object({**complete, **more})

    def field(self, spec: Any, path: KeyPath) -> Make | None:
        match spec:
            case str():
                return self._by_expression(spec, path, path)
            case bool() | int() | float():
                return self._constant(spec, path)
            case dict() if spec.keys() & _WORDS:
                return self._by_word(spec, path)
            case dict() if spec:
                return self.group(spec, path)
            case _:
                self.flaws.append(Flaw(path, f"must be {_FORMS}"))
                return None

    def _by_word(self, spec: dict[str, Any], path: KeyPath) -> Make | None:
        words = sorted(spec)
        match words:
            case ["template"]:
                return self._by_template(spec["template"], (*path, "template"), path)
            case ["const"]:
                return self._constant(spec["const"], path)
            case ["fields"]:
                return self.group(spec["fields"], path) if self._named(spec["fields"], (*path, "fields")) else None
            case ["from"] | ["default", "from"]:
                make = self._by_expression(spec["from"], (*path, "from"), path, default=spec.get("default"))
                return None if make is None else _with_default(make, spec.get("default"))
            case _:
                message = f"has {' and '.join(words)} together; fields with such names go under fields:"
                self.flaws.append(Flaw(path, message))
                return None

    def _named(self, fields: Any, path: KeyPath) -> bool:
        if isinstance(fields, dict) and fields:
            return True
        self.flaws.append(Flaw(path, "must be a group of fields"))
        return False

    def _by_expression(self, text: Any, at: KeyPath, path: KeyPath, *, default: Any = None) -> Make | None:
        expression = self.expression(text, at)
        if expression is None:
            return None
        where = f"mapping.{_dotted(path)}"
        source = expression.text if default is None else f"{expression.text}, else {default!r}"
        return self._made(path, source, expression.roots, _by_expression(expression, where))

    def _by_template(self, text: Any, at: KeyPath, path: KeyPath) -> Make | None:
        if not isinstance(text, str):
            self.flaws.append(Flaw(at, "must be text"))
            return None
        # Jinja and Babel take 70 ms to load, which whoever has no template should not wait for.
        from connector.mapping.templates import compile_template  # noqa: PLC0415

        try:
            template = compile_template(text)
        except InvalidSourceError as error:
            self.flaws.append(Flaw(at, str(error), error.offset))
            return None
        make = _by_template(template, f"mapping.{_dotted(path)}")
        return self._made(path, f"template {text}", template.roots, make)

    def _constant(self, value: Any, path: KeyPath) -> Make:
        return self._made(path, f"constant {value!r}", frozenset(), lambda columns, _failures: [value] * len(columns))

    def _made(self, path: KeyPath, source: str, roots: frozenset[str], make: Make) -> Make:
        self.makers.append(Maker(path, source, roots, make))
        return make

    def list_number(self, spec: Any, path: KeyPath) -> Make | None:
        if not isinstance(spec, dict) or not spec.keys() & {"table", "by"}:
            return self.field(spec, path)
        if unknown := sorted(spec.keys() - _LIST_WORDS):
            self.flaws.append(Flaw((*path, unknown[0]), "is not a setting; known here: table, by, default"))
        table, default = spec.get("table"), spec.get("default")
        if not isinstance(table, dict) or not table or not all(isinstance(number, str) for number in table.values()):
            self.flaws.append(Flaw((*path, "table"), 'must be lists by what `by` gives, such as {US: "+18005551234"}'))
            return None
        if default is not None and not isinstance(default, str):
            self.flaws.append(Flaw((*path, "default"), "must be text: put it in quotes"))
            return None
        by = self.expression(spec.get("by"), (*path, "by"))
        if by is None:
            return None
        column = _by_expression(by, f"mapping.{_dotted(path)}.by")

        def make(columns: Columns, failures: Failures) -> Sequence[Any]:
            return [
                table.get(found if isinstance(found, str) else _as_key(found), default)
                for found in column(columns, failures)
            ]

        return self._made(path, f"table by {by.text}", by.roots, make)


def _as_key(found: Any) -> str:
    """Return what a table is asked for; what is no plain value is in none."""
    if isinstance(found, bool):
        return "true" if found else "false"
    return str(found) if isinstance(found, int | float) else ""


def _object(makes: dict[str, Make]) -> Make:
    """Make objects of columns; what is null is left out, and so is an object that nothing is left of."""
    names = tuple(makes)

    def make(columns: Columns, failures: Failures) -> Sequence[Any]:
        made = [one(columns, failures) for one in makes.values()]
        if not any(None in column for column in made):
            return list(map(dict, map(zip, repeat(names), zip(*made, strict=True))))
        return [
            {name: value for name, value in zip(names, row, strict=True) if value is not None} or None
            for row in zip(*made, strict=True)
        ]

    return make


def _with_default(make: Make, default: Any) -> Make:
    if default is None:
        return make

    def with_default(columns: Columns, failures: Failures) -> Sequence[Any]:
        return [default if value is None else value for value in make(columns, failures)]

    return with_default


def _by_template(template: "Template", where: str) -> Make:
    def render(columns: Columns, failures: Failures) -> Sequence[Any]:
        return _each(template.evaluate, columns.scopes(template.roots), where, failures)

    form = template.form
    if form is None or not template.paths:
        return render

    def fill(columns: Columns, failures: Failures) -> Sequence[Any]:
        try:
            fields = [_followed(columns, path) for path in template.paths]
        except (LookupError, TypeError):
            return render(columns, failures)
        if not all(_PRINTED.issuperset(map(type, column)) for column in fields):
            return render(columns, failures)
        # As the template would print each record, but in C.
        texts = list(map(form.__mod__, zip(*fields, strict=True)))
        return texts if max(map(len, texts), default=0) <= MAX_CHARACTERS else render(columns, failures)

    return fill


def _by_expression(expression: Expression, where: str) -> Make:
    path = expression.path
    if path is None:
        return lambda columns, failures: _evaluated(columns, expression, where, failures)

    def follow(columns: Columns, failures: Failures) -> Sequence[Any]:
        try:
            return _followed(columns, path)
        except (LookupError, TypeError):
            return _evaluated(columns, expression, where, failures)

    return follow


def _followed(columns: Columns, path: tuple[str, ...]) -> Sequence[Any]:
    """Follow fields in all records at once; raises LookupError or TypeError where one of them does not have them."""
    column = columns.column(path[0])
    for name in path[1:]:
        column = list(map(itemgetter(name), column))
    return column


def _evaluated(columns: Columns, expression: Expression, where: str, failures: Failures) -> Sequence[Any]:
    return _each(expression.evaluate, columns.scopes(expression.roots), where, failures)


def _each(evaluate: Callable[[Scope], Any], scopes: list[Scope], where: str, failures: Failures) -> list[Any]:
    """Evaluate for each record; those that have no result are null and noted."""
    found: list[Any] = []
    waiting = map(evaluate, scopes)
    while True:
        try:
            found.extend(waiting)  # what was evaluated before a failure stays
        except EvaluationError as error:
            failures.add(len(found), f"{where}: {error}")
            found.append(None)
        else:
            return found


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))
