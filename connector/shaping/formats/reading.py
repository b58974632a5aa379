"""JSON as the decoders read it: bytes to Python's values, with the reasons that JSON has everywhere."""

from typing import Any

import msgspec

from connector.shaping.formats.refusing import UndecodableError

_decode = msgspec.json.Decoder().decode


def json_from(value: bytes) -> Any:
    """Return what JSON says, whole numbers of any size included; raises `UndecodableError` for anything else."""
    try:
        return _decode(value)
    except RecursionError:
        raise UndecodableError("not_json", "nested too deeply") from None
    except UnicodeDecodeError as error:
        raise UndecodableError("not_utf8", f"byte {error.start} is not UTF-8") from None
    except msgspec.DecodeError as error:
        try:
            value.decode()
        except UnicodeDecodeError as wrong:
            raise UndecodableError("not_utf8", f"byte {wrong.start} is not UTF-8") from None
        raise UndecodableError("not_json", str(error)) from None
