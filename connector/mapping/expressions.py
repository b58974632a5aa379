"""JMESPath, compiled once: most expressions in mappings are short, and run without the library's interpreter.

The library parses and, for most of the language, evaluates. What nearly every mapping uses is compiled to plain Python
with the same meaning: fields below a name, `[0]`, literals, comparisons, `&&`, `||` and `!`. The compliance tests of
JMESPath run through both.
"""

import difflib
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Number
from typing import Any, Final, cast

from jmespath import exceptions
from jmespath.functions import Functions
from jmespath.parser import Parser
from jmespath.visitor import TreeInterpreter

from connector.mapping.limits import MAX_TEXT

ROOTS: Final = ("value", "key", "headers", "topic", "timestamp", "attributes")
"""What a mapping sees of a record."""

MAX_DEPTH: Final = 400
"""Levels of an expression. Compiling takes two nested calls per level, of Python's limit of 1,000."""

_WORDS: Final = frozenset({"true", "false", "null"})

_ELSEWHERE: Final = {
    r"\b(?:and|or|not)\s": "and, or, not are written &&, ||, !",
    r"(?<![=!<>])=(?!=)": "equal is written ==",
    r"[=<>]\s*[0-9]": "a number stands in backticks",
    r"\w-\w": 'a name with a hyphen stands in double quotes, as in value."e-mail"',
    r"\w\s*\+\s*\w": "texts are put together by join('', [...])",
    r"^\$|\w\[[\"']": "fields stand behind dots, as in value.name",
}
"""Syntax of other languages, and its equivalent here."""

Scope = Mapping[str, Any]
Evaluate = Callable[[Any], Any]

DICTS: Final = (dict, Mapping)
"""What has fields. A union written in the call is built anew for each value, which takes 0.4 us; a dict first, since
`Mapping` alone takes as long."""

_interpreter = TreeInterpreter()
_ORDER: Final = {"lt": operator.lt, "lte": operator.le, "gt": operator.gt, "gte": operator.ge}
_MIXED: Final = "compares text with a number, or looks for one in a text; to_number() and to_string() convert"


class InvalidSourceError(ValueError):
    """An expression or a template cannot be compiled; `offset` is the position in its text, if known."""

    def __init__(self, text: str, offset: int | None = None) -> None:
        super().__init__(text)
        self.offset = offset


class EvaluationError(Exception):
    """An expression or a template has no result for a record; the text quotes nothing from the record."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression: the roots that it uses, and its evaluation."""

    text: str
    roots: frozenset[str]
    path: tuple[str, ...] | None
    """The fields that it follows, root first, if it does nothing else."""
    evaluate: Evaluate = field(repr=False)
    """From roots by name to a value; raises `EvaluationError`."""
    terms: tuple[tuple[tuple[str, ...], str | None], ...] = ()
    """Fields that must be true, or equal a text, if it only requires all of these."""


def compile_expression(text: str) -> Expression:
    """Compile an expression over the roots of a record; raises `InvalidSourceError`."""
    ast = parse(text)
    roots = frozenset(roots_of(ast))
    refuse_strangers(roots, text)
    return Expression(text, roots, _path(ast), evaluator(ast), _terms(ast))


def refuse_strangers(names: Iterable[str], text: str, known: Sequence[str] = ROOTS, *, what: str = "a record") -> None:
    """Raise `InvalidSourceError` for a name in a text that is not a root of records."""
    for name in sorted(set(names) - set(known)):
        offset = text.find(name)
        near = difflib.get_close_matches(name, known, n=1)
        if near:
            hint = f"did you mean {near[0]}?"
        elif name in _WORDS:
            hint = f"in backticks it is no field: `{name}`"
        elif re.search(rf"\w-{re.escape(name)}\b", text):
            hint = "a name with a hyphen stands in brackets, as in value['e-mail']"
        elif text[:offset].endswith('"'):
            hint = "text stands in '...', and in double quotes the name of a field"
        else:
            hint = f"{what} has {', '.join(known)}" + (f"; in its value: value.{name}" if known is ROOTS else "")
        raise InvalidSourceError(f"looks at `{name}`, which does not exist; {hint}", offset if offset >= 0 else None)


