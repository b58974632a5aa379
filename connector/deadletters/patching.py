"""Patches a value: a JSON merge patch (RFC 7396) over the bytes of an event.

What the patch does not name keeps its bytes, so that numbers lose no digits and texts keep their escapes.
"""

from typing import Any

import msgspec

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_raw = msgspec.json.Decoder(msgspec.Raw).decode


class UnpatchableError(ValueError):
    """The value is not JSON, so nothing can be merged into it."""


def read_patch(text: str) -> dict[str, Any]:
    """Return a patch; raises `ValueError` if it is not a JSON object."""
    try:
        patch = msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(patch, dict):
        raise ValueError('must be a JSON object, such as \'{"body": "Hello"}\'')  # noqa: TRY004 (bad text, not a type)
    return patch


def patched(value: bytes | None, patch: dict[str, Any]) -> bytes:
    """Return a value with a patch merged into it; raises `UnpatchableError`."""
    try:
        target = None if value is None else _raw(value)
        return msgspec.json.encode(_merged(target, patch))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnpatchableError(str(error)) from None


def _merged(target: msgspec.Raw | None, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    fields: dict[str, Any] = {}
    if target is not None and bytes(target).lstrip()[:1] == b"{":
        fields = dict(_fields(target))
    for name, change in patch.items():
        if change is None:
            fields.pop(name, None)
        else:
            fields[name] = _merged(fields.get(name), change)
    return fields
