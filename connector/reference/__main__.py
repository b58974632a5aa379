"""Writes every page: `python -m connector.reference`."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from connector.reference.errors import errors_page
from connector.reference.pages import acls_page, commands_page, exit_codes_page, metrics_page, verdicts_page

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "reference"

PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "verdicts.md": verdicts_page,
    "metrics.md": metrics_page,
    "exit-codes.md": exit_codes_page,
    "error-messages.md": errors_page,
    "acls.md": acls_page,
    "commands.md": commands_page,
}


def main(folder: Path = FOLDER) -> int:
    """Write every page to a folder; the exit code is 1 where there is none, as in an installed package."""
    if not folder.is_dir():
        sys.stderr.write(f"no folder {folder}; run this in a source tree\n")
        return 1
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
