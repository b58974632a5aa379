"""The reference pages that are printed from the code: verdicts, metrics and exit codes.

`python -m connector.reference` writes them to `docs/reference` anew; a test compares, so none can drift from the code.
The page of the settings has a module of its own, `connector.config.reference`.
"""

import ast
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec
from prometheus_client.metrics import MetricWrapperBase

from connector.cli.errors import RESTARTS, ExitCode
from connector.core.verdicts import RECORD_CODES, TABLE
from connector.shaping.formats.refusing import REASONS as FORMAT_REASONS
from connector.telemetry import metrics
from connector.trackly.operations import ENDPOINTS

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "reference"

LOCAL_REASONS: Final[Mapping[str, str]] = {
    "contact_too_large": "a contact has more than 4,000 bytes",
    "expired": "older than `delivery.max_age_secs`",
    "invalid_list_number": "`list_number` is not an E.164 number",
    "invalid_phone": "the recipient's number is not an E.164 number",
    "too_many_segments": "the text takes more segments than `mapping.max_segments`",
    "journeys_not_allowed": "`use_journeys` is true and the stream's `contacts.journeys` is not",
    "missing_list_number": "neither the event nor the stream names a list",
    "not_an_object": "JSON, but not an object",
    "not_json": "not JSON, or nested too deeply",
    "not_utf8": "bytes that are not UTF-8",
    "record_too_large": "does not fit a request alone",
    "unknown_field": "has a field that no document names, and the stream has `unknown_fields: reject`",
    "wrong_type": "a field has a type or a word that the API does not take",
}
"""What is found before a request is spent, beside fields that are missing or below 0."""

SHAPING_REASONS: Final[Mapping[str, str]] = {
    "mapping_failed": "a field of `mapping`, or `when`, has no result for it; the text names which",
    "transform_failed": "the stream's `transform` says so",
}
"""What is found while an event is made of a record."""

ANSWERED_REASONS: Final[Mapping[str, str]] = {
    "in_doubt": "nobody knows whether the platform took it, and `delivery.in_doubt` says not to post it again",
    "payload_too_large": "the platform refused it for its size, alone in a request",
    "refused": "the platform gave it a code that no document names; `trackly.code` has it",
    "rejected": "the platform refused it, alone in a request, without a code of a record",
    "server_error": "it failed with a 5xx, alone in a request, while others passed, until `retry.max_attempts`",
}
"""What answers, and their absence, come to without being the platform's own code for a record."""


def local_reasons() -> dict[str, str]:
    """Return every reason that is found before a request is spent, with what it means."""
    reasons = {**LOCAL_REASONS, **SHAPING_REASONS}
    for endpoint in ENDPOINTS.values():
        required = [field.encode_name for field in msgspec.structs.fields(endpoint.event) if field.required]
        for name in required:
            may_be_empty = name not in endpoint.texts and name not in endpoint.phones
            reasons[f"missing_{name}"] = (
                f"`{name}` is absent or null" if may_be_empty else f"`{name}` is absent or empty"
            )
        for name in endpoint.numbers:
            reasons[f"invalid_{name}"] = f"`{name}` is below 0"
    return reasons


def verdicts_page() -> str:
    """Return the page of the verdict table and of the reasons of dead letters."""
    rows = [(f"`{row.name}`", row.when, row.action.value, row.verdict) for row in TABLE if row.matches is not None]
    local_rows = [(f"`{row.name}`", row.when, row.verdict) for row in TABLE if row.matches is None]
    found_here = local_reasons()
    reasons = []
    for reason in sorted({*found_here, *FORMAT_REASONS, *RECORD_CODES, *ANSWERED_REASONS}):
        meanings = [found_here.get(reason), FORMAT_REASONS.get(reason), ANSWERED_REASONS.get(reason)]
        if reason in RECORD_CODES and reason not in ANSWERED_REASONS:
            meanings.append("the platform says so")
        reasons.append((f"`{reason}`", "; or ".join(meaning for meaning in meanings if meaning)))
    return _page(
        "Verdicts",
        "Every record ends with one verdict. This page is printed from the table that decides, "
        "`connector/core/verdicts.py`.",
        "## Before a request",
        _table(("Row", "What happened", "What becomes of the record"), local_rows),
        "## Answers, and their absence\n\nThe first row that matches decides about the records of a request. Its name "
        "is the label `row` of the metrics `trackly_request_seconds` and `trackly_posted_records_total`, and a key of "
        "`requests_by_row` on `/status`.",
        _table(("Row", "What happened", "Action", "What becomes of the records"), rows),
        "## Reasons of dead letters\n\nThe header `trackly.reason`, and the label `reason` of "
        "`trackly_dead_letters_total`, is one of these.",
        _table(("Reason", "Meaning"), reasons),
    )


