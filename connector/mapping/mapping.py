"""A compiled mapping: from records to events that the platform accepts, column by column.

A field is an expression, or an object with one of these: `template`, `const`, `from` with a `default`, or further
`fields`. Null results are left out, so that a missing number is reported as for any event. A record for which a field
has no result becomes a failure that names the field.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from connector.mapping.columns import Columns
from connector.mapping.expressions import ROOTS, Expression, InvalidSourceError, compile_expression, is_true
from connector.mapping.making import (
    Failures,
    Group,
    Make,
    all_hold,
    by_expression,
    by_template,
    evaluated,
    unprintable,
    with_default,
)
from connector.mapping.projection import FieldPath, Printed

KeyPath = tuple[str | int, ...]

_FORMS: Final = "an expression, a number, true, false, or one of template, const, from, fields"
_CONSTANT: Final = "; text that stands for itself is written {const: ...}"
_TEMPLATE: Final = "; text with {{ }} in it is written {template: ...}"
_WORDS: Final = frozenset({"template", "const", "from", "default", "fields"})
_LIST_WORDS: Final = frozenset({"table", "by", "default"})


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a mapping: the key, and the position in its text, if known."""

    path: KeyPath
    message: str
    offset: int | None = None


class InvalidMappingError(ValueError):
    """A mapping cannot be compiled; `flaws` lists everything that is wrong with it."""

    def __init__(self, flaws: Sequence[Flaw]) -> None:
        super().__init__("; ".join(f"{_dotted(flaw.path)}: {flaw.message}" for flaw in flaws))
        self.flaws = tuple(flaws)


_JSON: Final = {dict, list, str, int, float, bool, type(None)}
_NONE: Final[Mapping[str, Make]] = {}
_NO_FIELDS: Final[frozenset[FieldPath]] = frozenset()


@dataclass(frozen=True, slots=True)
class Maker:
    """One value of an event: its place, its text in the settings, and what it uses."""

    path: KeyPath
    source: str
    roots: frozenset[str]
    fields: frozenset[FieldPath] | None
    """Everything that it uses, if it only follows fields."""
    printed: tuple[Printed, ...]
    """What a template prints of them."""


@dataclass(frozen=True, slots=True)
class CompiledMapping:
    """Builds events from records. Without `make`, an event is the record's value, with its list if that is chosen.

    `sources` says where each field comes from, by its name as written (`metadata.order_id`).
    """

    when: Expression | None
    make: Group | None = field(repr=False)
    list_number: Make | None = field(repr=False)
    roots: frozenset[str]
    fields: frozenset[FieldPath] | None = None
    """Everything that it uses, if it only follows fields: a projection of these is enough."""
    printed: tuple[Printed, ...] = ()
    """What templates print of them."""
    sources: Mapping[str, str] = field(default_factory=dict)
    attributes: tuple[KeyPath, ...] = ()
    """Keys of the settings that use `attributes`, which only CloudEvents have."""

    @property
    def keeps_values(self) -> bool:
        """Whether events are the values as they came, so that nothing needs to be encoded."""
        return self.make is None and self.list_number is None

    def passing(self, columns: Columns, failures: Failures) -> list[int] | None:
        """Return the indices of the records for which `when` is true, None for all."""
        if self.when is None:
            return None
        if self.when.terms:
            return all_hold(self.when.terms, columns)
        found = evaluated(columns, self.when, "mapping.when", failures)
        passing = [index for index, value in enumerate(found) if is_true(value)]
        return None if len(passing) == len(columns) else passing

    def unprintable(self, columns: Columns) -> set[int]:
        """Return the indices of records with a field that only the template itself can print, if at all."""
        return set().union(*(unprintable(columns.follow(field.path), field.instead) for field in self.printed))

    def events(self, columns: Columns, failures: Failures) -> tuple[Sequence[Any], Mapping[str, Sequence[Any]]]:
        """Return the event of each record, and their fields as columns if they are built one by one.

        A field is UNSET where an event has none.
        """
        if self.make is not None:
            events, fields = self.make.objects(columns, failures)
            return ([{} if event is None else event for event in events] if None in events else events), fields
        events = columns.values
        if self.list_number is None:
            return events, {}
        lists = self.list_number(columns, failures)
        listed = [
            event if number is None or not isinstance(event, dict) else {**event, "list_number": number}
            for event, number in zip(events, lists, strict=True)
        ]
        if not _JSON.issuperset(map(type, listed)):
            # A transform may return a dataclass; without its list it would be sent from another number.
            for index, (event, number) in enumerate(zip(listed, lists, strict=True)):
                if number is not None and type(event) not in _JSON:
                    text = f"mapping.list_number: a list can be added to a dict, not to a {type(event).__name__}"
                    failures.setdefault(index, text)
        return listed, {}


