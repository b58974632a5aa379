"""Schemas by id from a schema registry.

One registry serves all streams of a process, since a schema never changes under its id. Queries run in threads of their
own, so that a decoder waits for a bounded time whatever happens to the query. An answer is either about a record's
schema (found, unknown, or unusable), or shows that the registry does not work: only the latter is a `FormatAwayError`,
for which no record is at fault.
"""

import json
import threading
import time
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx

from connector import __version__
from connector.config.certificates import client_context
from connector.config.formats import SchemaRegistrySettings
from connector.config.secrets import Secrets
from connector.core.verdicts import Verdict
from connector.shaping.decoded import FormatAwayError
from connector.shaping.refusing import refused

SchemaKey = int | str
"""How a record names its schema: by the registry's number, or by a GUID."""

THREADS: Final = 4
MAX_REFERENCES: Final = 64
"""Schemas that one schema may refer to, on all levels together."""
MAX_UNKNOWN: Final = 10_000
"""Unknown ids that are cached: a producer of garbage uses a new one for each record."""
MAX_ID: Final = 2**31 - 1
"""Registries number their schemas with 32-bit signed integers."""
MAX_TEXT: Final = 300

EIGHT_BYTES: Final = (
    ": the frame has an id of eight bytes, perhaps, as Apicurio's serializers before version 3 write it; have the "
    "producer set apicurio.registry.as-confluent to true (from version 3 on, leave apicurio.registry.id-handler out)"
)
"""The first four of them are 0, and no registry uses that id."""

_NOT_FOUND: Final = frozenset({40401, 40402, 40403})
"""Codes of the registry's own 404: no such subject, version, schema. Any other 404 comes from something else."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema from the registry; `references` are its references by name, in an order that can be parsed."""

    kind: str
    """`AVRO`, `PROTOBUF` or `JSON`."""
    text: str = field(repr=False)
    references: Mapping[str, "Schema"] = field(default_factory=dict, repr=False)


Found = Schema | Verdict
"""A schema, or the verdict of every record that names it."""


class _UnusableError(Exception):
    """The registry has the schema, and it cannot be used."""


class _UnknownError(Exception):
    """The registry says that it does not exist."""


class _NoPlaceError(Exception):
    """A 404 that is not the registry's own."""


