"""Which worker this is: its instance id, and that no other live worker has it.

Two live workers with one id fence each other endlessly, so the later one must notice before it uses a transactional id.
On one host, a file lock shows it; across hosts, the consumer group does, since each client id names its process.
"""

import fcntl
import os
import re
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from errno import EPERM
from pathlib import Path
from typing import IO

from connector.config.settings import Settings
from connector.kafka import configs
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.groups import Member, members
from connector.telemetry.logging import get_logger

log = get_logger("app")

MAX_SLOTS = 1_000

_GONE_SECS = 1.0
"""How long the lock of a process that was just killed is waited for: the kernel takes a moment to end it."""

_FIRST_ANSWER_SECS = 2.0
_ANSWER_SECS = 10.0
"""Timeout for a group's coordinator, first and maximum.

While a cluster creates its first internal topic, a query of librdkafka (2.15) may wait for its whole timeout; the same
query is answered at once when it is repeated.
"""


class InstanceIdInUseError(Exception):
    """Another live worker has this instance id."""


class TemporaryFolderError(Exception):
    """The folder for temporary files is not writable."""


@contextmanager
def temporary_files() -> Iterator[None]:
    """Raise `TemporaryFolderError` for errors of the system when temporary files are created."""
    try:
        yield
    except OSError as error:
        raise TemporaryFolderError(f"the folder of temporary files cannot be used: {error}") from error


def make_own(folder: Path) -> None:
    """Create a temporary folder that nobody else may write to.

    Raises OSError if the name is taken by another's: its owner could make us overwrite what it links to, or run what is
    in it.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(EPERM, "it does not belong to us alone; remove it", str(folder))


@dataclass(slots=True)
class Claim:
    """An instance id that is ours while the lock is held; `client_id` tells others which process this is."""

    instance_id: str
    client_id: str
    lock: IO[str] | None
    """None in a worker whose supervisor holds the lock."""


def claim(settings: Settings) -> Claim:
    """Return the instance id from the settings, else the host name and the first free slot on this host."""
    if settings.instance_id is not None:
        return _claim_named(settings.instance_id)
    return _claim_slots(1)[0]


def claim_all(settings: Settings) -> list[Claim]:
    """Return an instance id for each worker of a supervisor, which holds them for its lifetime.

    With `instance_id` they are that plus the ordinal; without, the host name and the first free slots. Nobody can take
    the id of a worker that has died before it is restarted.
    """
    if settings.instance_id is not None:
        return [_claim_named(f"{settings.instance_id}-{ordinal}") for ordinal in range(settings.workers)]
    return _claim_slots(settings.workers)


def take_over(instance_id: str) -> Claim:
    """Return the claim of a worker to an id that its supervisor holds."""
    return Claim(instance_id, _client_id(instance_id), None)


def _claim_named(instance_id: str) -> Claim:
    deadline = time.monotonic() + _GONE_SECS
    while (lock := _lock(instance_id)) is None:
        if time.monotonic() > deadline:
            raise InstanceIdInUseError(
                f"a worker with instance_id {instance_id!r} runs on this host already; give each its own"
            )
        time.sleep(0.05)
    return Claim(instance_id, _client_id(instance_id), lock)


def _claim_slots(count: int) -> list[Claim]:
    found: list[Claim] = []
    for slot in range(MAX_SLOTS):
        instance_id = f"{_host()}-{slot}"
        lock = _lock(instance_id)
        if lock is not None:
            found.append(Claim(instance_id, _client_id(instance_id), lock))
            if len(found) == count:
                return found
    raise InstanceIdInUseError(f"{MAX_SLOTS} workers run on this host; set instance_id for each")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:180] or "host"


def _client_id(instance_id: str) -> str:
    host = _host()
    return f"{instance_id}@{host}:{os.getpid()}:{_started(os.getpid())}"


def _lock(instance_id: str) -> IO[str] | None:
    """Return the lock of an id, held until the process ends, or None if another process holds it."""
    with temporary_files():
        folder = Path(tempfile.gettempdir()) / f"trackly-connector-{os.getuid()}"
        make_own(folder)
        handle = (folder / f"{instance_id}.lock").open("w")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def refuse_twin(settings: Settings, claimed: Claim, *, wait: Callable[[float], None] = time.sleep) -> None:
    """Raise `InstanceIdInUseError` if a live worker elsewhere has our id in one of our groups.

    A dead worker's member is listed until its session times out: on this host, its process shows that it is dead; for
    another host, we wait for that long and check again.
    """
    for stream in settings.streams:
        config = configs.asking(settings.kafka, claimed.client_id)
        deadline = time.monotonic() + settings.kafka.session_timeout_secs + 2
        patience = _FIRST_ANSWER_SECS
        while True:
            try:
                twins = [m for m in members(config, stream.group, patience) if _is_twin(m, claimed)]
            except KafkaTroubleError as error:
                if error.unauthorized or error.code in {"_UNSUPPORTED_FEATURE", "UNSUPPORTED_VERSION"}:
                    return  # without this permission, the broker's own fencing must do
                if time.monotonic() > deadline + settings.kafka.startup_timeout_secs:
                    raise
                log.warning("group cannot be asked yet", group=stream.group, code=error.code, error=str(error))
                patience = min(2 * patience, _ANSWER_SECS)
                wait(0.5)  # a new cluster has no coordinator at once
                continue
            if not twins:
                break
            if time.monotonic() > deadline or any(_lives_here(m, claimed) for m in twins):
                raise InstanceIdInUseError(
                    f"a live worker in group {stream.group} has instance_id {claimed.instance_id!r} "
                    f"({twins[0].client_id}); give each worker its own"
                )
            wait(0.5)


def _is_twin(member: Member, claimed: Claim) -> bool:
    if member.client_id.startswith(claimed.client_id) or not member.client_id.startswith(f"{claimed.instance_id}@"):
        return False
    host, pid, started = _process(member.client_id)
    ours = _process(claimed.client_id)[0]
    return host != ours or _started(pid) == started


def _lives_here(member: Member, claimed: Claim) -> bool:
    host, pid, started = _process(member.client_id)
    return host == _process(claimed.client_id)[0] and _started(pid) == started


def _process(client_id: str) -> tuple[str, int, int]:
    """Return host, process id and start time from a client id."""
    match = re.search(r"@(.*):(\d+):(\d+)", client_id)
    return (match[1], int(match[2]), int(match[3])) if match else ("", 0, -1)


def _started(pid: int) -> int:
    """Return the start time of a process of this host, in clock ticks since boot; 0 if there is none.

    A zombie is listed until its parent collects it: forever, in a container whose first process does not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    state, *fields = stat.rpartition(")")[2].split()
    return 0 if state in "ZX" else int(fields[18])
