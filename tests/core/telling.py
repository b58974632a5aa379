"""A partition in the state that a text spells, one character an offset."""

from connector.core.partition import PartitionState
from connector.core.progress import Progress
from connector.core.ranges import Range, RangeSet, runs
from tests.core.making import A

BASE, MARK = 1_000, 7
SETTLED, DOUBT, ACTIVE, WITHDRAWN, FINISHED, STARTING = "sdawfn"
"""Settled and committed; in doubt; posted; listed, but certainly not accepted; answered; about to start. A dot
waits."""


class Told:
    """A partition, and the part of a tick about it: the state of each offset from the committed one on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.finished, self.starting = self.of(FINISHED), self.of(STARTING)
        settled, doubt = RangeSet(self.of(SETTLED)), RangeSet(self.of(DOUBT))
        self.state = PartitionState(A, 1, BASE, 0, settled, doubt, BASE + len(text), BASE + len(text))
        self.state.active = {1: self.of(ACTIVE, FINISHED)}
        listed = RangeSet(self.of(DOUBT, ACTIVE, FINISHED, WITHDRAWN))
        self.state.committed = Progress(BASE, 0, MARK - 1, settled.copy(), listed)

    def of(self, *kinds: str) -> list[Range]:
        return runs([BASE + at for at, kind in enumerate(self.text) if kind in kinds])
