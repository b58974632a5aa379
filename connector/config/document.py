"""A YAML file as data with line numbers, and all of its errors at once.

Built on PyYAML's safe nodes instead of its constructor, which silently drops duplicate keys and forgets positions.
Plain values follow YAML 1.2 (only `true` and `false` are booleans, `0123` and `12:30` are text), so that no country
code or time of day is converted; underscores in numbers are allowed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import yaml

from connector.config.problems import Fault, KeyPath, Problem, SettingsError

_TAG: Final = "tag:yaml.org,2002:"
_MERGE: Final = f"{_TAG}merge"
_MAX_BYTES: Final = 1_000_000
_MAX_VALUES: Final = 100_000
"""Of a file with its aliases expanded: nine lines of nested aliases can stand for a billion values."""

_FLOAT: Final = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*)(?:[eE][-+]?[0-9]+)?$|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain values of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  (PyYAML's own shape)


_Loader.add_implicit_resolver(f"{_TAG}bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(f"{_TAG}null", re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(f"{_TAG}int", re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver(_MERGE, re.compile(r"<<$"), ["<"])


@dataclass(frozen=True, slots=True)
class Text:
    """Line and column (from 1) where a text begins, and how it is written."""

    line: int
    column: int
    on_one_line: bool
    in_block: bool
    """Its lines follow below, unchanged (`|`)."""


@dataclass(frozen=True, slots=True)
class Document:
    """The data of a file, the line (from 1) of each of its values, and errors."""

    data: dict[str, Any] = field(repr=False)
    lines: Mapping[KeyPath, int] = field(repr=False)
    texts: Mapping[KeyPath, Text] = field(repr=False)
    faults: tuple[Fault, ...] = ()
    content: bytes = field(default=b"", repr=False)
    """The content of the file."""

    def line(self, path: KeyPath) -> int | None:
        """Return the line of a value, or of the section that it is missing from."""
        for length in range(len(path), 0, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return line
        return None

    def position(self, path: KeyPath, offset: int) -> tuple[int | None, int | None]:
        """Return line and column of a character of a text; no column if the text spans lines."""
        text = self.texts.get(path)
        if text is None:
            return self.line(path), None
        if text.on_one_line:
            return text.line, text.column + offset
        value: Any = self.data
        for key in path:
            value = value[key]
        return text.line + (1 + value.count("\n", 0, offset) if text.in_block else 0), None


def read_document(source: Path) -> Document:
    """Read a YAML file whose top is a mapping.

    Raises SettingsError if nothing can be checked: no file, no YAML, no mapping. Smaller errors (duplicate keys, tags)
    are `faults` of the document, so that they are reported together with those found later.
    """
    try:
        with source.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise _fatal(source, f"is larger than a settings file may be ({_MAX_BYTES:,} bytes); is it the right file?")
        text = content.decode("utf-8")
    except OSError as error:
        raise _fatal(source, f"cannot read the file: {error.strerror}") from error
    except UnicodeDecodeError:
        raise _fatal(source, "is not UTF-8 text") from None
    try:
        return replace(_Reader(text).read(), content=content)
    except yaml.MarkedYAMLError as error:
        words, mark = _told(error)
        # `from None` and no context: PyYAML's message quotes the line, which may contain a secret.
        raise _fatal(source, f"is not valid YAML: {words}", mark.line + 1 if mark else None) from None
    except yaml.YAMLError:
        raise _fatal(source, "is not valid YAML: it contains characters that YAML does not allow") from None
    except _UnusableError as error:
        raise _fatal(source, str(error), error.line) from None
    except RecursionError:
        raise _fatal(source, "is nested too deeply") from None


def _fatal(source: Path, message: str, line: int | None = None) -> SettingsError:
    return SettingsError(source, [Problem("", message, line)])


_CLEARER: Final = {
    r"found character '\\t' that cannot start any token": "a tab where spaces are needed, as in an indentation",
    r"found character '(.)' that cannot start any token": r"a value that begins with \1 and is not in quotes",
    r"but found another document": "a second document (behind ---), where settings are one",
    r"expected <block end>, but found '<scalar>'": "more text behind the end of a value: one that begins with {, [ or "
    "a quote stands in quotes as a whole",
    r"expected <block end>, but found .*": "a line that is not indented as those beside it",
    r"mapping values are not allowed here": "a colon in a value that is not in quotes, or a line that is indented too "
    "far",
}
"""From PyYAML's message, which describes the parser's state, to the probable error."""

_NOT_ENDED: Final = {
    r"could not find expected ':'": "a name without a colon and a space behind it",
    r"found unexpected end of stream": "a quote that is not closed",
    r"expected ',' or '[]}]', but got .*": "a bracket or brace that is not closed, or a comma that is missing behind "
    "it",
}
"""The same, for errors at the beginning of something and not at the parser's position."""


