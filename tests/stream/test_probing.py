"""What a probe's answer says, by itself: whether a batch would tell more."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from connector.core.breaker import Hold
from connector.core.verdicts import Reply
from connector.stream.probing import says_more_with_a_batch

HOLDS: Final = [None, *(Hold(reason, 0.0, "", "probe") for reason in ("outage", "unauthorized"))]


@given(
    st.sampled_from(["answered", "not_sent", "lost"]),
    st.integers(100, 599) | st.sampled_from([200, 299, 300, 404, 405, 408, 425, 429, 499, 500]),
    st.booleans(),
    st.sampled_from(HOLDS),
)
def test_a_batch_is_tried_after_a_good_answer_one_without_this_route_and_in_an_outage_after_any_refusal(
    kind: str, status: int, foreign: bool, hold: Hold | None
) -> None:
    """A page in the platform's place with a 2xx would be the batch's answer as well, and leave it in doubt."""
    reply = Reply(kind, status=status, foreign=foreign)  # type: ignore[arg-type]

    good = 200 <= status < 300 and not foreign
    refused = 300 <= status < 500 and status not in {408, 425, 429}
    in_outage = hold is not None and hold.reason == "outage"
    expected = kind == "answered" and (good or status in {404, 405} or (in_outage and refused))
    assert says_more_with_a_batch(reply, hold) == expected
