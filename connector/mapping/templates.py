"""Texts from templates: Jinja's sandbox, restricted to what texts need, and bounded.

A template comes from the settings and not from a record, but it is applied to any record. So it sees only plain data:
no methods, calls, macros or imports, and of Jinja's filters those that cannot multiply a text. Loops share a number of
iterations, texts and numbers have a maximum size, and rendering stops with the piece that exceeds it. Printing a null
or missing value is an error, since nobody wants to read `None` in a message.
"""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from jinja2 import TemplateSyntaxError, Undefined, UndefinedError, meta, nodes
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.filters import FILTERS as JINJA_FILTERS
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS as JINJA_TESTS
from jinja2.visitor import NodeTransformer

from connector.mapping.expressions import DICTS, ROOTS, EvaluationError, InvalidSourceError, Scope, refuse_strangers
from connector.mapping.filters import FILTERS, FilterError, as_written
from connector.mapping.limits import MAX_CHARACTERS, MAX_TEXT, STEPS, TOO_LONG
from connector.mapping.projection import Printed

_OURS: Final = {"limited_rounds", "named", "put_together"}
_OF_JINJA: Final = ("abs", "first", "float", "int", "last", "length")
_LOOP: Final = frozenset(
    {"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem"}
)
_TESTS: Final = ("defined", "undefined", "none", "string", "number", "boolean", "mapping", "sequence", "even", "odd")
_COMPARED: Final = ("in", "eq", "ne", "lt", "le", "gt", "ge", "==", "!=", "<", "<=", ">", ">=", "equalto")
_MOST: Final = 1 << 64
_INDEXED: Final = (*DICTS, list, tuple, str)
_AS_IT_IS: Final = (str, Undefined)
"""An Undefined reports itself."""
_NUMBERS: Final = (int, float)

_ODD: Final = (ArithmeticError, AttributeError, LookupError, NameError, TemplateRuntimeError, ValueError)
"""What calculations and filters raise for values that they cannot take; and NameError, since Jinja writes the constant
1e999 into its code as `inf`."""

_ALLOWED: Final = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Const,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.Filter,
    nodes.Test,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Neg,
    nodes.Pos,
    nodes.Add,
    nodes.Sub,
    nodes.Mul,
    nodes.Div,
    nodes.FloorDiv,
    nodes.Mod,
    nodes.Concat,
    nodes.List,
    nodes.Tuple,
    nodes.Dict,
    nodes.Pair,
    nodes.Keyword,
    nodes.For,
    nodes.If,
    nodes.Assign,
)
"""Node types that a template may contain."""