def _told(error: yaml.MarkedYAMLError) -> tuple[str, yaml.Mark | None]:
    """Return what is wrong, and where; of PyYAML's quotes only single characters and `'<scalar>'` are kept."""
    problem, mark = error.problem or "syntax error", error.problem_mark or error.context_mark
    for clearer, where in ((_CLEARER, mark), (_NOT_ENDED, error.context_mark or mark)):
        for said, words in clearer.items():
            if found := re.fullmatch(said, problem):
                return found.expand(words), where
    quoted = re.sub(r"'([^']*)'", lambda part: part[0] if re.fullmatch(r"\\?.|<.*>", part[1]) else "'...'", problem)
    return quoted, mark


class _UnusableError(Exception):
    """The file is YAML from which no settings can be read; `line` is where, if known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def _refuse_expansion(top: yaml.Node) -> None:
    """Refuse aliases that stand for too many values or contain themselves, before they are expanded."""
    sizes: dict[int, int] = {}  # 0 while we are inside of it

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = 0
            items = node.value if isinstance(node, yaml.CollectionNode) else []
            nodes = (part for item in items for part in (item if isinstance(item, tuple) else (item,)))
            sizes[id(node)] = 1 + sum(map(size, nodes))
        elif sizes[id(node)] == 0:
            raise _UnusableError("has an alias (*name) that refers to itself", node.start_mark.line + 1)
        return sizes[id(node)]

    if size(top) > _MAX_VALUES:
        raise _UnusableError(f"has more than {_MAX_VALUES:,} values, counting expanded aliases (*name)")


class _Reader:
    """One pass over the nodes of one file."""

    def __init__(self, text: str) -> None:
        self._loader = _Loader(text)
        self._lines: dict[KeyPath, int] = {}
        self._texts: dict[KeyPath, Text] = {}
        self._faults: list[Fault] = []
        self._checked: set[int] = set()  # mappings that an alias may bring again, with their merges included by then

    def read(self) -> Document:
        try:
            node = self._loader.get_single_node()
            if node is None:
                raise _UnusableError("is empty")
            if not isinstance(node, yaml.MappingNode):
                raise _UnusableError("must be a mapping of settings at the top level")
            _refuse_expansion(node)
            data = dict(self._mapping(node, ()))
        finally:
            self._loader.dispose()
        return Document(data, self._lines, self._texts, tuple(self._faults))

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.MappingNode):
            return dict(self._mapping(node, path))
        return [self._item(item, (*path, index)) for index, item in enumerate(node.value)]

    def _item(self, node: yaml.Node, path: KeyPath) -> Any:
        self._lines[path] = node.start_mark.line + 1
        return self._value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> Iterator[tuple[str, Any]]:
        self._refuse_duplicates(node, path)
        self._loader.flatten_mapping(node)  # merges (`<<: *defaults`) come first, so that own keys win
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != f"{_TAG}str":
                self._report(path, "has a key that is not text; put it in quotes", key_node)
                continue
            key_path = (*path, key_node.value)
            self._lines[key_path] = key_node.start_mark.line + 1
            yield key_node.value, self._value(value_node, key_path)

    def _refuse_duplicates(self, node: yaml.MappingNode, path: KeyPath) -> None:
        if id(node) in self._checked:
            return
        self._checked.add(id(node))
        first: dict[str, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == _MERGE:
                continue
            line = key_node.start_mark.line + 1
            if key_node.value in first:
                self._report((*path, key_node.value), f"occurs twice, first in line {first[key_node.value]}", key_node)
            first.setdefault(key_node.value, line)

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> str | int | float | bool | None:
        text: str = node.value
        try:
            match node.tag.removeprefix(_TAG):
                case "str":
                    self._note(node, path)
                    return text
                case "bool" if text.lower() in {"true", "false"}:
                    return text.lower() == "true"
                case "int":
                    return int(text)
                case "float":
                    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
                case "null":
                    return None
                case _:
                    self._report(path, "has an unknown tag", node)
        except ValueError:  # `!!int seven`, or more digits than Python reads
            self._report(path, "does not match its tag", node)
        return None

    def _note(self, node: yaml.ScalarNode, path: KeyPath) -> None:
        start, end = node.start_mark, node.end_mark
        quote = 1 if node.style in {"'", '"'} else 0
        # A text with escapes is longer in the file.
        as_is = start.line == end.line and end.column - start.column == len(node.value) + 2 * quote
        self._texts[path] = Text(start.line + 1, start.column + 1 + quote, as_is, node.style == "|")

    def _report(self, path: KeyPath, message: str, node: yaml.Node) -> None:
        self._faults.append(Fault(path, message, line=node.start_mark.line + 1))
