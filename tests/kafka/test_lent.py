"""Calls in a thread of their own that may never return."""

import threading
import time
from concurrent.futures import Future

import pytest

from connector.kafka.errors import RetriableError
from connector.kafka.lent import Lent


def test_calls_bring_what_they_return_and_what_they_raise() -> None:
    lent = Lent("test")

    assert lent.call(5, divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        lent.call(5, divmod, 7, 0)
    with pytest.raises(TimeoutError):
        lent.call(5, Future[None]().result, 0)
    assert lent.call(5, len, "after it") == 8


def test_a_call_that_does_not_return_keeps_neither_its_caller_nor_the_end_of_the_process() -> None:
    stuck = threading.Event()
    lent = Lent("stuck")

    with pytest.raises(RetriableError):
        lent.call(0.05, stuck.wait)

    (thread,) = [thread for thread in threading.enumerate() if thread.name == "stuck"]
    assert thread.daemon
    stuck.set()
    thread.join(0.1)
    assert thread.is_alive(), "it waits for the next call"
    del lent
    thread.join(5)
    assert not thread.is_alive()


def test_a_call_that_is_hopeless_is_not_waited_for_any_longer() -> None:
    stuck, asked = threading.Event(), []

    def is_hopeless() -> bool:
        asked.append(time.monotonic())
        return len(asked) == 2

    began = time.monotonic()
    with pytest.raises(RetriableError) as raised:
        Lent("stuck").call(30, stuck.wait, is_hopeless=is_hopeless)
    stuck.set()

    assert raised.value.unanswered
    assert len(asked) == 2
    assert time.monotonic() - began < 15
