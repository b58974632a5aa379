"""What is due joins what is ready as far as it could be started."""

from dataclasses import replace

from connector.core.ordering import Lineup
from connector.core.progress import Progress
from connector.core.results import Finished
from connector.core.verdicts import QUEUED, Verdicts
from connector.stream.state import State
from tests.core.making import A, chunk
from tests.stream.making import make_state


def _filled(*, lists: int) -> State:
    """Return a state with a record of each of so many lists, whose windows have passed at 1.0."""
    state = make_state()
    state.flow.assign(A, 1, Progress(0))
    for number in range(lists):
        state.batcher.add(f"list-{number}", chunk(offsets=[number]), now=0.0)
    return state


def _close(state: State) -> int:
    before = len(state.flow.ready)
    with state.changed:
        state.close_due(1.0)
    return len(state.flow.ready) - before


def test_no_more_becomes_ready_than_may_be_under_way() -> None:
    state = _filled(lists=100)

    assert _close(state) == state.limit.limit < 100


def test_a_key_that_is_free_again_makes_no_more_ready_than_that_either() -> None:
    state = _filled(lists=100)
    lineup = state.admission.lineup = Lineup()
    first, second = (replace(chunk(offsets=[offset]), keys=[b"a"]) for offset in (100, 101))
    lineup.admit([("list-0", first), ("list-0", second)], now=0.0)

    with state.changed:
        state.let_in([Finished((first,), Verdicts(QUEUED), "t-1")], 1.0)

    assert lineup.waiting_records == 0
    assert len(state.flow.ready) == state.limit.limit < 100


def test_what_is_ready_and_cannot_start_does_not_keep_others_from_it() -> None:
    """A partition without room for more in flight keeps its batches ready; those of others must get past them."""
    state = _filled(lists=100)
    _close(state)

    assert [_close(state), _close(state)] == [1, 1]


def test_nothing_more_becomes_ready_while_nothing_may_start() -> None:
    state = _filled(lists=100)
    _close(state)
    state.pause("paused by a")

    assert _close(state) == 0
    assert state.batcher.open_records == 100 - state.limit.limit
