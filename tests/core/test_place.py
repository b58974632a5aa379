"""Where the record is that a committed offset waits for, of all places where it may be."""

import pytest

from connector.core.batching import Batch
from connector.core.chunks import Chunk
from connector.core.partition import PartitionState
from connector.core.place import Place, place_of_oldest
from connector.core.progress import Progress
from connector.core.ranges import RangeSet
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdicts
from tests.core.making import A, B, batch, chunk

OLDEST = 5
OTHERS = (chunk(A, [4, 6]), chunk(B, [OLDEST]), chunk(A, [OLDEST], epoch=2), chunk(A, [OLDEST - 1]))
"""Records around it, its offset in another partition, and the same of another assignment."""


def state(*, next_read: int = 9) -> PartitionState:
    made = PartitionState.at(A, 1, Progress(OLDEST), RangeSet())
    made.next_read = next_read
    return made


def made(batch_id: str, *chunks: Chunk) -> Batch:
    one = batch(*chunks, batch_id=batch_id)
    one.attempts = 3
    return one


def found(where: str, *, has_room: bool = True, next_read: int = 9) -> Place:
    """Return where the record is found that is in this place, with others everywhere."""

    def batches(place: str) -> list[Batch]:
        there = [made("it", chunk(A, [4]), chunk(A, [OLDEST, 6]))] if place == where else []
        return [made("other", *OTHERS), *there]

    results = [Finished(one.chunks, Verdicts(QUEUED), one.id, attempts=one.attempts) for one in batches("answered")]
    return place_of_oldest(
        state(next_read=next_read),
        answered=results,
        posted=batches("posted"),
        waiting=[(float(at), one) for at, one in enumerate(batches("waiting"))],
        ready=batches("ready"),
        has_room=has_room,
    )


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("answered", Place("answered", "it", 3)),
        ("posted", Place("posted", "it", 3)),
        ("waiting", Place("waiting", "it", 3, 1.0)),
        ("ready", Place("ready", "it", 3)),
        ("nowhere", Place("elsewhere")),
    ],
)
def test_the_record_is_found_where_it_is(where: str, place: Place) -> None:
    assert found(where) == place


def test_a_record_that_is_ready_and_has_no_room_is_told_as_such() -> None:
    assert found("ready", has_room=False) == Place("no_room", "it", 3)
    assert found("posted", has_room=False) == Place("posted", "it", 3)


@pytest.mark.parametrize("next_read", [OLDEST - 1, OLDEST])
def test_a_record_that_was_not_read_is_in_no_place(next_read: int) -> None:
    assert found("ready", next_read=next_read) == Place("unread")