def metrics_page() -> str:
    """Return the page of the metrics, under the names that they have on the page `/metrics`."""
    return _page(
        "Metrics",
        "What `/metrics` shows, in Prometheus' text format. Counters start at 0 with the process; results are counted "
        "when the transaction that holds them has committed. This page is printed from the catalogue, "
        "`connector/telemetry/metrics.py`.",
        "Under a supervisor (`run --workers`) every sample has the label `worker` as well, and two of the "
        "supervisor itself are there: `sum without (worker) (rate(...))` adds up over workers, restarts included.",
        _table(("Metric", "Kind", "Labels", "Meaning"), sorted(_metrics())),
        "## Labels",
        _table(
            ("Label", "Values"),
            [
                ("`stream`", "names of streams"),
                ("`worker`", "`0`, `1` and so on: the ordinals of the workers of one supervisor"),
                ("`row`", "rows of the [verdict table](verdicts.md)"),
                ("`reason` of dead letters", "[reasons of dead letters](verdicts.md#reasons-of-dead-letters)"),
                ("`reason` of holds", "reasons of [holds](../how-to/holds.md)"),
                ("`waits_for`", "what a [standstill](../how-to/health.md) waits for"),
                ("`closed_by`", "`count`, `bytes`, `window`, `drain`: what filled or ended a batch"),
                ("`state`", "`new`, `running`, `on_hold`, `draining`, `stopped`, `failed`"),
            ],
        ),
    )


def exit_codes_page() -> str:
    """Return the page of the commands' exit codes."""
    meanings = _docstrings_of_members(ExitCode)
    return _page(
        "Exit codes",
        "How `trackly-connector` and its commands end. A code never changes its meaning. This page is printed from "
        "`connector/cli/errors.py`.",
        _table(
            ("Code", "Name", "Meaning"), [(f"{code:d}", f"`{code.name}`", meanings[code.name]) for code in ExitCode]
        ),
        "## Several workers",
        "Under a supervisor (`run --workers`) a worker that ends is started again, with a wait that doubles from "
        f"{RESTARTS.base_secs:g} s to {RESTARTS.max_secs:g} s and begins anew after a run of "
        f"{RESTARTS.steady_secs:g} s. What no restart would mend ends all with that code: {_codes(RESTARTS.final)} at "
        f"any time, {_codes(RESTARTS.final_at_first)} at a worker's first start. stderr says which worker it was.",
        "After SIGTERM the whole ends with the worst of the last ends of its workers, from the best to the worst: "
        f"{_codes(RESTARTS.order)}. A worker that a signal killed counts as {_codes([RESTARTS.killed])}: what it had "
        "in flight is in doubt.",
    )


def _codes(codes: Iterable[int]) -> str:
    """Return exit codes as text; those without an order by number."""
    listed = codes if isinstance(codes, tuple) else sorted(codes)
    return ", ".join(f"{code:d}" for code in listed)


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "verdicts.md": verdicts_page,
    "metrics.md": metrics_page,
    "exit-codes.md": exit_codes_page,
}


def _metrics() -> Iterator[tuple[str, str, str, str]]:
    for collector in vars(metrics).values():
        if isinstance(collector, MetricWrapperBase):
            (family,) = collector.describe()
            labels = collector._labelnames  # noqa: SLF001 (a metric without samples tells its labels nowhere else)
            yield _metric(family.name, family.type, labels, family.documentation)
    collectors = (
        metrics.StatusCollector(lambda: [_AnyStatus()]),
        metrics.WorkersCollector({}, [metrics.WorkerSeen(0, up=True, restarts=0)]),
    )
    for family in (family for collector in collectors for family in collector.collect()):
        labels = tuple(family.samples[0].labels)
        yield _metric(family.name, family.type, labels, family.documentation)


def _metric(name: str, kind: str, labels: Iterable[str], text: str) -> tuple[str, str, str, str]:
    shown = f"{name}_total" if kind == "counter" else name
    return f"`{shown}`", kind, ", ".join(f"`{label}`" for label in labels), text


class _Ones(dict[str, Any]):
    """A stream's status in which every number is 1."""

    def __missing__(self, _key: str) -> int:
        return 1


class _AnyStatus:
    """Stands in for a stream, so that every metric that is read from one has a sample."""

    def status(self) -> dict[str, Any]:
        """Return one of everything."""
        one = {"any": 1}
        holds, standstills = [{"reason": "any"}], [{"waits_for": "any"}]
        redrives = [_Ones(rule="any")]
        return _Ones(
            name="any",
            state="any",
            dead_letters=one,
            batches_closed=one,
            holds=holds,
            standstills=standstills,
            pace={"backlog_secs": 1},
            redrives=redrives,
        )


def _docstrings_of_members(kind: type) -> dict[str, str]:
    """Return the text below each member of a class, which Python keeps in the source alone."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(kind)).body if isinstance(node, ast.ClassDef))
    found: dict[str, str] = {}
    for member, text in pairwise(body):
        match member, text:
            case ast.Assign(targets=[ast.Name(id=name)]), ast.Expr(value=ast.Constant(value=str(meaning))):
                found[name] = meaning
            case _:
                continue
    return found


def _page(title: str, *sections: str) -> str:
    return "\n\n".join([f"# {title}", *sections]) + "\n"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


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
