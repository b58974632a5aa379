"""The page of error messages: each message, what it means, and what to do."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from connector.app.online import FAILURES
from connector.cli.errors import ExitCode, endings
from connector.config.messages import KINDS, PATTERNS
from connector.console.advice import HOLDS, SETTING, STORM
from connector.core.reasons import REASONS, Reason
from connector.core.verdicts import RECORD_CODES
from connector.deadletters.deciding import WHY
from connector.telemetry.runbook import hold_page
from reference.markdown import page, table
from reference.messages import Message, of_commands, texts_given, texts_returned

COMMANDS: Final[Mapping[str, str]] = {
    "dead-letters": "dead_letters",
    "explain": "explain.py",
    "dead-letters`, `explain` and `rebuild-progress": "arguments.py",
    "rebuild-progress": "rebuild_progress.py",
    "resume` and `pause": "workers.py",
    "schema": "schema.py",
    "simulate": "simulate.py",
    "acls": "acls.py",
    "demo": "demo.py",
}
"""Commands with messages of their own, and where those are; a test checks that none is missing."""

_PAGES: Final = ("app/resuming.py", "console/guarding.py", "console/sessions.py", "console/pages.py")


def errors_page() -> str:
    """Return the page."""
    return page(
        "Error messages",
        "The messages that a user may see, what they mean, and how to fix the cause. `<name>` is a placeholder. This "
        "page is generated from the code, so it has the exact texts.",
        "A command reports a foreseeable error in a few lines on stderr, and by its "
        "[exit code](exit-codes.md). A traceback is a bug: please report it.",
        "```text\nerror: topic sms.campaign.dead-letters does not exist\n"
        "hint: check its name; trackly-connector check SETTINGS --online shows which topics of the settings are "
        "missing\n```",
        "## Any command",
        table(
            ("What happened", "Exit code", "What to do"),
            [(ending.when, _code(ending.code), ending.way_out) for ending in endings()],
        ),
        *_of_commands(),
        "## What the pages reject",
        "`resume`, `pause` and the console get it as `problem` in JSON; nothing has been changed. The "
        "message says what is required.",
        _listed(text for place in _PAGES for text in texts_given(place, "RefusedError")),
        "## Settings",
        "`FILE cannot be used:` and one line per problem: where in the file, what, and the line and column. All "
        "problems are reported at once, and the exit code is 2. `trackly-connector check` says the same without "
        "starting anything. Values are not repeated, since they may be secrets.",
        *_of_settings(),
        "## Findings of check --online",
        "Whatever is not ok has its remedy next to it, with the actual names. The exit code is that of the first.",
        table(
            ("What is wrong", "Exit code", "What to do"),
            [(found.when, _code(found.exit_code), found.way_out) for found in FAILURES],
        ),
        "## Reasons of dead letters",
        "The header `trackly.reason`, and the label `reason` of `trackly_dead_letters_total`, is one of these; "
        "`trackly.text` has details of the record. How to send a fixed record again: "
        "[dead letters](../how-to/dead-letters.md).",
        table(("Reason", "Found", "Meaning", "What to do"), _reasons()),
        "## What a redrive leaves",
        "The plan says how many of the selected dead letters it leaves, and why.",
        table(("Word", "Meaning"), [(f"`{word}`", why) for word, why in WHY.items()]),
        "## Reasons of holds",
        "`holds` on `/status`, the error `stream on hold` in the log, and the label `reason` of `trackly_hold`. "
        "[Holds](../how-to/holds.md) explains how they work; each has a page in the runbook.",
        table(("Reason", "Meaning", "What to do"), _holds()),
    )


def _code(code: int) -> str:
    return f"{code:d} `{ExitCode(code).name}`"


def _of_commands() -> Iterator[str]:
    for name, place in COMMANDS.items():
        yield f"## Command{'s' if ' and ' in name else ''} `{name}`"
        yield table(("Message", "Exit code", "What to do"), map(_row, of_commands(place)))


def _row(message: Message) -> tuple[str, ...]:
    return _spelled(message.text), _code(ExitCode[message.code]), message.way_out.replace("<", "&lt;")


def _spelled(text: str) -> str:
    """Return a message as code; one that contains code quotes gets two around it."""
    line = " ".join(text.split())
    return f"`` {line} ``" if "`" in line else f"`{line}`"


def _of_settings() -> Iterator[str]:
    kinds = [*KINDS.values(), *PATTERNS.values(), *texts_returned("config/messages.py", "_rule")]
    families: tuple[tuple[str, str, Iterable[str]], ...] = (
        (
            "The file",
            "Fix the line that the message names.",
            texts_given("config/document.py", "_fatal", "_report", "_UnusableError"),
        ),
        (
            "References",
            "Set the variable, or provide the file, where the connector starts; [the forms](settings.md#references).",
            texts_given("config/references.py", "UnresolvedReferenceError"),
        ),
        (
            "Names",
            "Use the suggested name; [settings](settings.md) has them all.",
            texts_given("config/messages.py", "Fault"),
        ),
        (
            "Values",
            "The message says what the value must be; the values of each setting are in [settings](settings.md).",
            [*kinds, *texts_given("config", "ValueError")],
        ),
        (
            "Mapping and transform",
            (
                "`explain` shows what a [mapping](../how-to/mapping.md) or a [transform](../how-to/python-hook.md) "
                "produces."
            ),
            [
                *texts_given("config/mapping.py", "ValueError"),
                *texts_given("mapping", "InvalidSourceError", "Flaw"),
                *texts_given("hooks.py", "InvalidTransformError"),
            ],
        ),
        (
            "Inconsistent settings",
            "Change one of the named settings; [the rules](settings.md#what-must-fit-together).",
            [
                *texts_given("config/checks", "Fault"),
                *texts_given("shaping/trial.py", "Fault"),
                *texts_given("trackly/trial.py", "Fault"),
            ],
        ),
        (
            "Certificates and keys",
            (
                "Provide the file that the setting names; check it with `openssl x509 -in FILE` and `openssl pkey -in "
                "FILE`."
            ),
            texts_given("config/certificates.py", "Flaw"),
        ),
        (
            "Kafka properties",
            (
                "[Properties that are rejected by name](settings.md#kafka-properties-that-are-refused); librdkafka "
                "rejects others."
            ),
            texts_given("kafka/trial.py", "Fault"),
        ),
    )
    listed: set[str] = set()
    for name, way_out, texts in families:
        yield f"### {name}"
        yield way_out
        new = [text for text in dict.fromkeys(texts) if text not in listed]
        listed.update(new)
        if new:
            yield _listed(new)


def _listed(texts: Iterable[str]) -> str:
    return "\n".join(f"- {_spelled(text)}" for text in dict.fromkeys(texts))


def _reasons() -> Iterator[tuple[str, ...]]:
    for name, reason in sorted(REASONS.items()):
        yield f"`{name}`", _found(name, reason), reason.means, reason.do


def _found(name: str, reason: Reason) -> str:
    """Return who finds it: the connector, before posting; the platform, by a code; or what an answer means."""
    places = ["before a request"] * reason.here + ["by the platform"] * (name in RECORD_CODES)
    return " or ".join(places) or "by the answer, or its absence"


def _holds() -> Iterator[tuple[str, ...]]:
    for reason, advice in {**HOLDS, "setting:<code>": SETTING, "storm:<reason>": STORM}.items():
        name = hold_page(reason)
        yield f"[`{reason}`](../runbook/{name}.md)", advice.means, advice.do