def parse(text: str) -> dict[str, Any]:
    """Return the syntax tree of an expression; raises `InvalidSourceError`."""
    if len(text) > MAX_TEXT:
        raise InvalidSourceError(f"has more than {MAX_TEXT:,} characters")
    try:
        with warnings.catch_warnings():
            # Formerly, JMESPath accepted text in backticks that is not JSON.
            warnings.simplefilter("error", PendingDeprecationWarning)
            ast = cast("dict[str, Any]", Parser().parse(text).parsed)
    except PendingDeprecationWarning:
        at = text.find("`")
        raise InvalidSourceError("has backticks around something that is not JSON; write text as '...'", at) from None
    except exceptions.EmptyExpressionError:
        raise InvalidSourceError("must not be empty") from None
    except exceptions.LexerError as error:
        raise InvalidSourceError(_syntax(text, error.message), error.lex_position) from None
    except exceptions.ParseError as error:
        raise InvalidSourceError(_syntax(text, _unfit(text, error)), _offset(text, error)) from None
    except RecursionError:
        raise InvalidSourceError("is nested too deeply") from None
    except (exceptions.JMESPathError, ValueError, AttributeError, TypeError) as error:
        raise InvalidSourceError(f"is not a JMESPath expression: {_first_line(error)}") from None
    _check_depth(ast)
    _check_functions(ast, text)
    return ast


def _syntax(text: str, message: str) -> str:
    """Return the message for an invalid expression, with the probable intention if it is another language's syntax."""
    hint = next((f"; {hint}" for form, hint in _ELSEWHERE.items() if re.search(form, text)), "")
    return f"is not a JMESPath expression: {message}{hint}"


def _unfit(text: str, error: exceptions.ParseError) -> str:
    if isinstance(error, exceptions.IncompleteExpressionError) or error.token_value == "":
        return "it ends too early"
    return f"{_shown(error.token_value, text)} does not belong here"


def _offset(text: str, error: exceptions.ParseError) -> int:
    at = error.lex_position
    return min(at, len(text)) if isinstance(at, int) and at >= 0 else 0


def _shown(token: Any, text: str) -> str:
    return f"`{token}`" if str(token) in text else "this"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _check_depth(ast: dict[str, Any]) -> None:
    """Refuse expressions that need too many nested calls; the parser itself needs none for `a || b || c ...`."""
    level = [ast]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in node.get("children", ()) if isinstance(child, dict)]
        if not level:
            return
    raise InvalidSourceError("is nested too deeply")


def _check_functions(ast: dict[str, Any], text: str) -> None:
    for node in _nodes(ast):
        if node["type"] != "function_expression":
            continue
        name, given = node["value"], len(node["children"])
        known = Functions.FUNCTION_TABLE.get(name)
        offset = text.find(f"{name}(")
        if known is None:
            near = difflib.get_close_matches(name, Functions.FUNCTION_TABLE, n=1)
            raise InvalidSourceError(
                f"calls {name}(), which JMESPath does not have" + (f"; did you mean {near[0]}()?" if near else ""),
                offset if offset >= 0 else None,
            )
        signature = known["signature"]
        variadic = bool(signature) and bool(signature[-1].get("variadic"))
        if given < len(signature) or (given > len(signature) and not variadic):
            wanted = f"{'at least ' if variadic else ''}{len(signature)}"
            raise InvalidSourceError(f"gives {name}() {given} arguments; it takes {wanted}", offset)


def _nodes(ast: dict[str, Any]) -> Iterator[dict[str, Any]]:
    waiting = [ast]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [child for child in node.get("children", ()) if isinstance(child, dict)]


def roots_of(node: dict[str, Any], known: Sequence[str] = ROOTS) -> Iterator[str]:
    """Yield the names that an expression looks up at the top; all known ones if it uses the record as a whole."""
    match node["type"]:
        case "field":
            yield node["value"]
        case "literal" | "expref":
            return
        case "current" | "identity" | "index" | "slice":
            yield from known
        case "comparator" | "or_expression" | "and_expression" | "not_expression" | "function_expression":
            for child in node["children"]:
                yield from roots_of(child, known)
        case "multi_select_list" | "multi_select_dict" | "key_val_pair" | "flatten":
            for child in node["children"]:
                yield from roots_of(child, known)
        case _:  # what follows the first node looks at its result
            yield from roots_of(node["children"][0], known)


