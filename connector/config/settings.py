"""The settings of one connector: the content of a settings file after loading.

`load.py` reads the file and runs the checks across settings (`checks`); code that builds these models itself, as tests
do, gets only the checks of single values.
"""

from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PrivateAttr

from connector.config.formats import FormatSettings, SchemaRegistrySettings
from connector.config.hosts import check_listening_host, check_url, url_by
from connector.config.kafka import KafkaSettings
from connector.config.model import Model, Seconds, Secret, secret_by
from connector.config.problems import KeyPath
from connector.config.references import Origin
from connector.config.streams import StreamSettings
from connector.config.trackly import TracklySettings, check_api_key, check_header

MIN_TOKEN: Final = 16
"""Characters of a token: anything easily typed is easily guessed."""


def check_web_token(value: str) -> str:
    """Return the token if it is long enough and valid in a header; errors do not repeat it."""
    check_api_key(value)
    if len(value) < MIN_TOKEN:
        raise ValueError(f"must have at least {MIN_TOKEN} characters")
    return value


def _peer(value: str) -> str:
    """Return the URL of another member's pages, without a slash at its end."""
    address = value if "://" in value else f"http://{value}"
    url = check_url(address, instead="; peers know each other by web.token")
    if urlsplit(url).port is None and "://" not in value:
        raise ValueError("must be HOST:PORT, or a URL")
    return url


class WebSettings(Model):
    """The pages: health, status, metrics, and the console."""

    enabled: bool = True
    """Whether the pages are served."""
    host: Annotated[str, AfterValidator(check_listening_host)] = Field(default="127.0.0.1", min_length=1)
    """Address to listen on; `0.0.0.0` for every interface."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port to listen on; 0 for any free one."""
    token: Annotated[Secret, secret_by(check_web_token)] | None = None
    """Whoever has it may pause and resume streams, and log in to the console; at least 16 characters. Give it by
    reference; given by file, it is re-read on SIGHUP. Left out, nothing can be changed through the pages."""
    peers: Annotated[list[Annotated[str, AfterValidator(_peer)]], Field(max_length=64)] = Field(default_factory=list)
    """Pages of the group's members on other machines, as `HOST:PORT` or URLs, for the console to show the whole group;
    a name that resolves to several addresses, such as that of a headless service, stands for all of them. The worker's
    own address may be among them. All need the same `web.token`."""


class LogSettings(Model):
    """What is logged, and in which format."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is written. warning: nothing was lost; error: someone must act."""
    format: Literal["auto", "json", "console"] = "auto"
    """One JSON object per line, or plain text; `auto`: text on a terminal."""


class TraceSettings(Model):
    """Spans of batches, sent with OTLP over HTTP; needs the extra `otel` (`pip install 'trackly-connector[otel]'`)."""

    enabled: bool = False
    """Whether each batch has a span."""
    endpoint: Annotated[str, url_by("; a collector knows us by traces.headers")] = "http://localhost:4318/v1/traces"
    """Where spans are posted, path included."""
    headers: dict[
        Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,100}$")], Annotated[Secret, secret_by(check_header)]
    ] = Field(default_factory=dict)
    """Headers of each post, such as a token. Give the values by reference; given by file, they are re-read at every
    probe of a hold and on SIGHUP."""
    allow_plain_http: bool = False
    """Whether `headers` may go to another machine over plain http, where anyone can read them."""
    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the batches whose spans are sent; headers of results are written for all."""
    max_links: Annotated[int, Field(ge=0, le=1_000)] = 32
    """Records of a batch whose `traceparent` is looked up, to link the span to theirs: evenly spread over the batch."""
    timeout_secs: Seconds = 10.0
    """How long a post of spans may take, in seconds."""
    service_name: str = Field(default="trackly-connector", min_length=1)
    """Name of the service in traces."""


class BufferSettings(Model):
    """How much memory the records of one stream may take in one process; each worker has as much."""

    max_bytes: Annotated[int, Field(ge=48_000_000, le=64_000_000_000)] = 80_000_000
    """Bytes per stream and worker over all stages, including librdkafka's prefetch and 8 MiB of results. While brokers
    do not take results, up to `delivery.max_tick_bytes` of them are queued in addition."""


class ShutdownSettings(Model):
    """How long a shutdown may take in total."""

    grace_secs: Seconds = 60.0
    """How long whoever stops the process waits before killing it, in seconds (`terminationGracePeriodSeconds`,
    `stop_grace_period`, `TimeoutStopSec`)."""


class HealthSettings(Model):
    """How a stream that stands still affects `/healthz`."""

    stalled_secs: Seconds = 300.0
    """How long records may wait without the committed offset of their partition moving, in seconds, before the
    standstill is reported; if the cause is unknown, the page turns red."""


class ReadinessSettings(Model):
    """How a stream that holds affects `/readyz`."""

    on_hold: Literal["ready", "not_ready"] = "ready"
    """`ready`: a hold does not turn the page red, since that would block the roll-out that brings the fix."""


class Settings(Model):
    """All settings of a connector."""

    instance_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")] | None = None
    """Unique name of this worker; when left out, the StatefulSet's host name, or the host name and a free slot."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that share the partitions on this machine, under one supervisor; `run --workers` overrides it. Each has
    the instance id with the suffix `-0`, `-1` and so on. Faust's own command starts one, whatever this says."""
    kafka: KafkaSettings
    """The brokers."""
    trackly: TracklySettings
    """The platform."""
    schema_registry: SchemaRegistrySettings | None = None
    """The schema registry, for streams whose `format` needs it."""
    streams: list[StreamSettings] = Field(min_length=1)
    """Flows from topics to operations."""
    web: WebSettings = Field(default_factory=WebSettings)
    """Pages for health, status and metrics."""
    log: LogSettings = Field(default_factory=LogSettings)
    """Logs."""
    traces: TraceSettings = Field(default_factory=TraceSettings)
    """Traces (OpenTelemetry)."""
    docs_url: Annotated[str, url_by()] | None = None
    """Where you host this documentation; holds then link to their runbook page there, otherwise to its path in the
    source tree."""
    buffer: BufferSettings = Field(default_factory=BufferSettings)
    """Memory."""
    threads: Literal["together", "free"] = "together"
    """`together`: while they are busy, the threads that compete for the interpreter lock are kept on one CPU, which is
    chosen again each second (Linux). `free`: no CPU affinity."""
    shutdown: ShutdownSettings = Field(default_factory=ShutdownSettings)
    """Stopping."""
    health: HealthSettings = Field(default_factory=HealthSettings)
    """Health."""
    readiness: ReadinessSettings = Field(default_factory=ReadinessSettings)
    """Readiness."""

    _origin: Origin | None = PrivateAttr(default=None)

    @property
    def origin(self) -> Origin | None:
        """Return where these settings were read, or None if code built them."""
        return self._origin

    @property
    def streams_by_name(self) -> dict[str, StreamSettings]:
        """Return the streams by their names."""
        return {stream.name: stream for stream in self.streams}

    @property
    def formats(self) -> dict[KeyPath, FormatSettings]:
        """Return the formats of all topics of all streams, each by its path."""
        return {
            ("streams", index, *below): chosen
            for index, stream in enumerate(self.streams)
            for below, chosen in stream.formats.items()
        }

    def with_workers(self, count: int) -> Self:
        """Return the same settings for another number of workers."""
        return self.model_copy(update={"workers": count})

    def with_origin(self, origin: Origin) -> Self:
        """Return the same settings with their origin."""
        known = self.model_copy()
        known._origin = origin  # noqa: SLF001  (our own copy)
        return known
