"""A thread for calls that may never return."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from confluent_kafka import KafkaError

from connector.kafka.errors import RetriableError

_T = TypeVar("_T")

CHECK_SECS = 1.0
"""How often to check whether waiting for a call still makes sense."""

_Job = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class CallThread:
    """Makes one call after another in a thread of its own, for as long as this object is referenced.

    A call that does not return blocks only that thread: neither the caller nor the exit of the process, which a thread
    of an executor would delay. The thread starts with the first call.
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
        should_cancel: Callable[[], bool] = lambda: False,
    ) -> _T:
        """Return what a call returns, or raise what it raises; `RetriableError` if it does not return in time.

        Also if `should_cancel` becomes true, which is checked now and then. A call that is still waiting for an earlier
        one is then cancelled: nobody would know of its effect.
        """
        if self._thread.ident is None:
            self._thread.start()
        future: Future[_T] = Future()
        self._jobs.put((future, function, arguments))
        deadline = time.monotonic() + within_secs
        while True:
            left = deadline - time.monotonic()
            try:
                return future.result(min(left, CHECK_SECS))
            except TimeoutError as error:
                if future.done():
                    return future.result()  # it returned at the last moment, or raised TimeoutError itself
                if left <= CHECK_SECS or should_cancel():
                    future.cancel()
                    raise RetriableError(KafkaError(KafkaError._TIMED_OUT)) from error  # noqa: SLF001


def first_answer(timeout_secs: float, function: Callable[..., _T], *arguments: object) -> _T:
    """Return the result of the first call to the brokers, which waits if none answers.

    It runs in another thread because a signal such as Ctrl-C interrupts this one only between calls. The call itself
    takes at most `timeout_secs` and raises its own error; `RetriableError` is raised if it has not returned after twice
    that.
    """
    return CallThread("first-answer").call(2 * timeout_secs, function, *arguments)


def _serve(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        future, function, arguments = job
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 (it is the caller's)
                future.set_exception(error)
        del job, future, function, arguments  # otherwise what they refer to would live until the next call
