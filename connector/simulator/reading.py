"""Reads the simulator's files and requests, and reports errors in them like those in settings."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from connector.config.messages import faults_of
from connector.config.problems import Problem, SettingsError, dotted


class Model(BaseModel):
    """Frozen, and closed to unknown names: a misspelt fault must be an error.

    Unlike settings it is not strict: in JSON, the statuses of `error_rate` are text.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


_M = TypeVar("_M", bound=Model)


def validated(model: type[_M], document: object, *, source: Path | str) -> _M:
    """Return a decoded document as a model; an empty one has only defaults.

    Raises `SettingsError` that names the place of every problem.
    """
    given = {} if document is None else document
    try:
        return model.model_validate(given)
    except ValidationError as error:
        faults = faults_of(error, given, model=model)
        raise SettingsError(source, [Problem(dotted(fault.path), fault.message) for fault in faults]) from error


def read_yaml(path: Path) -> object:
    """Read a YAML or JSON file.

    Raises `SettingsError` when the file is absent, not text, or not YAML.
    """
    try:
        document: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(path, [Problem("", f"cannot read the file: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise SettingsError(path, [Problem("", "is not UTF-8 text")]) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise SettingsError(path, [Problem("", f"is not valid YAML: {error.problem}", line, column)]) from error
    except yaml.YAMLError as error:
        raise SettingsError(path, [Problem("", "is not valid YAML")]) from error
    except ValueError as error:  # of a value: 2026-02-30 looks like a date
        raise SettingsError(path, [Problem("", f"is not valid YAML: {error}")]) from error
    except RecursionError as error:
        raise SettingsError(path, [Problem("", "is nested too deeply")]) from error
    return document
