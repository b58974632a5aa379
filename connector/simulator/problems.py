"""Turn what is wrong in a file or a request into problems with a place: all of them at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Problem(NamedTuple):
    """One thing that is wrong: where (`lose_reply.rate`, empty for the whole), and what."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


class InvalidInputError(ValueError):
    """Settings, faults or a script that cannot be used; `problems` names every one of them."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{source} cannot be used:{lines}")
        self.source = source
        self.problems = problems

    @classmethod
    def from_pydantic(cls, source: str, error: ValidationError) -> "InvalidInputError":
        """Keep place and text of each problem; the values stay out, since they may be keys."""
        problems = [
            Problem(".".join(str(part) for part in detail["loc"]), detail["msg"].removeprefix("Value error, "))
            for detail in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        return cls(source, problems)


class Model(BaseModel):
    """Frozen, and closed to unknown names: a misspelt fault must not be a fault that never strikes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_M = TypeVar("_M", bound=Model)


def validated(model: type[_M], document: object, *, source: str) -> _M:
    """Return a decoded document as a model.

    Raises `InvalidInputError` that names the place of every problem.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InvalidInputError.from_pydantic(source, error) from error


def read_yaml(path: Path) -> object:
    """Read a YAML or JSON file.

    Raises `InvalidInputError` when the file is absent, not text, or not YAML.
    """
    try:
        document: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(str(path), [Problem("", error.strerror or "cannot be read")]) from error
    except UnicodeDecodeError as error:
        raise InvalidInputError(str(path), [Problem("", "is not UTF-8 text")]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = Problem(place, error.problem or "is not YAML")
        raise InvalidInputError(str(path), [problem]) from error
    except yaml.YAMLError as error:
        raise InvalidInputError(str(path), [Problem("", "is not YAML")]) from error
    return document


def as_mapping(source: str, document: object) -> Mapping[str, object]:
    """Return the document if it is a mapping of names; an empty file is an empty mapping.

    Raises `InvalidInputError` for anything else.
    """
    if document is None:
        return {}
    if not isinstance(document, Mapping) or not all(isinstance(key, str) for key in document):
        raise InvalidInputError(source, [Problem("", "should be a mapping of names to values")])
    return document
