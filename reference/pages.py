"""The pages of verdicts, metrics, commands, exit codes and Kafka permissions, each generated from the code."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal, get_args, get_origin

import typer

from connector.app.acls import Acl, Role, commands, needed
from connector.cli.errors import RESTARTS, WAYS_OUT, ExitCode
from connector.cli.main import app
from connector.config.model import texts_below
from connector.config.settings import Settings
from connector.core.verdicts import TABLE
from connector.telemetry import metrics
from reference.markdown import page, table


def verdicts_page() -> str:
    """Return the page of the verdict table."""
    rows = [(f"`{row.name}`", row.when, row.action.value, row.verdict) for row in TABLE if row.matches is not None]
    local_rows = [(f"`{row.name}`", row.when, row.verdict) for row in TABLE if row.matches is None]
    return page(
        "Verdicts",
        "Every record ends with one verdict. This page is generated from the table that decides, "
        "`connector/core/verdicts.py`.",
        "## Before a request",
        table(("Row", "What happened", "What happens to the record"), local_rows),
        "## Answers, and their absence\n\nThe first matching row decides about the records of a request. Its name "
        "is the label `row` of the metrics `trackly_request_seconds` and `trackly_posted_records_total`, and a key of "
        "`requests_by_row` on `/status`.",
        table(("Row", "What happened", "Action", "What happens to the records"), rows),
        "## Reasons of dead letters\n\n[Error messages](error-messages.md#reasons-of-dead-letters) explains each, and "
        "what to do about it.",
    )


def metrics_page() -> str:
    """Return the page of the metrics, with their names on the page `/metrics`."""
    return page(
        "Metrics",
        "What `/metrics` shows, in the Prometheus text format. Counters start at 0 with the process; results are "
        "counted when the transaction that holds them has committed. This page is generated from the catalogue, "
        "`connector/telemetry/metrics.py`.",
        "Under a supervisor (`run --workers`) every sample also has the label `worker`, and there are two of the "
        "supervisor itself: `sum without (worker) (rate(...))` aggregates over workers, restarts included.",
        table(("Metric", "Kind", "Labels", "Unit", "Meaning"), _metrics()),
        "## Labels",
        table(
            ("Label", "Values"),
            [
                ("`stream`", "names of streams"),
                ("`worker`", "`0`, `1` and so on: the ordinals of the workers of one supervisor"),
                ("`row`", "rows of the [verdict table](verdicts.md); `wait` is a rate limit (429)"),
                ("`reason` of dead letters", "[reasons of dead letters](error-messages.md#reasons-of-dead-letters)"),
                ("`reason` of holds", "reasons of [holds](../how-to/holds.md)"),
                ("`waits_for`", "what a [standstill](../how-to/health.md) waits for"),
                ("`closed_by`", "`count`, `bytes`, `window`, `drain`: what filled or ended a batch"),
                ("`state`", "`new`, `running`, `on_hold`, `draining`, `stopped`, `failed`"),
            ],
        ),
    )


def commands_page() -> str:
    """Return the page of the commands and their options."""
    root = typer.main.get_command(app)
    sections = [section for path, command in _commands(root) for section in _command(path, command)]
    return page(
        "Commands",
        "The commands of `trackly-connector`, as in `--help`. This page is generated from `connector/cli`.",
        *sections,
    )


def _commands(root: Any, path: tuple[str, ...] = ("trackly-connector",)) -> Iterator[tuple[str, Any]]:
    """Yield every command with its name as typed, those of groups after their group."""
    for name, command in root.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def _command(path: str, command: Any) -> Iterator[str]:
    yield f"## {path.removeprefix('trackly-connector ')}"
    yield inspect.cleandoc(command.help or "")
    annotations = {name: found.annotation for name, found in inspect.signature(command.callback).parameters.items()}
    words = [path, "[OPTIONS]"]
    rows = []
    for param in command.params:
        if param.param_type_name == "argument":
            spelled = param.metavar or param.name.upper()
            words.append(spelled if param.required else f"[{spelled}]")
            rows.append((f"`{spelled}`", "", _help(param)))
        else:
            spelled = " ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
            rows.append((spelled, _takes(param, annotations.get(param.name)), _help(param)))
    yield f"```text\n{' '.join(words)}\n```"
    if rows:
        yield table(("Argument, option", "Takes", "Meaning"), rows)


def _help(param: Any) -> str:
    return (param.help or "").replace("<", "&lt;")


def _takes(param: Any, annotation: Any) -> str:
    """Return the values that an option accepts, if they are few, and its default, if it has one."""
    words = " or ".join(f"`{word}`" for word in _words_of(annotation))
    if param.is_flag or param.default in (None, "") or callable(param.default) or not param.show_default:
        return words
    default = f"`{param.default}` unless given"
    return f"{words}; {default}" if words else default


def _words_of(annotation: Any) -> list[Any]:
    """Return the values that an annotation allows, or those inside it."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return next((found for inner in get_args(annotation) if (found := _words_of(inner))), [])


