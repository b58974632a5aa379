"""Where the runbook is: the page of a hold's reason, as a link that is told wherever the hold is.

There is one page for each reason, whatever stands behind its colon. The pages are part of the source tree; where they
are served the setting `docs_url` says it, and links lead there.
"""

from typing import Final

FOLDER: Final = "docs/runbook"


def hold_page(reason: str) -> str:
    """Return the name of the page about holds of a reason: `setting:list_not_found` has `hold-setting`."""
    return f"hold-{reason.partition(':')[0].replace('_', '-')}"


def runbook_of(reason: str, docs_url: str | None) -> str:
    """Return the link to the page about holds of a reason: served at `docs_url`, else in the source tree."""
    page = hold_page(reason)
    return f"{FOLDER}/{page}.md" if docs_url is None else f"{docs_url.rstrip('/')}/runbook/{page}/"