def compile_mapping(*, fields: Mapping[str, Any], when: str | None = None, list_number: Any = None) -> CompiledMapping:
    """Compile a mapping from the settings; raises `InvalidMappingError` with everything that is wrong with it."""
    compiler = _Compiler()
    condition = None if when is None else compiler.expression(when, ("when",))
    chosen = None if list_number is None else compiler.list_number(list_number, ("list_number",))
    more = {} if chosen is None else {"list_number": chosen}
    made = compiler.group(fields, ("fields",), more=more) if fields else None
    if chosen is not None and "list_number" in fields:
        compiler.flaws.append(Flaw(("list_number",), "is set in fields too"))
    if compiler.flaws:
        raise InvalidMappingError(compiler.flaws)
    makers = compiler.makers
    roots: frozenset[str] = frozenset().union(*(maker.roots for maker in makers))
    printed = tuple(field for maker in makers for field in maker.printed)
    fields_of = [maker.fields for maker in makers]
    if condition is not None:
        roots |= condition.roots
        fields_of.append(frozenset(path for path, _ in condition.terms) or None)
    # Without fields, an event is the whole value, with a list added.
    whole = (made is None and chosen is not None) or None in fields_of
    looked_at = None if whole else frozenset().union(*(paths for paths in fields_of if paths))
    sources = {_dotted(maker.path).removeprefix("fields."): maker.source for maker in makers}
    at = tuple(compiler.attributes)
    return CompiledMapping(condition, made, chosen, roots, looked_at, printed, sources, at)


