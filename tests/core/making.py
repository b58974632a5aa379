"""Chunks and batches for the core's tests, built in one line, and their contents as plain numbers."""

import string
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from hypothesis import strategies as st

from connector.core.batching import Batch, wire_size
from connector.core.chunks import Chunk, Partition

A: Final = Partition("alpha", 0)
B: Final = Partition("beta", 1)
C: Final = Partition("gamma", 2)

Position = tuple[Partition, int]


def chunk(
    partition: Partition = A,
    offsets: Iterable[int] = (0,),
    *,
    epoch: int = 1,
    sizes: Sequence[int] | None = None,
) -> Chunk:
    """Return a chunk whose records contain their position; with `sizes`, records of about so many bytes.

    As for an event that has the API's shape, the column for the request is the column of values itself.
    """
    places = list(offsets)
    values: list[bytes] = [b"%s@%d" % (partition.topic.encode(), offset) for offset in places]
    if sizes is not None:
        values = [value.ljust(size, b".")[:size] for value, size in zip(values, sizes, strict=True)]
    made = Chunk(partition, epoch, places, list(values))
    made.wire = made.values  # type: ignore[assignment] # no null is among them
    return made


def batch(*chunks: Chunk, batch_id: str = "t-1", envelope: int = 0, family: int = 1) -> Batch:
    """Return a batch of these chunks."""
    count = sum(map(len, chunks))
    return Batch(batch_id, None, chunks, count, wire_size(chunks, envelope), "drain", family=family)


def positions(chunks: Iterable[Chunk]) -> list[Position]:
    """Return the positions of the records of some chunks, in the order of a request."""
    return [(piece.partition, offset) for piece in chunks for offset in piece.offsets]


def rows(pieces: Iterable[Chunk]) -> Iterator[tuple[object, ...]]:
    """Yield each record with everything in its columns."""
    for piece in pieces:
        for at, offset in enumerate(piece.offsets):
            yield (
                piece.partition,
                piece.epoch,
                offset,
                piece.values[at],
                piece.key(at),
                tuple(piece.header_list(at)),
                None if piece.timestamps is None else piece.timestamps[at],
                None if piece.lists is None else piece.lists[at],
                None if piece.wire is None else piece.wire[at],
                piece.own_list,
                piece.resent,
            )


def weighted(letters: str, *, min_size: int = 0, max_size: int) -> st.SearchStrategy[str]:
    """Draw a text of these letters, of each as often as it occurs: `st.text` takes an alphabet for a set."""
    places = string.ascii_letters[: len(letters)]
    table = str.maketrans(places, letters)
    return st.text(places, min_size=min_size, max_size=max_size).map(lambda drawn: drawn.translate(table))


def rising(*, max_size: int = 40, top: int = 200) -> st.SearchStrategy[list[int]]:
    """Draw ascending offsets, with holes between them."""
    return st.sets(st.integers(0, top), min_size=1, max_size=max_size).map(sorted)


@st.composite
def chunks(draw: st.DrawFn, partition: Partition = A, *, offsets: st.SearchStrategy[list[int]] | None = None) -> Chunk:
    """Draw a chunk with any mix of columns: all of them, some, or offsets and values alone."""
    places = draw(offsets if offsets is not None else rising(max_size=12))
    count = len(places)

    def column(cells: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(cells, min_size=count, max_size=count))

    values = column(st.none() | st.binary(max_size=6))
    wire = draw(st.sampled_from(["none", "own", "spliced"]))
    if wire == "spliced":
        values = [value or b"" for value in values]
    return Chunk(
        partition,
        draw(st.integers(1, 3)),
        range(places[0], places[-1] + 1) if places[-1] - places[0] + 1 == count and draw(st.booleans()) else places,
        values,  # type: ignore[arg-type] # as drawn above
        keys=draw(st.none() | st.just(...)) and column(st.none() | st.binary(max_size=3)),  # type: ignore[arg-type]
        headers=draw(st.none() | st.just(...))  # type: ignore[arg-type]
        and column(st.none() | st.just([("h", b"v")])),
        timestamps=draw(st.none() | st.just(...)) and column(st.integers(0, 9)),  # type: ignore[arg-type]
        lists=draw(st.none() | st.just(...)) and column(st.sampled_from(["+1", "+2"])),  # type: ignore[arg-type]
        wire={"none": None, "own": [b"w%d" % place for place in places], "spliced": values}[wire],  # type: ignore[arg-type]
        own_list=draw(st.booleans()),
        resent=draw(st.booleans()),
    )