_REFUSED: Final = {
    nodes.Call: "must not call anything; a template has filters only",
    nodes.Macro: "must not have a macro",
    nodes.Import: "must not import another template",
    nodes.FromImport: "must not import another template",
    nodes.Include: "must not include another template",
    nodes.Extends: "must not extend another template",
    nodes.Block: "must not have a block",
    nodes.Pow: "must not have **",
}


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template: the roots that it uses, and its rendering."""

    text: str
    roots: frozenset[str]
    evaluate: Callable[[Scope], str] = field(repr=False)
    """From roots by name to a text; raises `EvaluationError`. For one thread."""
    pieces: tuple[str, ...] = field(default=(), repr=False)
    """The texts before, between and after `printed`, if it does nothing but print these; otherwise empty."""
    printed: tuple[Printed, ...] = ()
    """Only `evaluate` can print values that are not plain."""


class _Missing(Undefined):
    """A missing value: an error when it is printed, false in a condition; its fields are missing as well."""

    __slots__ = ()
    __iter__ = __str__ = __len__ = Undefined._fail_with_undefined_error  # noqa: SLF001


class _NodeChecks(NodeTransformer):
    """Adds our own limits where Jinja's code has none: to what loops iterate over, and where texts are concatenated.

    Fields in brackets that the template itself names become like those after dots, so that errors may name them. Fields
    that are printed bring their name along.
    """

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_with_name(inner) for inner in node.nodes]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return nodes.Getattr(node.node, node.arg.value, node.ctx, lineno=node.lineno)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 (named after the node)
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "limited_rounds", [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "put_together", [], [], None, None, lineno=node.lineno)


def _with_name(node: nodes.Expr) -> nodes.Expr:
    """Return a printed node that knows the field that it prints, if it is one, with a constant default or without."""
    field = _printed(node)
    if field is None or (isinstance(node, nodes.Filter) and field.instead is None):
        return node
    return nodes.Filter(node, "named", [nodes.Const(".".join(field.path))], [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox for one template: its iterations are counted anew for each record."""

    intercepted_binops = frozenset({"+", "*", "%", "-", "/", "//", "**"})

    def __init__(self) -> None:
        super().__init__(undefined=_Missing, autoescape=False, cache_size=0, finalize=_printable)
        self.rounds = 0
        self.globals = {}
        self.filters = {name: JINJA_FILTERS[name] for name in _OF_JINJA} | dict(FILTERS)
        self.filters |= {"limited_rounds": self._limited, "put_together": _put_together, "named": _named}
        self.tests = {name: JINJA_TESTS[name] for name in (*_TESTS, *_COMPARED)}

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return a field of plain data: nothing has methods."""
        if isinstance(obj, DICTS):
            try:
                return obj[attribute]
            except KeyError:
                pass
        elif isinstance(obj, Undefined):
            return obj
        elif isinstance(obj, LoopContext) and attribute in _LOOP:
            return getattr(obj, attribute)
        return _Missing(hint=f"`{attribute}` is not there")

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return a field or an element of plain data."""
        if isinstance(obj, _INDEXED):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass
        elif isinstance(obj, Undefined):
            return obj
        return _Missing(hint=f"`{argument}` is not there" if isinstance(argument, int) else "a field is not there")

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate with numbers or concatenate texts, and limit the size of the result."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _put_together([left, right])
        for side in (left, right):
            if isinstance(side, bool) or not isinstance(side, int | float):
                if isinstance(side, Undefined):
                    str(side)  # raises for a missing value
                raise FilterError(f"{operator} takes numbers" + (" or two texts" if operator == "+" else ""))
        found = super().call_binop(context, operator, left, right)
        if isinstance(found, int) and abs(found) >= _MOST:
            raise FilterError(f"{operator} gives a number that is too large")
        return found

    def call(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        """Refuse: nothing can be called, and calls are already rejected when a template is compiled."""
        raise SecurityError("calls something")

    def _limited(self, items: Any) -> "_Rounds":
        if isinstance(items, Undefined):
            str(items)
        if not isinstance(items, list | tuple | dict):
            raise FilterError("a loop runs over a list")
        return _Rounds(self, list(items))


class _Rounds(list[Any]):
    """A list that counts its iterations; it has a length, for `loop.last` and similar."""

    def __init__(self, environment: _Environment, items: list[Any]) -> None:
        super().__init__(items)
        self._environment = environment

    def __iter__(self) -> Iterator[Any]:
        environment = self._environment
        for item in super().__iter__():
            environment.rounds += 1
            if environment.rounds > STEPS:
                raise FilterError(f"its loops take more than {STEPS:,} rounds")
            yield item


def compile_template(text: str) -> Template:
    """Compile a template over the roots of a record; raises `InvalidSourceError`."""
    if len(text) > MAX_TEXT:
        raise InvalidSourceError(f"has more than {MAX_TEXT:,} characters")
    environment = _Environment()
    try:
        tree = environment.parse(text)
        _check(tree, text, environment)
        plain = _plain(tree)
        roots = frozenset(meta.find_undeclared_variables(tree))
        _NodeChecks().visit(tree)
        tree.set_environment(environment)
        # Constant folding may call filters, which may raise.
        compiled = environment.from_string(tree)
    except TemplateSyntaxError as error:
        raise InvalidSourceError(f"is not a template: {error.message}", _offset(text, error.lineno)) from None
    except RecursionError:
        raise InvalidSourceError("is nested too deeply") from None
    except (FilterError, SecurityError, TemplateRuntimeError, UndefinedError) as error:
        raise InvalidSourceError(f"can never be rendered: {error}") from None
    return Template(text, roots, _renderer(compiled, loops=tree.find(nodes.For) is not None), *plain)


def _renderer(template: Any, *, loops: bool) -> Callable[[Scope], str]:
    environment, render = template.environment, template.root_render_func
    context = template.new_context({})
    parent, own, exported = context.parent, context.vars, context.exported_vars

    def evaluate(scope: Scope) -> str:
        # One context for all records: it has the roots, and what `set` left from the record before.
        if own:
            own.clear()
            exported.clear()
        environment.rounds = 0
        parent.update(scope)
        try:
            pieces = _pieces(render(context)) if loops else list(render(context))
        except (FilterError, UndefinedError, SecurityError) as error:
            raise EvaluationError(str(error)) from None
        except RecursionError:
            raise EvaluationError("the value is nested too deeply") from None
        except TypeError:
            raise EvaluationError("has no text: a value is null, or of another type than a filter or < takes") from None
        except _ODD as error:
            raise EvaluationError(f"has no text ({type(error).__name__})") from None
        if not loops and sum(map(len, pieces)) > MAX_CHARACTERS:
            raise EvaluationError(TOO_LONG)
        return "".join(pieces)

    return evaluate


def _plain(tree: nodes.Template) -> tuple[tuple[str, ...], tuple[Printed, ...]]:
    """Return the texts of a template and the fields that it prints between them, if it does nothing else."""
    pieces, fields = [""], []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return (), ()
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                pieces[-1] += node.data
                continue
            printed = _printed(node)
            if printed is None or printed.path[0] not in ROOTS:
                return (), ()
            fields.append(printed)
            pieces.append("")
    return tuple(pieces), tuple(fields)


def _printed(node: nodes.Node) -> Printed | None:
    """Return the field that a node prints, with its default if that is a constant."""
    match node:
        case nodes.Filter(name="default" | "d", node=nodes.Node() as inner, args=[_] | [], kwargs=[]):
            found = _printed(inner)
            # A default after another filter applies only if that returns nothing, which the template must decide.
            return (
                found._replace(instead=_constant(node.args)) if found and not isinstance(inner, nodes.Filter) else found
            )
        case _:
            path = _path(node)
            return None if path is None else Printed(path)


def _constant(arguments: list[nodes.Expr]) -> str | None:
    match arguments:
        case []:
            return ""
        case [nodes.Const(value=str() | int() | float() as value)] if not isinstance(value, bool):
            return f"{value}"
        case _:
            return None


def _path(node: nodes.Node) -> tuple[str, ...] | None:
    """Return the fields that a node follows, if it does nothing else."""
    names: list[str] = []
    while isinstance(node, nodes.Getattr):
        names.append(node.attr)
        node = node.node
    return (node.name, *reversed(names)) if isinstance(node, nodes.Name) else None


def _pieces(rendering: Iterator[str]) -> list[str]:
    """Collect the pieces of a text up to the maximum size."""
    pieces, left = [], MAX_CHARACTERS
    for piece in rendering:
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            raise FilterError(TOO_LONG)
    return pieces


def _check(tree: nodes.Template, text: str, environment: _Environment) -> None:
    """Refuse node types that are not allowed, and names that are not roots of records."""
    waiting: list[nodes.Node] = [tree]
    while waiting:
        node = waiting.pop()
        offset = _offset(text, node.lineno)
        if not isinstance(node, _ALLOWED):
            told = next((told for kind, told in _REFUSED.items() if isinstance(node, kind)), None)
            raise InvalidSourceError(told or f"must not have {type(node).__name__}", offset)
        if isinstance(node, nodes.For) and node.recursive:
            raise InvalidSourceError("must not have a recursive loop", offset)
        if isinstance(node, nodes.Filter):
            _check_name(node.name, environment.filters, "filter", offset)
        if isinstance(node, nodes.Test):
            _check_name(node.name, environment.tests, "test", offset)
        waiting += node.iter_child_nodes()
    names = meta.find_undeclared_variables(tree) | {
        name.name for name in tree.find_all(nodes.Name) if name.name == "self"
    }
    refuse_strangers(names, text)


def _check_name(name: str, known: Any, what: str, offset: int | None) -> None:
    if name in known and name not in _OURS:
        return
    near = difflib.get_close_matches(name, [name for name in known if name not in _OURS], n=1)
    there = sorted(name for name in known if name not in _OURS and name.isidentifier())
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(there)}"
    raise InvalidSourceError(f"has no {what} `{name}`; {hint}", offset)


def _offset(text: str, lineno: int | None) -> int:
    """Return the offset of a line of a template; some nodes have no line, and get 0."""
    lines = text.splitlines(keepends=True)
    return sum(map(len, lines[: (lineno or 1) - 1]))


def _put_together(parts: list[Any]) -> str:
    texts = [_printable(part) for part in parts]
    texts = [text if isinstance(text, str) else str(text) for text in texts]
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise FilterError(TOO_LONG)
    return "".join(texts)


def _named(value: Any, name: str) -> Any:
    """Return a field's value if it may be printed; name the field otherwise."""
    try:
        return _printable(value)
    except FilterError as error:
        raise FilterError(f"`{name}` {error}") from None


def _printable(value: Any) -> Any:
    """Return a value that may be printed; refuse what nobody wants to read in a text."""
    if isinstance(value, _AS_IT_IS):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _NUMBERS):
        return as_written(value)
    if value is None:
        raise FilterError("would print null; a `default` filter says what to print then")
    raise FilterError(f"would print {'a list' if isinstance(value, list | tuple) else 'an object'}")
