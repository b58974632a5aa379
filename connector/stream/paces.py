"""How lists that wait for their pace are reported: on the status, and in the log when one will wait too long.

Lists are phone numbers, and there may be thousands: the status has the slowest few, masked, a metric only the slowest.
"""

from typing import Any, Final

from connector.clock import now
from connector.core.pacing import STALE_SECS, Backlog
from connector.stream.state import State
from connector.telemetry.logging import get_logger, mask_phone

SHOWN: Final = 20
"""Lists that the status names."""


class PaceMonitor:
    """The lists of one stream whose backlog takes longer than the platform would keep it, at the last look.

    Not thread-safe: used under the stream's lock.
    """

    def __init__(self, stream: str, state: State) -> None:
        self._state = state
        self._late: set[str] = set()
        self._log = get_logger("stream").bind(stream=stream)

    def check(self) -> None:
        """Log the lists that became late since the last look, and those that caught up."""
        pacer = self._state.admission.pacer
        if pacer is None:
            return
        late = {backlog.number: backlog for backlog in pacer.backlogs(now=now()) if backlog.outlives_platform}
        for number in late.keys() - self._late:
            backlog = late[number]
            self._log.warning(
                "list falls behind its pace",
                list=number,
                backlog_secs=round(backlog.secs),
                waiting_records=backlog.waiting,
                platform_keeps_secs=STALE_SECS,
            )
        for number in self._late - late.keys():
            self._log.info("list keeps its pace again", list=number)
        self._late = set(late)

    def status(self) -> dict[str, Any] | None:
        """Return what waits for its pace as JSON-ready values, or None without a pace."""
        pacer = self._state.admission.pacer
        if pacer is None:
            return None
        backlogs = pacer.backlogs(now=now())
        return {
            "share": round(pacer.share, 4),
            "waiting_records": pacer.waiting_records,
            "backlog_secs": round(backlogs[0].secs, 1) if backlogs else 0.0,
            "lists_waiting": len(backlogs),
            "lists": list(map(_status_of, backlogs[:SHOWN])),
        }


def _status_of(backlog: Backlog) -> dict[str, Any]:
    return {
        "list": mask_phone(backlog.number),
        "waiting_records": backlog.waiting,
        "backlog_secs": round(backlog.secs, 1),
    }
