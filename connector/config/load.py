"""From a settings file to settings, or to everything that is wrong with it at once.

Five passes find faults: the file (`document.py`), its references, the models, what must fit together (`checks`), and
trials with the clients that will use the settings. A fault that follows from an earlier one is not reported. If the
models reject the data, the later passes get it without the rejected parts.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from connector.config.checks import conflicts
from connector.config.document import Document, read_document
from connector.config.messages import faults_of
from connector.config.problems import Fault, KeyPath, Problem, SettingsError, dotted
from connector.config.references import Origin, UnresolvedReferenceError, has_reference, reads_file, resolve
from connector.config.settings import Settings

Trial = Callable[[Settings], Iterable[Fault]]
"""Tries settings with the clients that use them, which may be in a layer above, and returns what they reject."""

_OUTPUT: Final = {"topic": "stand-in"}
_STREAM: Final = {"name": "stand-in", "operation": "send", "outcomes": _OUTPUT, "dead_letters": _OUTPUT}
_STAND_INS: Final[dict[KeyPath, Any]] = {
    ("kafka",): {"bootstrap_servers": "stand-in"},
    ("kafka", "bootstrap_servers"): "stand-in",
    ("trackly",): {"api_key": "stand-in"},
    ("trackly", "api_key"): "stand-in",
    ("streams",): [_STREAM],
    ("streams", 0): _STREAM,
    **{("streams", 0, name): value for name, value in _STREAM.items()},
    ("streams", 0, "outcomes", "topic"): "stand-in",
    ("streams", 0, "dead_letters", "topic"): "stand-in",
}
"""Values for required settings that are wrong or missing, while the rest is checked; 0 is any stream."""

_UNUSED: Final = "stand-in-of-a-secret"
"""Valid for any secret."""

_SALVAGE_ROUNDS: Final = 4  # a stand-in may reveal further faults; each round goes one level deeper


def load_settings(
    path: Path,
    *,
    environ: Mapping[str, str] | None = None,
    copy: Path | None = None,
    unused: Collection[KeyPath] = (),
    trials: Sequence[Trial] = (),
) -> Settings:
    """Read a settings file; `environ` is the process's environment unless given.

    With `copy`, that file is read instead, and everything else is as if it was at `path`: so a worker that starts later
    gets the same settings as the others, even if the file has changed since.

    References in `unused` secrets are not resolved, but replaced by a stand-in: the machine may have neither file nor
    variable.

    Raises SettingsError with every problem of the file: invalid YAML, unresolved references, unknown or wrong settings,
    rejected Kafka properties, settings that do not fit together, and what a trial rejects.
    """
    document = read_document(copy or path)
    base = path.parent
    resolved = _resolve(document.data, base=base, environ=os.environ if environ is None else environ, unused=unused)
    faults = [*document.faults, *resolved.faults]
    settings, wrong = _validate(resolved.data, base=base, referenced=resolved.referenced)
    faults += _independent(wrong, faults)
    if settings is None:
        salvaged, doubtful = _salvage(resolved.data, [*faults, *wrong], base=base)
    else:
        salvaged, doubtful = settings, faults
    if salvaged is not None:
        for trial in (conflicts, *trials):
            found = list(_independent(trial(salvaged), doubtful))
            faults += found
            doubtful = [*doubtful, *found]
    if faults or settings is None:
        problems = [_problem(fault, document) for fault in faults]
        raise SettingsError(path, sorted(problems, key=lambda problem: problem.line or 0))
    return settings.with_origin(Origin(source=path, templates=resolved.templates, content=document.content))


def _problem(fault: Fault, document: Document) -> Problem:
    line, column = fault.line or document.line(fault.path), None
    if fault.offset is not None:
        line, column = document.position(fault.path, fault.offset)
    return Problem(dotted(fault.path), fault.message, line, column)


@dataclass(frozen=True, slots=True)
class _Resolved:
    data: Any
    referenced: frozenset[KeyPath]
    templates: tuple[tuple[str, str], ...]
    faults: tuple[Fault, ...]


def _resolve(
    data: dict[str, Any], *, base: Path, environ: Mapping[str, str], unused: Collection[KeyPath] = ()
) -> _Resolved:
    """Replace the references in every text; a text with an unresolved one stays as it is, with a fault."""
    referenced: set[KeyPath] = set()
    templates: list[tuple[str, str]] = []
    faults: list[Fault] = []

    def walk(value: Any, path: KeyPath) -> Any:
        match value:
            case dict():
                return {key: walk(inner, (*path, key)) for key, inner in value.items()}
            case list():
                return [walk(inner, (*path, index)) for index, inner in enumerate(value)]
            case str() if has_reference(value):
                if any(path[: len(secret)] == secret for secret in unused):
                    return _UNUSED
                referenced.add(path)
                if reads_file(value):
                    templates.append((dotted(path), value))
                try:
                    return resolve(value, base=base, environ=environ)
                except UnresolvedReferenceError as error:
                    faults.append(Fault(path, str(error)))
        return value

    return _Resolved(walk(data, ()), frozenset(referenced), tuple(templates), tuple(faults))


def _validate(
    data: Any, *, base: Path, referenced: frozenset[KeyPath] = frozenset()
) -> tuple[Settings | None, list[Fault]]:
    try:
        return Settings.model_validate(data, context={"base": base}), []
    except ValidationError as error:
        return None, list(faults_of(error, data, referenced=referenced))


def _independent(faults: Iterable[Fault], known: Iterable[Fault]) -> Iterator[Fault]:
    """Yield the faults that do not follow from known ones.

    The settings that a rule looked at must have no known faults, inside or around; the place where the rule reports may
    be a group with other faults inside.
    """
    # A fault of the top itself, such as a key that is not text, says nothing about other keys.
    bad = [path for fault in known for path in (fault.path, *fault.looked_at) if path]
    for fault in faults:
        hit = any(fault.path[: len(path)] == path for path in bad)
        if not hit and not any(_overlap(at, path) for at in fault.looked_at for path in bad):
            yield fault


def _overlap(one: KeyPath, other: KeyPath) -> bool:
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def _salvage(data: Any, faults: list[Fault], *, base: Path) -> tuple[Settings | None, list[Fault]]:
    """Return settings made of the valid parts of the data, and all faults that were removed for that."""
    rest = deepcopy(data)
    mended = list(faults)
    for fault in faults:
        _mend(rest, fault.path)
    for _ in range(_SALVAGE_ROUNDS):
        settings, wrong = _validate(rest, base=base)
        if settings is not None:
            return settings, mended
        for fault in wrong:
            _mend(rest, fault.path)
        mended += wrong
    return None, mended


def _mend(data: Any, path: KeyPath) -> None:
    """Drop the value at a path, or put a stand-in there if it is required."""
    if not path:
        return  # faults of the top itself are not in the data
    at = data
    for depth, key in enumerate(path[:-1], start=1):
        try:
            inner = at[key]
        except (KeyError, IndexError, TypeError):
            return  # already dropped or replaced, with an earlier fault
        if isinstance(inner, list) and path[:depth] != ("streams",):
            _mend(data, path[:depth])  # a list of plain values is dropped as a whole
            return
        at = inner
    place = tuple(0 if isinstance(key, int) else key for key in path)
    if place in _STAND_INS:
        at[path[-1]] = deepcopy(_STAND_INS[place])
    elif isinstance(at, dict):
        at.pop(path[-1], None)
