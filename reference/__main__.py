"""Writes everything that is generated from the code: `python -m reference`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from reference.errors import errors_page
from reference.pages import acls_page, commands_page, exit_codes_page, metrics_page, verdicts_page
from reference.settings import chart_schema, settings_page, settings_schema, simulator_page
from reference.status import status_page

ROOT: Final = Path(__file__).resolve().parents[1]
CHART_VALUES: Final = "deploy/helm/trackly-connector/values.schema.json"


def _values() -> str:
    """Return the schema of the chart's values, with the present schema of the settings in its `$defs`."""
    values = json.loads((ROOT / CHART_VALUES).read_text(encoding="utf-8"))
    values["$defs"]["settings"] = chart_schema()
    return _json(values)


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


WRITTEN: Final[Mapping[str, Callable[[], str]]] = {
    "docs/reference/verdicts.md": verdicts_page,
    "docs/reference/metrics.md": metrics_page,
    "docs/reference/status.md": status_page,
    "docs/reference/exit-codes.md": exit_codes_page,
    "docs/reference/error-messages.md": errors_page,
    "docs/reference/acls.md": acls_page,
    "docs/reference/commands.md": commands_page,
    "docs/reference/settings.md": settings_page,
    "docs/reference/simulator.md": simulator_page,
    "schemas/settings.v1.schema.json": lambda: _json(settings_schema()),
    CHART_VALUES: _values,
}
"""Files of the source tree, and their generators."""


def main(root: Path = ROOT) -> None:
    """Write all of them below a folder."""
    for name, made in WRITTEN.items():
        (root / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main()
