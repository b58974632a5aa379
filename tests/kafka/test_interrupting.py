"""Ctrl-C interrupts the first query of a command at once, even if no broker answers it."""

import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from connector.app.online import check_online
from connector.config.settings import Settings
from connector.kafka.scanning import scanning
from tests.config.conftest import SMALLEST
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import free_port


@pytest.fixture
def interrupting() -> Iterator[None]:
    """Have SIGINT interrupt as it does in a command: others may have left it to something else."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _scan(settings: Settings) -> None:
    with scanning(settings.kafka, client_id="test", group="test") as scanner:
        scanner.spans("dead")


@pytest.mark.usefixtures("interrupting")
@pytest.mark.parametrize("ask", [_scan, check_online], ids=["scan", "check --online"])
def test_a_query_that_no_broker_answers_is_interrupted_at_once(ask: Callable[[Settings], object]) -> None:
    kafka = {"bootstrap_servers": f"127.0.0.1:{free_port()}", "request_timeout_secs": PATIENCE_SECS}
    settings = Settings.model_validate(SMALLEST | {"kafka": kafka})
    main = threading.main_thread().ident or 0
    began = time.monotonic()
    typing = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    typing.start()

    with pytest.raises(KeyboardInterrupt):
        ask(settings)

    assert time.monotonic() - began < PATIENCE_SECS / 2
