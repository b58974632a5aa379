"""A thread that is lent to calls which may never come back."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from confluent_kafka import KafkaError

from connector.kafka.errors import RetriableError

_T = TypeVar("_T")

LOOK_SECS = 1.0
"""How often it is asked whether a call that has not come back is to be waited for any longer."""

_Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Lent:
    """Makes one call after another in a thread of its own, for as long as it is referred to.

    A call that does not return keeps that thread, and nobody else: not the caller, and not the end of the process,
    which a thread of an executor would hold up. The thread is there from the first call on; one thread makes them all.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=_serve, args=(self._jobs,), name=name, daemon=True)

    def __del__(self) -> None:
        self._jobs.put(None)

    def call(
        self,
        within_secs: float,
        function: Callable[..., _T],
        *arguments: object,
        is_hopeless: Callable[[], bool] = lambda: False,
    ) -> _T:
        """Return what a call returns, or raise what it raises; `RetriableError` when it does not return in time.

        Or when it `is_hopeless`, which is asked now and then. One that waits for another by then is not begun any more:
        nobody would know of what it does.
        """
        if self._thread.ident is None:
            self._thread.start()
        future: Future[_T] = Future()
        self._jobs.put((future, function, arguments))
        deadline = time.monotonic() + within_secs
        while True:
            left = deadline - time.monotonic()
            try:
                return future.result(min(left, LOOK_SECS))
            except TimeoutError as error:
                if future.done():
                    return future.result()  # it came at the last moment, or raises that itself
                if left <= LOOK_SECS or is_hopeless():
                    future.cancel()
                    raise RetriableError(KafkaError(KafkaError._TIMED_OUT)) from error  # noqa: SLF001


def first_answer(timeout_secs: float, function: Callable[..., _T], *arguments: object) -> _T:
    """Return what a call brings that asks brokers first of all, and so waits where none answers.

    In another thread, as a signal such as Ctrl-C ends this one only between calls. The call takes `timeout_secs` at
    most, and says why by itself; only one that has not come back in twice that time raises `RetriableError` from here.
    """
    return Lent("first-answer").call(2 * timeout_secs, function, *arguments)


def _serve(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        future, function, arguments = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 (it is the caller's)
                future.set_exception(error)
        del job, future, function, arguments  # or what they refer to would live until the next call
