"""Calls in a thread of their own that may never return."""

import threading
import time
from concurrent.futures import Future

import pytest

from connector.kafka.call_thread import CallThread
from connector.kafka.errors import RetriableError
from tests.kit.patience import PATIENCE_SECS


def test_calls_bring_what_they_return_and_what_they_raise() -> None:
    call_thread = CallThread("test")

    assert call_thread.call(5, divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        call_thread.call(5, divmod, 7, 0)
    with pytest.raises(TimeoutError):
        call_thread.call(5, Future[None]().result, 0)
    assert call_thread.call(5, len, "after it") == 8


def test_a_call_that_does_not_return_keeps_neither_its_caller_nor_the_end_of_the_process() -> None:
    stuck = threading.Event()
    call_thread = CallThread("stuck")

    with pytest.raises(RetriableError):
        call_thread.call(0.05, stuck.wait)

    (thread,) = [thread for thread in threading.enumerate() if thread.name == "stuck"]
    assert thread.daemon
    stuck.set()
    thread.join(0.1)
    assert thread.is_alive(), "it waits for the next call"
    del call_thread
    thread.join(PATIENCE_SECS)
    assert not thread.is_alive()


def test_a_call_that_is_hopeless_is_not_waited_for_any_longer() -> None:
    stuck, asked = threading.Event(), []

    def should_cancel() -> bool:
        asked.append(time.monotonic())
        return len(asked) == 2

    began = time.monotonic()
    with pytest.raises(RetriableError) as raised:
        CallThread("stuck").call(PATIENCE_SECS, stuck.wait, should_cancel=should_cancel)
    stuck.set()

    assert raised.value.unanswered
    assert len(asked) == 2
    assert time.monotonic() - began < PATIENCE_SECS / 2
