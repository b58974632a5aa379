"""Outcomes tell how far a stream had come, whatever else lies in their topic."""

from hypothesis import given
from hypothesis import strategies as st

from connector.core.chunks import Chunk, Partition
from connector.core.records import ResultEncoder
from connector.core.results import Finished
from connector.core.verdicts import Verdict, Verdicts
from connector.stream.last_outcomes import places_in

_SPOTS = st.tuples(
    st.sampled_from(["sends", "codes", "sends under its former name"]),
    st.sampled_from(["send", "revenue"]),
    st.sampled_from(["a", "b"]),
    st.integers(0, 2),
    st.integers(0, 99),
)


def _outcome(stream: str, operation: str, topic: str, number: int, offset: int) -> str:
    chunk = Chunk(Partition(topic, number), 1, [offset], [b"{}"])
    item = Finished((chunk,), Verdicts(Verdict("queued", "queued", "", "", 200)), "worker-0-1", 1, 1, 0, 48)
    (outcomes,) = ResultEncoder(stream, operation, f"trackly-connector.{stream}").outcomes(item)
    return outcomes.values[0]


@given(
    st.lists(_SPOTS),
    st.lists(st.sampled_from([None, b"", b"{", b"[]", b'{"stream":"sends","operation":"send"}', b"\xff"])),
)
def test_the_highest_offset_of_each_partition_that_outcomes_of_the_stream_and_of_none_beside_it_name(
    positions: list[tuple[str, str, str, int, int]], others: list[bytes | None]
) -> None:
    values = [_outcome(*position).encode() for position in positions] + others
    chunks = [Chunk(Partition("outcomes", 0), 0, [at], [value]) for at, value in enumerate(values)]

    expected: dict[Partition, int] = {}
    for stream, operation, topic, number, offset in positions:
        if operation == "send" and stream != "codes":
            expected[Partition(topic, number)] = max(offset, expected.get(Partition(topic, number), 0))
    assert places_in(chunks, "send", {"codes"}) == expected