class SchemaRegistry:
    """Schemas by id, cached; thread-safe. `now` is a monotonic clock.

    Credentials are looked up at each query, since those from files may change.
    """

    def __init__(
        self, settings: SchemaRegistrySettings, secrets: Secrets, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = settings.url
        self._settings = settings
        self._secrets = secrets
        self._now = now
        self._lock = threading.Lock()
        self._schemas: OrderedDict[SchemaKey, Schema] = OrderedDict()
        self._without: OrderedDict[SchemaKey, tuple[float, Verdict]] = OrderedDict()
        """Ids without a usable schema, and until when this is cached."""
        self._asked: dict[SchemaKey, Future[Found]] = {}
        self._client: httpx.Client | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="schema-registry")

    def close(self) -> None:
        """Stop all queries."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._drop_client()

    def find(self, keys: Iterable[SchemaKey]) -> dict[SchemaKey, Found]:
        """Return the result for each key, within `timeout_secs`; raises `FormatAwayError` if that is impossible.

        Results that arrived meanwhile are cached, so that the next call continues from there.
        """
        found: dict[SchemaKey, Found] = {}
        asked: dict[SchemaKey, Future[Found]] = {}
        with self._lock:
            for key in keys:
                known = self._known(key)
                if known is not None:
                    found[key] = known
                    continue
                if key not in self._asked:
                    self._asked[key] = self._submit(key)
                asked[key] = self._asked[key]
        if not asked:
            return found
        wait(asked.values(), self._settings.timeout_secs, return_when=FIRST_EXCEPTION)
        self._take_back(asked)
        answers = {key: future.result() for key, future in asked.items() if future.done() and not future.cancelled()}
        if len(answers) < len(asked):  # some are late, or were taken back by another stream
            raise self._away(f"no answer within {self._settings.timeout_secs:g} s")
        return found | answers

    def ping(self) -> None:
        """Query something that any registry has; raises `FormatAwayError` if it does not answer like one."""
        try:
            answer = self._get("subjects")
        except _UnusableError:
            return  # too many subjects to read: it is a registry
        except (_UnknownError, _NoPlaceError) as error:
            raise self._away(str(error)) from error
        if not isinstance(answer, list):
            raise self._away("the answer is JSON, but no list of subjects")

    def _submit(self, key: SchemaKey) -> Future[Found]:
        try:
            return self._threads.submit(self._ask, key)
        except RuntimeError as error:  # closed
            raise self._away("nothing is asked any more") from error

    def _known(self, key: SchemaKey) -> Found | None:
        schema = self._schemas.get(key)
        if schema is not None:
            self._schemas.move_to_end(key)
            return schema
        until, verdict = self._without.get(key, (0.0, None))
        return verdict if self._now() < until else None

    def _take_back(self, asked: Mapping[SchemaKey, Future[Found]]) -> None:
        """Cancel queries that were not started, so that they cannot pile up."""
        with self._lock:
            for key, future in asked.items():
                if future.cancel() and self._asked.get(key) is future:
                    del self._asked[key]

    # ------------------------------------------------------------------ the registry's threads

    def _ask(self, key: SchemaKey) -> Found:
        """Return what the registry has for a key, and cache it."""
        try:
            found = self._fetch(key)
        except BaseException:
            with self._lock:
                self._asked.pop(key, None)
            raise
        with self._lock:
            self._asked.pop(key, None)
            if isinstance(found, Schema):
                self._schemas[key] = found
                if len(self._schemas) > self._settings.cached_schemas:
                    self._schemas.popitem(last=False)
            else:
                self._without[key] = (self._now() + self._settings.unknown_id_secs, found)
                if len(self._without) > MAX_UNKNOWN:
                    self._without.popitem(last=False)
        return found

    def _fetch(self, key: SchemaKey) -> Found:
        path = f"schemas/ids/{key}" if isinstance(key, int) else f"schemas/guids/{key}"
        named = f"schema {key}"
        if isinstance(key, int) and key > MAX_ID:
            # Confluent's registry answers a 404 that looks like a wrong address, which would not count as an answer.
            return refused("schema_not_found", f"no registry gives a schema a number as large as {key}")
        try:
            return self._schema(self._get(path), iter(range(MAX_REFERENCES)))
        except _UnknownError as error:
            if isinstance(error, _UnknownReferenceError):
                return refused("schema_unusable", f"{named} refers to what the registry does not have: {error}")
            return refused("schema_not_found", f"the registry does not know {named}{EIGHT_BYTES if key == 0 else ''}")
        except _NoPlaceError as error:
            if isinstance(key, int):
                raise self._away(str(error)) from error
            self.ping()  # not every registry knows GUIDs
            return refused("schema_not_found", f"the registry does not know {named}, or no GUIDs at all")
        except _UnusableError as error:
            return refused("schema_unusable", f"{named}: {error}")

    def _schema(self, answer: Any, budget: Iterator[int]) -> Schema:
        """Return a schema with its references; `budget` has an item for each that may still be fetched."""
        if not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
            raise self._away("the answer is JSON, but no schema")
        kind = answer.get("schemaType") or "AVRO"
        references: dict[str, Schema] = {}
        named = answer.get("references") or []
        for reference in named if isinstance(named, list) else [named]:
            match reference:
                case {"name": str(name), "subject": str(subject), "version": int(version)}:
                    if next(budget, None) is None:  # also ends circular references
                        raise _UnusableError(f"draws in more than {MAX_REFERENCES} other schemas, or itself")
                    # A version that was deleted is still what the schema was written with.
                    path = f"subjects/{quote(subject, safe='', errors='replace')}/versions/{version}?deleted=true"
                    try:
                        inner = self._schema(self._get(path), budget)
                    except _UnknownError as error:
                        raise _UnknownReferenceError(f"{subject} version {version}") from error
                    for known, found in (*inner.references.items(), (name, inner)):
                        references.setdefault(known, found)
                case _:
                    raise _UnusableError("has a reference without name, subject and version")
        return Schema(str(kind), answer["schema"], references)

    def _get(self, path: str) -> Any:
        """Return a decoded answer of the registry."""
        status, body = self._exchange(f"{self.url}/{path}", self._now() + self._settings.timeout_secs)
        if body is None:
            raise _UnusableError(f"is larger than schema_registry.max_schema_bytes ({self._settings.max_schema_bytes})")
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            if status == 200:
                what = "HTML" if body.lstrip()[:1] == b"<" else "no JSON"
                raise self._away(f"the answer is {what}: is schema_registry.url right?") from None
            answer = None
        if status == 200:
            return answer
        text = f"HTTP {status}{_HINTS.get(status, '')}"
        if status != 404:
            raise self._away(text)
        if isinstance(answer, dict) and answer.get("error_code") in _NOT_FOUND:
            raise _UnknownError(text)
        raise _NoPlaceError(text)

    def _exchange(self, url: str, deadline: float) -> tuple[int, bytes | None]:
        """Return status and body of a response; None as body if it is too large."""
        headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json", **self._authorization()}
        parts, size = [], 0
        try:
            with self._open().stream("GET", url, headers=headers) as response:
                for part in response.iter_raw():
                    size += len(part)
                    if size > self._settings.max_schema_bytes:
                        return response.status_code, None if response.status_code == 200 else b""
                    if self._now() > deadline:
                        raise self._away(f"no answer within {self._settings.timeout_secs:g} s")
                    parts.append(part)
                return response.status_code, b"".join(parts)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, RuntimeError) as error:
            self._drop_client()
            # For a response that is not HTTP, httpx quotes a line, which may be our own request, with credentials.
            told = "no HTTP, or not all of it" if isinstance(error, httpx.RemoteProtocolError) else error
            raise self._away(f"{type(error).__name__}: {told}".rstrip(": ")) from error

    def _authorization(self) -> dict[str, str]:
        """Return the authorization header, if the settings have credentials."""
        token = self._secrets.registry_token()
        if token is not None:
            return {"Authorization": f"Bearer {token.get_secret_value()}"}
        if self._settings.username is None:
            return {}
        password = self._secrets.registry_password()
        pair = f"{self._settings.username}:{'' if password is None else password.get_secret_value()}".encode()
        return {"Authorization": f"Basic {b64encode(pair).decode()}"}

    def _open(self) -> httpx.Client:
        """Return the client; after a failure a new one, which reads the certificate files again."""
        with self._lock:
            if self._client is None:
                self._client = httpx.Client(
                    verify=client_context(self._settings.tls),
                    timeout=self._settings.timeout_secs,
                    trust_env=False,
                    headers={"User-Agent": f"trackly-connector/{__version__}", "Accept-Encoding": "identity"},
                )
            return self._client

    def _drop_client(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _away(self, text: str) -> FormatAwayError:
        return FormatAwayError("schema_registry", f"the schema registry at {self.url} is away: {text}"[:MAX_TEXT])


_HINTS: Final = {
    401: ": see schema_registry.username and password, or token",
    403: ": see schema_registry.username and password, or token",
    404: ": is schema_registry.url right?",
}


class _UnknownReferenceError(_UnknownError):
    """A schema that another one refers to does not exist."""