class _Compiler:
    """One pass over a mapping, which continues after a flaw."""

    def __init__(self) -> None:
        self.flaws: list[Flaw] = []
        self.makers: list[Maker] = []
        self.attributes: list[KeyPath] = []

    def expression(self, text: Any, path: KeyPath) -> Expression | None:
        if not isinstance(text, str):
            self.flaws.append(Flaw(path, "must be an expression"))
            return None
        try:
            expression = compile_expression(text)
        except InvalidSourceError as error:
            hint = "" if path[-1] in ("when", "by", "from") else _TEMPLATE if "{{" in text else _CONSTANT
            self.flaws.append(Flaw(path, f"{error}{hint}", error.offset))
            return None
        self._note(expression.roots, path)
        return expression

    def _note(self, roots: frozenset[str], path: KeyPath) -> None:
        if "attributes" in roots and len(roots) < len(ROOTS):  # a use of the whole record requires none of its roots
            self.attributes.append(path)

    def group(self, fields: Mapping[str, Any], path: KeyPath, *, more: Mapping[str, Make] = _NONE) -> Group:
        makes = {name: self.field(spec, (*path, name)) for name, spec in fields.items()}
        complete = {name: make for name, make in makes.items() if make is not None}
        return Group({**complete, **more})

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
            case ["fields"] if isinstance(spec["fields"], dict) and spec["fields"]:
                return self.group(spec["fields"], path)
            case ["fields"]:
                self.flaws.append(Flaw((*path, "fields"), "must be a group of fields"))
                return None
            case ["from"] | ["default", "from"]:
                make = self._by_expression(spec["from"], (*path, "from"), path, default=spec.get("default"))
                return None if make is None else with_default(make, spec.get("default"))
            case ["default"]:
                self.flaws.append(Flaw(path, "has only a default; add an expression as from:"))
                return None
            case _:
                near = [near for word in words if word not in _WORDS for near in get_close_matches(word, _WORDS, n=1)]
                hint = f"did you mean {near[0]}?" if near else "fields with such names go under fields:"
                self.flaws.append(Flaw(path, f"has {' and '.join(words)} together; {hint}"))
                return None

    def _by_expression(self, text: Any, at: KeyPath, path: KeyPath, *, default: Any = None) -> Make | None:
        expression = self.expression(text, at)
        if expression is None:
            return None
        where = f"mapping.{_dotted(path)}"
        source = expression.text if default is None else f"{expression.text}, else {default!r}"
        return self._made(path, source, expression.roots, by_expression(expression, where), fields=_one(expression))

    def _by_template(self, text: Any, at: KeyPath, path: KeyPath) -> Make | None:
        if not isinstance(text, str):
            self.flaws.append(Flaw(at, "must be text"))
            return None
        # Jinja and Babel take 70 ms to load, which mappings without templates avoid.
        from connector.mapping.templates import compile_template  # noqa: PLC0415

        try:
            template = compile_template(text)
        except InvalidSourceError as error:
            self.flaws.append(Flaw(at, str(error), error.offset))
            return None
        self._note(template.roots, at)
        make = by_template(template, f"mapping.{_dotted(path)}")
        fields = frozenset(field.path for field in template.printed) if template.pieces else None
        return self._made(path, f"template {text}", template.roots, make, fields=fields, printed=template.printed)

    def _constant(self, value: Any, path: KeyPath) -> Make:
        make: Make = lambda columns, _failures: [value] * len(columns)  # noqa: E731
        return self._made(path, f"constant {value!r}", frozenset(), make, fields=_NO_FIELDS)

    def _made(
        self,
        path: KeyPath,
        source: str,
        roots: frozenset[str],
        make: Make,
        *,
        fields: frozenset[FieldPath] | None,
        printed: tuple[Printed, ...] = (),
    ) -> Make:
        self.makers.append(Maker(path, source, roots, fields, printed))
        return make

    def list_number(self, spec: Any, path: KeyPath) -> Make | None:
        if not isinstance(spec, dict) or not spec.keys() & {"table", "by"}:
            return self.field(spec, path)
        if unknown := sorted(spec.keys() - _LIST_WORDS):
            self.flaws.append(Flaw((*path, unknown[0]), "is not a setting; known here: table, by, default"))
        table, default = spec.get("table"), spec.get("default")
        if not isinstance(table, dict) or not table or not all(isinstance(number, str) for number in table.values()):
            self.flaws.append(
                Flaw((*path, "table"), 'must map the results of `by` to lists, such as {US: "+18005551234"}')
            )
            return None
        if default is not None and not isinstance(default, str):
            self.flaws.append(Flaw((*path, "default"), "must be text: put it in quotes"))
            return None
        by = self.expression(spec.get("by"), (*path, "by"))
        if by is None:
            return None
        column = by_expression(by, f"mapping.{_dotted(path)}.by")

        def make(columns: Columns, failures: Failures) -> Sequence[Any]:
            return [
                table.get(found if isinstance(found, str) else _as_key(found), default)
                for found in column(columns, failures)
            ]

        return self._made(path, f"table by {by.text}", by.roots, make, fields=_one(by))


def _as_key(found: Any) -> str:
    """Return the key for a lookup in a table; a value that is not plain is in none."""
    if isinstance(found, bool):
        return "true" if found else "false"
    try:
        return str(found) if isinstance(found, int | float) else ""
    except ValueError:  # thousands of digits
        return ""


def _one(expression: Expression) -> frozenset[FieldPath] | None:
    return None if expression.path is None else frozenset([expression.path])


def _dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))
