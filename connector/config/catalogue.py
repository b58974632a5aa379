"""All settings as a flat list, read from the models: for where a setting belongs, and for tests of the pages."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from connector.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Entry:
    """One setting: its path (`streams[].batch.max_records`), and the model if it is a group."""

    path: str
    group: type[BaseModel] | None


def catalogue(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Entry]:
    """Yield every setting below a model, groups before their contents, in the order of the code."""
    for name, field in model.model_fields.items():
        group = model_in(field.annotation)
        in_list = group is not None and get_origin(field.annotation) is list
        path = f"{prefix}{name}{'[]' if in_list else ''}"
        yield Entry(path, group)
        if group is not None:
            yield from catalogue(group, f"{path}.")


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation is, or is a list of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := model_in(argument))), None)