def exit_codes_page() -> str:
    """Return the page of the commands' exit codes."""
    meanings = dict(texts_below(ExitCode))
    return page(
        "Exit codes",
        "The exit codes of `trackly-connector` and its [commands](commands.md). A code never changes its meaning; "
        "[error messages](error-messages.md) has the messages on stderr. This page is generated from "
        "`connector/cli/errors.py`.",
        table(
            ("Code", "Name", "Meaning", "What to do"),
            [(f"{code:d}", f"`{code.name}`", meanings[code.name], WAYS_OUT[code]) for code in ExitCode],
        ),
        "## Several workers",
        "Under a supervisor (`run --workers`) a worker that exits is restarted, with a backoff that doubles from "
        f"{RESTARTS.base_secs:g} s to {RESTARTS.max_secs:g} s and starts over after a run of "
        f"{RESTARTS.steady_secs:g} s. What a restart cannot fix ends all workers with that code: "
        f"{_codes(RESTARTS.final)} at "
        f"any time, {_codes(RESTARTS.final_at_first)} at a worker's first start. stderr says which worker it was.",
        "After SIGTERM the exit code is the worst of the last exit codes of the workers, from best to worst: "
        f"{_codes(RESTARTS.order)}. A worker killed by a signal counts as {_codes([RESTARTS.killed])}: what it had "
        "in flight is in doubt.",
    )


_EXAMPLE: Final[Mapping[str, Any]] = {
    "name": "campaign-sends",
    "topics": ["sms.campaign"],
    "operation": "send",
    "outcomes": {"topic": "sms.campaign.outcomes"},
    "dead_letters": {"topic": "sms.campaign.dead-letters"},
}
_RULE: Final[Mapping[str, Any]] = {"redrive": [{"name": "transient", "reasons": ["provider_error"]}]}


def _example(*, create: bool = False, redrive: bool = False) -> Settings:
    dead_letters = {**_EXAMPLE["dead_letters"], **(_RULE if redrive else {})}
    stream = {**_EXAMPLE, "dead_letters": dead_letters, "create_topics": {"enabled": create}}
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:9092"},
            "trackly": {"api_key": "${env:TRACKLY_API_KEY}"},
            "streams": [stream],
        }
    )


def acls_page() -> str:
    """Return the page of the Kafka permissions, for one stream."""
    lines = commands(needed(_example(), "worker"), bootstrap_servers="localhost:9092", principal="User:connector")
    return page(
        "Kafka permissions",
        "The exact permissions that a principal needs, for a stream `campaign-sends` that reads `sms.campaign`. A star "
        "after a name is a prefix match. For your settings `trackly-connector acls` prints the same. This page "
        "is generated from `connector/app/acls.py`, which `check --online` uses too; see [how to](../how-to/acls.md) "
        "apply them.",
        "## Workers",
        _rights("worker"),
        "As commands, without rules and without the creation of topics:",
        "```sh\n" + "\n".join(lines) + "\n```",
        "## Commands on dead letters",
        _rights("dead_letters"),
    )


def _rights(role: Role) -> str:
    plain = _rights_of(_example(), role)
    settings = {
        "`create_topics.enabled`": _rights_of(_example(redrive=True), role),
        "`dead_letters.redrive`": _rights_of(_example(create=True), role),
    }
    rows = []
    for acl in needed(_example(create=True, redrive=True), role):
        lacking = [setting for setting, without in settings.items() if _key(acl) not in without]
        when = "" if _key(acl) in plain else " and ".join(lacking)
        name = f"{acl.name}*" if acl.prefixed else acl.name
        rows.append((acl.kind.replace("_", " "), f"`{name}`", acl.operation, acl.why, when))
    return table(("Resource", "Name", "Operation", "For", "Only with"), rows)


def _rights_of(settings: Settings, role: Role) -> set[tuple[Any, ...]]:
    return {_key(acl) for acl in needed(settings, role)}


def _key(acl: Acl) -> tuple[Any, ...]:
    return (*acl.resource, acl.operation)


def _codes(codes: Iterable[int]) -> str:
    """Return exit codes as text; those without an order by number."""
    listed = codes if isinstance(codes, tuple) else sorted(codes)
    return ", ".join(f"{code:d}" for code in listed)


def _metrics() -> Iterator[tuple[str, ...]]:
    for described in sorted(metrics.CATALOGUE.values(), key=lambda found: found.name):
        labels = ", ".join(f"`{label}`" for label in described.labels)
        yield f"`{described.name}`", described.kind, labels, described.unit, described.meaning
