"""What all settings models share: strict, frozen, closed, and without values in errors.

Strict: a number is never the text "5", since a silent conversion hides an error in the file. Closed: an unknown key is
an error, because a misspelt one would otherwise mean its default. By default pydantic repeats the offending value in
its errors, and one of these values is an API key.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

E164 = r"^\+[1-9][0-9]{1,14}$"
TOPIC_NAME = r"^[a-zA-Z0-9._-]{1,249}$"

HIDDEN: Final = "***"
"""Replaces a secret that is set."""


class Model(BaseModel):
    """A group of settings: unknown keys refused, nothing converted, nothing changed after loading."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe each setting by the text below it."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, text in texts_below(cls):
            properties[name]["description"] = text
        return schema


def texts_below(kind: type) -> Iterator[tuple[str, str]]:
    """Yield each name that a class assigns, with the text below it in the source, on one line.

    For settings pydantic could do this at each start (`use_attribute_docstrings`): measured, importing these takes a
    quarter longer.
    """
    [definition] = ast.parse(inspect.getsource(kind)).body
    assert isinstance(definition, ast.ClassDef)
    for above, below in pairwise(definition.body):
        match above, below:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield name, " ".join(text.split())
            case _:
                pass


def _anchor(value: object, info: ValidationInfo) -> object:
    """Return a path as text, relative to the folder of the settings file if the loader names it."""
    if not isinstance(value, str):
        return value
    if not value:
        raise ValueError("must not be empty")
    base = info.context.get("base") if info.context else None
    return Path(base, value) if base else Path(value)


def _topic(name: str) -> str:
    if name in {".", ".."}:
        raise ValueError("must not be '.' or '..'")
    return name


def secret_by(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator for a secret, with a function that raises ValueError without repeating it."""

    def checked(value: SecretStr) -> SecretStr:
        check(value.get_secret_value())
        return value

    return AfterValidator(checked)


FilePath = Annotated[
    Path,
    BeforeValidator(_anchor, json_schema_input_type=str),
    WithJsonSchema({"type": "string", "format": "path"}),
]
"""A file, as text in the settings; relative ones start at the folder of the settings file."""

Topic = Annotated[str, StringConstraints(pattern=TOPIC_NAME), AfterValidator(_topic)]
"""The name of a Kafka topic: what Kafka itself allows."""

PhoneNumber = Annotated[str, StringConstraints(pattern=E164)]
"""A phone number in E.164 form."""

Secret = Annotated[SecretStr, PlainSerializer(lambda _: HIDDEN, return_type=str, when_used="json")]
"""A text that nothing shows: not in logs, not in errors, and not where settings are written out."""

Seconds = Annotated[float, Field(gt=0, le=86_400)]
"""A length of time in seconds: above 0, at most a day."""
