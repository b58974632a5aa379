"""What a redrive topic says about origins: read in steps, and never twice while it is kept."""

from collections.abc import Mapping
from unittest.mock import create_autospec

import pytest

from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Headers, Partition
from connector.core.ranges import Range
from connector.deadletters import earlier
from connector.deadletters.earlier import Earlier
from connector.deadletters.headers import redriven_headers
from connector.kafka.scanning import Scanner
from tests.deadletters.making import headers_of, letter

TOPIC = "sends.redrive"
SPOT = Partition(TOPIC, 0)


class Shelf:
    """A redrive topic of one partition, whose record at each offset is that of the origin of the same offset."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start, self.stop = 0, 10
        self.read: list[Range] = []
        self.scanner = create_autospec(Scanner, instance=True)
        self.scanner.spans.side_effect = lambda _topic, *, since_ms: (
            {SPOT: (max(self.start, since_ms), self.stop)} if since_ms < self.stop else {}
        )
        self.scanner.steps.side_effect = self._steps
        monkeypatch.setattr(earlier, "Scanner", lambda _config, _secs: self.scanner)
        self.earlier = Earlier(KafkaSettings(bootstrap_servers="nowhere:1"), TOPIC, client_id="test", group="test")

    def _steps(self, spans: Mapping[Partition, Range]) -> list[list[Chunk]]:
        self.read += spans.values()
        found: list[list[Chunk]] = []
        for start, stop in spans.values():
            for offset in range(start, stop):
                again: list[Headers | None] = [redriven_headers(letter(offset=offset))]
                found += [[], [Chunk(SPOT, 0, [offset], [b"{}"], headers=again, timestamps=[offset])]]
        return found

    def look(self, since_ms: int) -> None:
        self.earlier.begin(since_ms)
        while not self.earlier.step(0.0):
            pass

    def told(self) -> list[int]:
        return [offset for offset in range(20) if self.earlier.tells(letter(offset=offset))]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(monkeypatch)


def test_what_was_sent_again_is_reported_and_what_failed_again_since_is_not(shelf: Shelf) -> None:
    shelf.look(4)

    assert shelf.told() == [4, 5, 6, 7, 8, 9]
    anew = [*headers_of(offset=5), ("trackly.redrives", b"1")]
    assert not shelf.earlier.tells(letter(headers=anew))


def test_a_look_continues_step_by_step_and_ends_once(shelf: Shelf) -> None:
    shelf.earlier.begin(8)

    ended = [shelf.earlier.step(0.0) for _ in range(5)]

    assert ended == [False, False, False, False, True]
    assert not shelf.earlier.is_looking
    shelf.scanner.close.assert_called_once()


def test_what_was_read_is_not_read_again(shelf: Shelf) -> None:
    for stop, since in ((10, 6), (12, 8), (14, 13), (14, 3)):
        shelf.stop = stop
        shelf.look(since)

    assert shelf.read == [(6, 10), (10, 12), (12, 14), (3, 6)]
    assert shelf.told() == list(range(3, 14))


def test_a_topic_that_was_recreated_is_read_again(shelf: Shelf) -> None:
    shelf.look(0)
    shelf.stop = 3
    shelf.look(0)

    assert shelf.read == [(0, 10), (0, 3)]


def test_what_is_forgotten_is_read_again(shelf: Shelf) -> None:
    shelf.look(8)
    shelf.earlier.forget()
    before = shelf.told()
    shelf.look(9)

    assert (before, shelf.told(), shelf.read) == ([], [9], [(8, 10), (9, 10)])


def test_a_look_that_is_given_up_is_made_again(shelf: Shelf) -> None:
    shelf.earlier.begin(8)
    shelf.earlier.step(0.0)
    shelf.earlier.close()
    shelf.look(8)

    assert shelf.told() == [8, 9]
    assert shelf.scanner.close.call_count == 2
