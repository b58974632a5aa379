"""Probes, while a stream holds, whether the platform works again."""

import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from connector.clock import now, until_next
from connector.core.breaker import Hold
from connector.core.verdicts import Reply
from connector.stream.state import State
from connector.trackly.client import Client


async def probe(state: State, client: Client, before_probe: Callable[[], None], log: FilteringBoundLogger) -> None:
    """Probe whenever the gate asks for it, until cancelled; `before_probe` is called before each probe."""
    while True:
        # Each hold begins with a delay, so there is time to notice it; idle streams should not wake up often.
        await until_next(1.0 if state.gate.state == "closed" else 0.1)
        with state.changed:
            if state.held_bytes == 0 and state.gate.close_idle():
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
    """Return whether a probe's answer is good, or says as much as a probe can, so that only a batch can tell.

    The latter applies to a platform or a hold without this route (404, 405), and to an outage after which the probe
    itself is rejected: the batch's own answer will show whether the key is wrong or a gateway only rejects this route,
    and a rejected batch is not accepted. A 2xx page without JSON, from a maintenance page or a network login, does not
    count: a batch would get the same answer, and then be in doubt.
    """
    if reply.kind != "answered":
        return False
    if reply.ok or reply.status in {404, 405}:
        return not (reply.ok and reply.foreign)
    is_outage = hold is not None and hold.reason == "outage"
    return is_outage and 300 <= reply.status < 500 and reply.status not in {408, 425, 429}
