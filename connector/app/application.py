"""The Faust application: streams as supervised services, web pages, and the order of start and stop.

Faust's own Kafka transport stays off (`enable_kafka`): it would acknowledge what is still in flight. Faust provides the
worker's life cycle, supervision, timers and the web server.
"""

import asyncio
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import faust
from faust.app.base import BootStrategy
from mode import Service
from mode.types import ServiceT

from connector.app.affinity import ThreadAffinity
from connector.app.instance import Claim, claim, refuse_twin
from connector.app.pages import SERVICE_LOG, PagesOnly, add_pages
from connector.clock import now
from connector.config.problems import SettingsError
from connector.config.secrets import Secrets
from connector.config.settings import Settings
from connector.config.streams import StreamSettings, naming
from connector.cpus import USABLE
from connector.deadletters.automatic import AutomaticRedrive
from connector.kafka import configs
from connector.kafka.call_thread import first_answer
from connector.kafka.errors import KafkaTroubleError, RetriableError
from connector.kafka.topics import Topics
from connector.memory import calm_collector, tune_allocator
from connector.processes import hear_requests
from connector.shaping.formats import registry_of
from connector.stream.stream import Stream
from connector.telemetry.logging import get_logger, say, toggle_debug
from connector.telemetry.metrics import REGISTRY, StatusCollector
from connector.telemetry.traces import open_traces

log = get_logger("app")


class StreamService(Service):
    """One stream under Faust's supervision."""

    logger = SERVICE_LOG

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self.stream = stream

    async def on_start(self) -> None:
        """Start the stream; a failure ends only this stream."""
        await self.stream.start()

    def _repr_name(self) -> str:
        return f"Stream {self.stream.name}"


class RedriveService(Service):
    """A redrive rule of a stream, under Faust's supervision."""

    logger = SERVICE_LOG

    def __init__(self, redrive: AutomaticRedrive) -> None:
        super().__init__()
        self.redrive = redrive

    async def on_start(self) -> None:
        """Start it; it handles Kafka's errors itself."""
        self.redrive.start()

    async def on_stop(self) -> None:
        """Stop it after its running transaction."""
        await asyncio.to_thread(self.redrive.stop, 10.0)


class Boot(BootStrategy):
    """What starts, in which order: the web pages first, so that a slow start can be watched, then the streams."""

    enable_kafka = False

    def server(self) -> Iterable[ServiceT]:
        """Return the services of a worker."""
        connector = cast("Connector", self.app)
        own = (*connector.stream_services, *connector.redrive_services)
        return [*self.sensors(), *self.web_server(), *self.agents(), *own]


