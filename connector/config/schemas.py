"""The JSON Schemas that ship with the connector.

An installed package has them in `connector/_schemas`; in a source tree they are beside the package, where people look
for formats first.
"""

import json
from pathlib import Path
from typing import Any, Final

_PACKAGE: Final = Path(__file__).resolve().parent.parent
_SUFFIX: Final = ".schema.json"


def schema_dir() -> Path:
    """Return the folder of the shipped schemas.

    Raises FileNotFoundError if there is none, which means that the installation is broken.
    """
    for folder in (_PACKAGE / "_schemas", _PACKAGE.parent / "schemas"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"no folder of schemas beside {_PACKAGE}; install the package again")


def schema_names() -> list[str]:
    """Return the names of the shipped schemas, such as `settings.v1`, in order."""
    return sorted(path.name.removesuffix(_SUFFIX) for path in schema_dir().glob(f"*{_SUFFIX}"))


def read_schema(name: str) -> dict[str, Any]:
    """Return one shipped schema by its name; without a version (`settings`), its newest one.

    Raises KeyError if there is none with this name.
    """
    names = schema_names()
    versions = [known for known in names if known.rpartition(".v")[0] == name and known.rpartition(".v")[2].isdigit()]
    if name not in names and not versions:
        raise KeyError(name)
    found = name if name in names else max(versions, key=lambda known: int(known.rpartition(".v")[2]))
    schema: dict[str, Any] = json.loads((schema_dir() / f"{found}{_SUFFIX}").read_text(encoding="utf-8"))
    return schema