def _path(node: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the fields that a node follows, if it does nothing else."""
    if node["type"] == "field":
        return (node["value"],)
    if node["type"] != "subexpression":
        return None
    parts = [_path(child) for child in node["children"]]
    return None if None in parts else tuple(name for part in parts for name in part or ())


def _terms(node: dict[str, Any]) -> tuple[tuple[tuple[str, ...], str | None], ...]:
    """Return what a condition requires of fields; empty if it is more complex than `a && b.c == 'text'`."""
    path = _path(node)
    if path is not None:
        return ((path, None),)
    children = node["children"]
    match node["type"]:
        case "and_expression":
            left, right = map(_terms, children)
            return left + right if left and right else ()
        case "comparator" if node["value"] == "eq" and _is_text(children[1]):
            path = _path(children[0])
            return () if path is None else ((path, children[1]["value"]),)
        case _:
            return ()


def evaluator(ast: dict[str, Any]) -> Evaluate:
    """Return a function that evaluates an expression; raises `EvaluationError` where the library raises."""
    quick = _quick(ast)
    if quick is not None:
        return quick

    visit: Callable[[Any, Any], Any] = _interpreter.visit

    def interpret(scope: Any) -> Any:
        try:
            return visit(ast, scope)
        except exceptions.JMESPathTypeError as error:
            expected = " or ".join(error.expected_types)
            text = f"{error.function_name}() takes {expected}, not {error.actual_type}"
            raise EvaluationError(text) from None
        except exceptions.JMESPathError as error:
            raise EvaluationError(type(error).__name__) from None
        except RecursionError:
            raise EvaluationError("the value is nested too deeply") from None
        except TypeError:
            raise EvaluationError(_MIXED) from None
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            raise EvaluationError(f"has no result ({type(error).__name__})") from None

    return interpret


def is_true(found: Any) -> bool:
    """Return whether JMESPath counts a value as true: 0 is, empty values are not."""
    return not _is_false(found)


def _is_false(found: Any) -> bool:
    return found is None or found is False or (not found and isinstance(found, str | list | dict))


def _quick(node: dict[str, Any]) -> Evaluate | None:  # noqa: PLR0911 (one case for each kind of node)
    """Compile a node without the interpreter; None if it is of a kind that needs it."""
    path = _path(node)
    if path is not None:
        return follow(path)
    inner = [_quick(child) if isinstance(child, dict) else None for child in node["children"]]
    if None in inner:
        return None
    match node["type"], inner:
        case "literal", []:
            literal = node["value"]
            return lambda _scope: literal
        case "index", []:
            index = node["value"]
            return lambda found: _at(found, index)
        case "subexpression" | "index_expression" | "pipe", steps:
            return _chained([step for step in steps if step is not None])
        case "and_expression", [left, right]:
            return lambda scope: found if _is_false(found := left(scope)) else right(scope)  # type: ignore[misc]
        case "or_expression", [left, right]:
            return lambda scope: right(scope) if _is_false(found := left(scope)) else found  # type: ignore[misc]
        case "not_expression", [only]:
            return lambda scope: _is_false(only(scope))  # type: ignore[misc]
        case "comparator", [left, _] if node["value"] == "eq" and _is_text(node["children"][1]):
            text = node["children"][1]["value"]
            return lambda scope: left(scope) == text  # type: ignore[misc]
        case "comparator", [left, right] if node["value"] in ("eq", "ne"):
            wanted = node["value"] == "eq"
            return lambda scope: _equal(left(scope), right(scope)) is wanted  # type: ignore[misc]
        case "comparator", [left, right]:
            compare = _ORDER[node["value"]]
            return lambda scope: _ordered(compare, left(scope), right(scope))  # type: ignore[misc]
        case _:
            return None


def _is_text(node: dict[str, Any]) -> bool:
    return node["type"] == "literal" and isinstance(node["value"], str)


def follow(path: tuple[str, ...]) -> Evaluate:
    """Return a function that follows fields, with null for missing ones."""

    def get(found: Any) -> Any:
        for name in path:
            if not isinstance(found, DICTS):
                return None
            found = found.get(name)
        return found

    if len(path) != 2:
        return get
    first, second = path

    def get_two(found: Any) -> Any:
        try:
            return found[first][second]  # a value that is not a dict has no text index
        except (LookupError, TypeError):
            return get(found)

    return get_two


def _chained(steps: list[Evaluate]) -> Evaluate:
    def run(found: Any) -> Any:
        for step in steps:
            found = step(found)
        return found

    return run


def _at(found: Any, index: int) -> Any:
    if not isinstance(found, list):
        return None
    try:
        return found[index]
    except IndexError:
        return None


def _ordered(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool | None:
    for side in (left, right):
        if isinstance(side, bool) or not isinstance(side, Number | str):
            return None
    try:
        return compare(left, right)
    except TypeError:
        raise EvaluationError(_MIXED) from None


def _equal(left: Any, right: Any) -> bool:
    """Compare as JMESPath does: a number never equals a boolean."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    try:
        return bool(left == right)
    except RecursionError:  # values that could be decoded may be too deep to be compared from here
        raise EvaluationError("the value is nested too deeply") from None