class Connector(faust.App):
    """The application. `exit_code` is set when it has stopped.

    With `socket` the pages are served there instead of on `web.host` and `web.port`, which are the supervisor's.
    """

    BootStrategy = Boot
    logger = SERVICE_LOG

    def __init__(self, settings: Settings, claimed: Claim, *, socket: Path | None = None) -> None:
        super().__init__(
            "trackly-connector",
            broker=f"kafka://{settings.kafka.bootstrap_servers.split(',')[0]}",
            web_enabled=settings.web.enabled,
            web_host=_in_url(settings.web.host),
            web_bind=settings.web.host,
            web_port=settings.web.port or None,  # for Faust, 0 is no port; `PagesOnly` supports a free one
            web_transport=f"unix://{socket}" if socket is not None else None,
            web_in_thread=False,
            web_stats_enabled=False,
            web_router_enabled=False,
            web_tables_enabled=False,
            web_graph_enabled=False,
            debug=False,
            autodiscover=False,
            datadir=None,
        )
        self.settings = settings
        self.is_supervised = socket is not None
        """Then the supervisor serves the console."""
        self.claim = claimed
        self.secrets = Secrets(settings)
        self.registry = registry_of(settings, self.secrets)
        self._traces = open_traces(
            settings.traces,
            instance_id=claimed.instance_id,
            base_url=settings.trackly.base_url,
            headers=self.secrets.trace_headers,
        )
        self.streams = [self._stream(stream) for stream in settings.streams]
        self.stream_services = [StreamService(stream) for stream in self.streams]
        self.redrive_services = [
            RedriveService(redrive) for stream in self.streams for redrive in self._redrives(stream)
        ]
        self.exit_code = 0
        self.fatal: BaseException | None = None
        self.started_at = time.time()
        self._affinity: asyncio.Task[None] | None = None
        self._collector = StatusCollector(lambda: [stream.status() for stream in self.streams])
        REGISTRY.register(self._collector)
        add_pages(self)

    def _create_directories(self) -> None:
        """Create nothing: Faust's folders are for tables, which are not used."""

    def _new_web(self) -> PagesOnly:
        return PagesOnly(self)

    def _stream(self, stream: StreamSettings) -> Stream:
        settings = self.settings
        return Stream(
            stream,
            kafka=settings.kafka,
            trackly=settings.trackly,
            instance_id=self.claim.instance_id,
            client_id=self.claim.client_id,
            buffer_bytes=settings.buffer.max_bytes,
            api_key=self._api_key,
            reread_secrets=self._read_secrets,
            on_failure=self._stream_failed,
            stalled_secs=settings.health.stalled_secs,
            docs_url=settings.docs_url,
            traces=self._traces,
            registry=self.registry,
            others=settings.streams_by_name.keys() - {stream.name},
            resume_command=f"trackly-connector resume {stream.name}{_where(settings)}",
        )

    def _redrives(self, stream: Stream) -> list[AutomaticRedrive]:
        """Return the rules of a stream, which reports their state."""
        rules = [
            AutomaticRedrive(
                stream.settings,
                rule,
                kafka=self.settings.kafka,
                instance_id=self.claim.instance_id,
                client_id=self.claim.client_id,
                held=stream.is_held,
            )
            for rule in stream.settings.dead_letters.redrive
        ]
        stream.redrives = lambda: [rule.status() for rule in rules]
        return rules

    def _api_key(self) -> str:
        return self.secrets.api_key().get_secret_value()

    def _read_secrets(self) -> None:
        try:
            changed = self.secrets.read_again()
        except SettingsError as error:
            problems = [str(problem) for problem in error.problems]
            log.warning("secrets could not be re-read, the last ones stay in use", problems=problems)
            return
        if changed:
            log.info("secrets changed", settings=sorted(changed))

    def _stream_failed(self, _stream: Stream, error: BaseException) -> None:
        """Let the other streams continue; stop if none is left, or if another worker has our id.

        Only once: another signal, while the others drain, would stop at once.
        """
        fenced = isinstance(error, KafkaTroubleError) and (error.fenced or error.code == "FENCED_INSTANCE_ID")
        if self.exit_code == 0 and (fenced or all(other.failed is not None for other in self.streams)):
            self.fatal = error
            self.exit_code = 4 if fenced else 1
            if not self.should_stop:
                os.kill(os.getpid(), signal.SIGTERM)

    async def on_start(self) -> None:
        """Do what Faust's own method does, but do not create a Kafka consumer, whose event loop nobody would close."""
        self.finalize()

    async def on_started(self) -> None:
        """Exclude what lives as long as the process from garbage collection."""
        await super().on_started()
        calm_collector()
        loop = asyncio.get_running_loop()
        if self.settings.threads == "together" and len(USABLE) > 1:
            self._affinity = loop.create_task(ThreadAffinity(self._busy_threads).run())
        loop.add_signal_handler(signal.SIGHUP, self._read_secrets)
        self._read_secrets()  # a SIGHUP before this was not handled
        loop.add_signal_handler(signal.SIGUSR1, toggle_debug)
        hear_requests()

    async def on_stop(self) -> None:
        """Drain every stream within one deadline; the pages stay available meanwhile."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_at_once)
        deadline = now() + max(stream.settings.delivery.drain_secs for stream in self.streams)
        clean = await asyncio.gather(*(stream.stop(deadline) for stream in self.streams))
        if self.exit_code == 0:
            # The others continued, but not everything was read, as exit code 0 would mean.
            self.fatal = next((stream.failed for stream in self.streams if stream.failed is not None), None)
            self.exit_code = 1 if self.fatal is not None else 0 if all(clean) else 5
        if self._affinity is not None:
            self._affinity.cancel()
        if self.registry is not None:
            self.registry.close()
        REGISTRY.unregister(self._collector)
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)
        await super().on_stop()

    def _busy_threads(self) -> set[int]:
        return {threading.get_native_id(), *(thread for stream in self.streams for thread in stream.threads)}

    def _stop_at_once(self) -> None:
        """Stop immediately at a second signal: what is in flight is listed, and therefore in doubt."""
        say("second signal: stopping at once; what is in flight is in doubt\n")
        os._exit(5)


def _in_url(host: str) -> str:
    """Return a host as Faust's URL needs it, which has no place for a zone."""
    return f"[{host.partition('%')[0]}]" if ":" in host else host


