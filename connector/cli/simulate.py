"""`simulate`: runs the simulator of the platform until it is stopped."""

import asyncio
import errno
import json
import signal
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from connector.cli.errors import CommandError, ExitCode, reported
from connector.config.certificates import flaws
from connector.config.problems import SettingsError
from connector.console.listening import why_not_listening
from connector.memory import tune_allocator

if TYPE_CHECKING:
    from connector.simulator import Faults, LedgerTotals, SimulatorSettings


_OPTIONS: Final = {
    "host": "--host",
    "api_keys": "--api-key",
    "lists": "--list",
    "script_from": "--script-from",
    "identify": "--identify",
}
"""The option behind a setting of the simulator, where the option's own check is not strict enough."""

_PORT_IS_NOT_OURS: Final = frozenset({errno.EADDRINUSE, errno.EACCES})
"""Listening errors that are no option's fault: another process has the port, or it needs privileges."""


@reported()
def simulate(
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 picks a free one.")] = 0,
    tls_cert: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file of the certificate, for HTTPS.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="PEM file of its key.")] = None,
    api_key: Annotated[
        list[str] | None, typer.Option(help="A key that is accepted; may be repeated. Without it, any key is accepted.")
    ] = None,
    list_number: Annotated[
        list[str] | None,
        typer.Option("--list", help="A list of the account, E.164; may be repeated. Without it, any number is a list."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    fast: Annotated[
        bool, typer.Option("--fast", help="Only count the records of bulk requests; neither check nor remember them.")
    ] = False,
    latency_ms: Annotated[
        str | None, typer.Option(help="Latency of replies: a number such as 50, or a range such as 20-80.")
    ] = None,
    faults: Annotated[Path | None, typer.Option(help="YAML or JSON file of the faults at start.")] = None,
    script: Annotated[
        Path | None, typer.Option(help="YAML or JSON file: a list of steps with at_secs, until_secs and faults.")
    ] = None,
    script_from: Annotated[str, typer.Option(help="When the script begins: first_request or start.")] = "first_request",
    switches: Annotated[
        Path | None, typer.Option(help="YAML or JSON file: how to read the API's documentation where it is ambiguous.")
    ] = None,
    identify: Annotated[
        str, typer.Option(help="What identifies a message in the ledger: paths joined by +, or * for all of it.")
    ] = "body",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one document per line.")] = False,
) -> None:
    """Run a simulator of the platform: the same API, a ledger of what it accepted, and faults on demand.

    Prints the base URL when it is ready, and the ledger's totals at the end. SIGTERM and SIGINT end it. While it runs,
    /_simulator/ledger, /_simulator/faults, /_simulator/reset and /_simulator/health on the same port control it;
    they need no key, so keep the port on a private network. File formats: docs/reference/simulator.md.
    """
    # Imported here and below: other commands should not load the platform.
    import uvloop

    from connector.simulator import (
        Faults,
        SimulatorSettings,
        Switches,
        load_faults,
        load_script,
        load_switches,
    )
    from connector.simulator.reading import validated

    given = {
        "host": host,
        "port": port,
        "tls_cert_file": tls_cert,
        "tls_key_file": tls_key,
        "api_keys": tuple(api_key or ()),
        "lists": tuple(list_number) if list_number else None,
        "fast": fast,
        "switches": load_switches(switches) if switches is not None else Switches(),
        "identify": identify,
        "faults": _with_latency(load_faults(faults) if faults is not None else Faults(), latency_ms),
        "script": load_script(script) if script is not None else (),
        "script_from": script_from,
        "seed": seed,
    }
    try:
        settings = validated(SimulatorSettings, given, source="The options")
    except SettingsError as error:
        named = [replace(each, path=_OPTIONS.get(each.path.partition(".")[0], each.path)) for each in error.problems]
        raise SettingsError(error.source, named) from error
    _try_files(tls_cert, tls_key)
    tune_allocator()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        totals = runner.run(_serve(settings, as_json=as_json))
    typer.echo(msgspec.json.encode(totals).decode() if as_json else _summary(totals))


def _try_files(cert: Path | None, key: Path | None) -> None:
    options = {"cert_file": ("--tls-cert", cert), "key_file": ("--tls-key", key)}
    for flaw in flaws(None, cert, key):
        option, file = options[flaw.setting]
        raise CommandError(f"{option} {file} {flaw.message}", way_out="use the PEM files of a certificate and its key")


async def _serve(settings: "SimulatorSettings", *, as_json: bool) -> "LedgerTotals":
    """Serve until a signal arrives; return the ledger's totals."""
    from connector.simulator import Simulator

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        try:
            simulator = await stack.enter_async_context(Simulator.running(settings))
        except OSError as error:
            host, port, why = settings.host, settings.port, why_not_listening(error)
            if error.errno in _PORT_IS_NOT_OURS:
                way_out = "stop whatever listens there, or use another --port (0 picks a free one)"
                raise CommandError(
                    f"cannot listen on --port {port} of --host {host}: {why}", ExitCode.FAILED, way_out=way_out
                ) from error
            way_out = "use an address of this machine, such as 127.0.0.1, or 0.0.0.0 for every interface"
            raise CommandError(f"cannot listen on --host {host}: {why}", way_out=way_out) from error
        urls = {"url": simulator.url, "control_url": simulator.control_url}
        ready = f"Simulator ready at {simulator.url} (control: {simulator.control_url})"
        typer.echo(json.dumps(urls) if as_json else ready)
        await stopping.wait()
        # Identities may be texts or numbers of people, and output ends up in logs.
        return msgspec.structs.replace(simulator.behaviour.ledger.totals(), accepted_twice_examples=())


def _with_latency(faults: "Faults", latency_ms: str | None) -> "Faults":
    """Return the faults with the latency of the command line, if given, instead of theirs."""
    from connector.simulator import Faults

    if latency_ms is None:
        return faults
    least, _, most = latency_ms.partition("-")
    try:
        latency = Faults(latency_ms=(float(least), float(most or least)))
    except ValueError as error:  # includes validation errors
        raise typer.BadParameter("should be milliseconds, such as 50 or 20-80", param_hint="--latency-ms") from error
    return faults.overlaid(latency)


def _summary(totals: "LedgerTotals") -> str:
    distinct = ""
    if totals.distinct is not None:
        distinct = f" ({totals.distinct} distinct, {totals.accepted_twice} of them more than once)"
    statuses = ", ".join(f"{count} x {status}" for status, count in sorted(totals.replies_by_status.items()))
    codes = ", ".join(f"{count} x {code}" for code, count in sorted(totals.record_codes.items()))
    unanswered = ", ".join(f"{count} x {fault}" for fault, count in sorted(totals.unanswered.items()))
    lines = [
        f"Requests: {totals.requests} ({statuses or 'no replies'}), {totals.in_flight_max} at once at most",
        f"Accepted records: {totals.accepted}{distinct}",
        f"Refused records: {totals.refused}" + (f" ({codes})" if codes else ""),
    ]
    if totals.duplicates:
        lines.append(f"Repeats not taken again: {totals.duplicates}")
    if unanswered:
        lines.append(f"Left without a whole answer: {unanswered}")
    return "\n".join(lines)
