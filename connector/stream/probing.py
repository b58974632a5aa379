"""Asks the platform, while a stream holds, whether it works again."""

import time
from collections.abc import Callable
from typing import Any

from connector.clock import now, until_next
from connector.core.breaker import Hold
from connector.core.verdicts import Reply
from connector.stream.state import State
from connector.trackly.client import Client


async def probe(state: State, client: Client, before_probe: Callable[[], None], log: Any) -> None:
    """Ask whenever the gate wants it, until cancelled; `before_probe` is called each time."""
    while True:
        # A hold begins with a delay, so that there is time to notice it; idle streams had better sleep.
        await until_next(1.0 if state.gate.state == "closed" else 0.1)
        with state.changed:
            if state.held_bytes == 0 and state.gate.rest():
                state.limit.restart()
                state.changed.notify_all()
            due = state.gate.probe_due(now=now())
        if not due:
            continue
        before_probe()
        client.read_certificates_again()
        reply = await client.lists()
        with state.changed:
            reachable = says_more_with_a_batch(reply, state.gate.hold)
            state.gate.probed(ok=reachable, now=now())
            state.changed.notify_all()
        log.info("probed", ok=reachable, status=reply.status, trouble=reply.trouble, at=int(time.time()))


def says_more_with_a_batch(reply: Reply, hold: Hold | None) -> bool:
    """Tell whether a probe's answer gives hope, or as much as it may tell: then only a batch can be asked.

    A platform, or a hold, without that route is one case. Another is an outage after which somebody answers who
    refuses the question: whether it is the key, or a gateway that minds the question alone, the batch's answer
    says, and nothing is taken that is refused. A page with success for its status, of maintenance or of a network
    that wants a login, would have a batch's answer be like it, so that nobody could tell what was taken.
    """
    if reply.kind != "answered":
        return False
    if reply.ok or reply.status in {404, 405}:
        return not (reply.ok and reply.foreign)
    is_outage = hold is not None and hold.reason == "outage"
    return is_outage and 300 <= reply.status < 500 and reply.status not in {408, 425, 429}