def _where(settings: Settings) -> str:
    """Return the option with which a command on this machine finds this worker and its token."""
    return f" --config {shlex.quote(str(settings.origin.source.absolute()))}" if settings.origin is not None else ""


def prepare(settings: Settings, *, claimed: Claim | None = None, socket: Path | None = None) -> Connector:
    """Return the application, after checking everything that must be true before it may start.

    Its instance id is claimed here unless it is given.

    Raises `InstanceIdInUseError`, `TopicsMissingError`, or `KafkaTroubleError` if no broker answers in time.
    """
    tune_allocator()
    claimed = claimed or claim(settings)
    _await_broker(settings, claimed.client_id)
    refuse_twin(settings, claimed)
    for stream in settings.streams:
        ensure_topics(settings, stream, claimed.client_id)
    return Connector(settings, claimed, socket=socket)


def _await_broker(settings: Settings, client_id: str) -> None:
    """Wait for a broker to answer, with log lines, for as long as the settings allow."""
    kafka = settings.kafka
    deadline = now() + kafka.startup_timeout_secs
    patience = min(kafka.request_timeout_secs, 5.0)
    topics = Topics(configs.asking(kafka, client_id), patience)
    while True:
        secs = min(patience, max(deadline - now(), 0.1))
        try:
            first_answer(secs, topics.partitions, [], secs)
        except KafkaTroubleError as error:
            left = deadline - now()
            if left <= 0:
                where = f"no broker answers at {kafka.bootstrap_servers} within {kafka.startup_timeout_secs:g} s"
                raise RetriableError(error, where) from error
            log.warning(
                "no broker answers yet",
                bootstrap_servers=kafka.bootstrap_servers,
                code=error.code,
                error=str(error),
                secs_left=round(left),
            )
            time.sleep(min(left, 1.0))
        else:
            return


def ensure_topics(settings: Settings, stream: StreamSettings, client_id: str) -> None:
    """Create missing topics that the stream writes to, if allowed."""
    topics = Topics(configs.asking(settings.kafka, client_id), settings.kafka.request_timeout_secs)
    targets = [stream.outcomes.topic, stream.dead_letters.topic]
    if stream.dead_letters.redrive:
        targets.append(stream.redrive_topic)
    partitions = topics.partitions([*stream.topics, *targets])
    absent = [name for name in stream.topics if not partitions[name]]
    if stream.pattern is not None and not any(map(naming([stream.pattern]), topics.names())):
        absent.append(stream.pattern)
    if absent:
        log.warning("source topics do not exist yet; waiting for them", stream=stream.name, topics=absent)
    if missing := [name for name in targets if not partitions[name]]:
        topics.make(
            missing,
            stream.create_topics,
            partitions=max([1, *(partitions[name] for name in stream.topics)]),
            bootstrap_servers=settings.kafka.bootstrap_servers,
        )
        log.info("topics created", stream=stream.name, topics=missing)


async def serve(connector: Connector) -> None:
    """Run the application until a signal, or a failure that leaves nothing to do, ends it."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    starting = asyncio.ensure_future(connector.start())
    stopping = asyncio.ensure_future(ended.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done() and starting.exception() is None:
        await stopping
    stopping.cancel()
    failure: Any = starting.exception() if starting.done() and not starting.cancelled() else None
    await connector.stop()
    if failure is not None:
        raise failure
