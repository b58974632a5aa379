"""No step of the hot path is called per record: counted in calls, so that the result is the same on any machine.

A whole stream runs in this process, from a real broker to the platform and back, under a profiler that counts calls by
caller: Python functions, and C functions that Python code calls. What is mapped over a column in C is not counted, and
is what a record may cost. What is called per request, tick or turn stays far below one call per record, however slow
the machine is.
"""

import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

from connector.config.settings import Settings
from connector.core.batching import Batcher
from connector.core.records import ResultEncoder
from tests.kit.world import World
from tests.stream.making import make_stream

RECORDS: Final = 20_000
MOST: Final = RECORDS // 4
"""A step that is called per record makes four times as many calls; steps per request make a tenth."""
PATIENCE_SECS: Final = 60.0
LOOP: Final = str(Path(asyncio.__file__).parent)


@contextmanager
def counted(calls: Counter[str]) -> Iterator[None]:
    """Count the calls of this thread, and of threads that are started meanwhile, by callee or, for C, by caller."""

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(LOOP):  # turns with the clock, not with the records
            return
        if event == "call" and not code.co_name.startswith("<"):
            calls[f"{code.co_qualname} ({code.co_filename}:{code.co_firstlineno})"] += 1
        elif event == "c_call":
            calls[f"{argument.__qualname__} in {code.co_qualname} ({code.co_filename}:{frame.f_lineno})"] += 1

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def calls_of_a_stream(world: World, result: str = "queued", **stream: Any) -> Counter[str]:
    """Have a stream finish all records of the world with a result, and return what it called how often."""
    world.produce_sends(RECORDS)
    settings = Settings.model_validate(world.settings(stream={"batch": {"max_records": 1_000}, **stream}))
    calls: Counter[str] = Counter()
    failures: list[BaseException] = []

    async def run() -> None:
        stream = make_stream(settings, "hot-path", failures.append)
        await stream.start()
        deadline = time.monotonic() + PATIENCE_SECS
        while stream.status()[result] < RECORDS and not failures and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await stream.stop(time.monotonic() + 10)
        assert not failures
        assert stream.status()[result] == RECORDS

    with counted(calls):
        asyncio.run(run())
    return calls


def too_often(calls: Counter[str]) -> dict[str, int]:
    """Return what was called about once for each record, or more often."""
    return {name: count for name, count in calls.items() if count > MOST}


def test_nothing_is_called_for_each_record(world: World) -> None:
    calls = calls_of_a_stream(world)
    print(f"{calls.total() / RECORDS:.2f} calls a record; most often: {calls.most_common(3)}")

    assert too_often(calls) == {}


MAPPING: Final = {
    "when": "value.to && topic",
    "fields": {
        "to": "value.to",
        "body": {"template": "{{ value.body }} Thank you, {{ value.name | default('friend') }}!"},
        "metadata": {"key": "key", "gone": "value.gone.with_it", "shop": {"const": "ours"}},
    },
}


def test_a_mapping_of_fields_calls_nothing_for_each_record(world: World) -> None:
    calls = calls_of_a_stream(world, mapping=MAPPING)
    print(f"{calls.total() / RECORDS:.2f} calls a record; most often: {calls.most_common(3)}")

    assert too_often(calls) == {}


def test_skipping_records_calls_nothing_for_each_of_them(world: World) -> None:
    """One of two streams on a topic may skip nearly all of it."""
    calls = calls_of_a_stream(world, "skipped", mapping=MAPPING | {"when": "value.to == 'nobody'"})

    assert too_often(calls) == {}


def by_python(wires: list[bytes]) -> int:
    def size(wire: bytes) -> int:
        return wire.__len__()

    return sum([size(wire) for wire in wires])


def by_c(wires: list[bytes]) -> int:
    return sum([len(wire) for wire in wires])


@pytest.mark.parametrize(("step", "name"), [(by_python, "by_python.<locals>.size"), (by_c, "len in by_c")])
def test_a_call_for_each_record_is_found_and_named(
    world: World, monkeypatch: pytest.MonkeyPatch, step: Callable[[list[bytes]], int], name: str
) -> None:
    """The check itself: what anybody might add to the batcher or the results without thinking."""
    add, outcomes = Batcher.add, ResultEncoder.outcomes

    def slower_add(self: Batcher, lane: str | None, chunk: Any, *, now: float) -> Any:
        step(chunk.wire)
        return add(self, lane, chunk, now=now)

    def slower_outcomes(self: ResultEncoder, item: Any) -> Any:
        for chunk in item.chunks:
            step(chunk.values)
        return outcomes(self, item)

    monkeypatch.setattr(Batcher, "add", slower_add)
    monkeypatch.setattr(ResultEncoder, "outcomes", slower_outcomes)

    found = too_often(calls_of_a_stream(world))

    assert any(name in each for each in found), found
