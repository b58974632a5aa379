"""Links to the runbook: the page of a hold's reason, shown wherever the hold is.

There is one page per reason, ignoring what follows its colon. The pages are part of the source tree; if they are served
elsewhere, the setting `docs_url` says where, and links lead there.
"""

from typing import Final

FOLDER: Final = "docs/runbook"


def hold_page(reason: str) -> str:
    """Return the name of the page for a hold's reason: `setting:list_not_found` has `hold-setting`."""
    return f"hold-{reason.partition(':')[0].replace('_', '-')}"


def runbook_of(reason: str, docs_url: str | None) -> str:
    """Return the link to the page for a hold's reason: at `docs_url`, or in the source tree."""
    page = hold_page(reason)
    return f"{FOLDER}/{page}.md" if docs_url is None else f"{docs_url.rstrip('/')}/runbook/{page}/"
