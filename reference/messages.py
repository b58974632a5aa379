"""The texts of errors, taken from where they are raised.

A text with values is a pattern: `<name>` stands for what is inserted. So the page of messages needs no list of its own,
which would drift from what people see.
"""

import ast
import builtins
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import connector

_ROOT: Final = Path(connector.__file__).parent


class Message(NamedTuple):
    """One message: its text, the name of its exit code, and what to do."""

    text: str
    code: str
    way_out: str


@cache
def _text(source: Path) -> str:
    return source.read_text(encoding="utf-8")


@cache
def _tree(source: Path) -> ast.Module:
    return ast.parse(_text(source))


def _sources(place: str) -> list[Path]:
    return [_ROOT / place] if place.endswith(".py") else sorted((_ROOT / place).rglob("*.py"))


def _in_order(tree: ast.AST) -> list[ast.AST]:
    """Return all nodes in source order, a node before its children."""
    return sorted(ast.walk(tree), key=lambda node: getattr(node, "lineno", 0))


def texts_given(place: str, *makers: str) -> list[str]:
    """Return the texts that a module or folder of the package passes to functions or exceptions with these names."""
    return list(dict.fromkeys(text for source in _sources(place) for text in _given(_tree(source), makers)))


def _given(tree: ast.Module, makers: Iterable[str]) -> Iterator[str]:
    constants = _constants(tree)
    assigned: dict[str, ast.expr] = {}
    for node in _in_order(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                assigned[name] = value
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args) if name in makers:
                texts = [[text for text in _choices(arg, constants, assigned) if " " in text] for arg in args]
                yield from next(filter(None, texts), [])  # a place, or a code, is a single word
            case _:
                continue


def _choices(node: ast.expr, constants: dict[str, str], assigned: dict[str, ast.expr]) -> list[str]:
    """Return the texts that an expression may have; a local name has what it was assigned last."""
    match node:
        case ast.IfExp(body=first, orelse=second):
            return [*_choices(first, constants, assigned), *_choices(second, constants, assigned)]
        case ast.Name(id=name) if name not in constants and name in assigned:
            # Not its earlier value: a name may be assigned from itself.
            return _choices(assigned[name], constants, {n: v for n, v in assigned.items() if n != name})
        case _:
            text = pattern(node, constants)
            return [] if text is None else [text]


def texts_returned(place: str, function: str) -> list[str]:
    """Return the texts that a function of a module returns."""
    (source,) = _sources(place)
    tree = _tree(source)
    (found,) = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function]
    values = [node.value for node in _in_order(found) if isinstance(node, ast.Return) and node.value is not None]
    return [text for value in values if (text := pattern(value, _constants(tree))) is not None]


def of_commands(place: str) -> list[Message]:
    """Return the messages of the commands in a module or folder of `connector/cli`.

    Those that repeat an error of another part are listed with that part's texts.
    """
    return list(dict.fromkeys(message for source in _sources(f"cli/{place}") for message in _commands(_tree(source))))


def _commands(tree: ast.Module) -> Iterator[Message]:
    constants, caught = _constants(tree), _caught(tree)
    assigned: dict[str, ast.expr] = {}
    for node in _in_order(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                assigned[name] = value
            case ast.Call(func=ast.Name(id="CommandError"), args=[message, *codes], keywords=[given]):
                code = next((code.attr for code in codes if isinstance(code, ast.Attribute)), "BAD_SETTINGS")
                way_out = next(iter(_choices(given.value, constants, assigned)), "")
                text = pattern(message, constants) or "<error>"
                for words in _repeated(caught.get(node.lineno, ())) if "<error>" in text else ["<error>"]:
                    yield Message(text.replace("<error>", words), code, way_out)
            case _:
                continue


def _repeated(kinds: Iterable[str]) -> list[str]:
    """Return the texts of our own exceptions; others are not listed."""
    found: list[str] = []
    for kind in kinds:
        if kind in dir(builtins):
            continue
        first: list[str] = []
        again: list[str] = []
        for source in _sources("."):
            if f"raise {kind}(" not in _text(source):
                continue
            constants, caught = _constants(_tree(source)), _caught(_tree(source))
            for node in _in_order(_tree(source)):
                match node:
                    case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=args)) if name == kind:
                        text = " ".join(pattern(arg, constants) or f"<{_name(arg)}>" for arg in args)
                        (again if kind in caught.get(node.lineno, ()) else first).append(text)
                    case _:
                        continue
        # An exception that is caught and raised again adds a prefix.
        found += [text.replace("<error>", words) for text in again for words in first] or first
    return list(dict.fromkeys(found)) or ["<error>"]


def _caught(tree: ast.Module) -> dict[int, list[str]]:
    """Return, by line, the names of the exceptions whose handler it is in."""
    found: dict[int, list[str]] = {}
    for node in _in_order(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            names = [kind.id for kind in kinds if isinstance(kind, ast.Name)]
            found |= dict.fromkeys(range(node.lineno, (node.end_lineno or node.lineno) + 1), names)
    return found


def _constants(tree: ast.Module) -> dict[str, str]:
    """Return the texts that a module assigns to names at its top."""
    found: dict[str, str] = {}
    for node in tree.body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
            ):
                text = None if value is None else pattern(value, found)
                if text is not None:
                    found[name] = text
            case _:
                continue
    return found


def pattern(node: ast.expr, constants: dict[str, str]) -> str | None:
    """Return a text with `<name>` for each value in it; None if it is not a text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_placed(part, constants) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = pattern(left, constants), pattern(right, constants)
            return None if first is None or second is None else first + second
        case ast.Name(id=name):
            return constants.get(name)
        case _:
            return None


def _placed(part: ast.expr, constants: dict[str, str]) -> str:
    """Return a part of an f-string: text as it is, a value by its name unless it is a constant text of the module."""
    value = part.value if isinstance(part, ast.FormattedValue) else part
    known = pattern(value, constants)
    return known if known is not None else f"<{_name(value)}>"


def _name(node: ast.expr) -> str:
    """Return the word that describes a value best."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return "error" if name == "strerror" else name.strip("_").replace("_", " ").lower()
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return key.replace("_", " ")
        case ast.BoolOp(values=[inner, *_]):
            return _name(inner)
        case ast.Call(func=ast.Attribute(value=inner, attr=method), args=[]) if method in dir(str):
            return _name(inner)
        case ast.Call(args=[inner, *_]) | ast.Subscript(value=inner) | ast.Call(func=inner):
            return _name(inner)
        case _:
            return "value"
