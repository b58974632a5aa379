"""Records in doubt, sorted by evidence.

After a crash nobody knows of some records whether the platform accepted them. The platform cannot be asked, but others
may know: a recipient, or the platform's own delivery events. Evidence is about a phone number. So it settles a record
whose number occurs once among those in doubt; if it occurs twice, nobody knows which of the two was accepted. A record
may have several dead letters, if it was sent again and is in doubt again: evidence for one of them is evidence for the
record. If the number of any record is unknown, because no event can be shaped from it now, no number is known to occur
only once.

A record is sent again only if no event can be about it. After a crash no header tells when a record was posted: its
dead letter is written by the next owner of the partition, or at the end of a hold, days later perhaps. So no event is
too old to be about such a record, unless the operator says how long before its dead letter it was posted at most.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final, Literal

from connector.deadletters.addresses import Address, AddressBook
from connector.deadletters.letters import CLOCKS_MS, Letter, Position, text_of, time_of, told_time
from connector.trackly.operations import E164

SAME_CRASH_MS: Final = 60_000
"""Records of one stream that became dead letters closer together than this are attributed to the same crash."""

NEAR_MS: Final = 900_000
"""How much older than its dead letter an event may be to settle a record that was posted nobody knows when."""

Finding = Literal["accepted", "redrive", "still_in_doubt"]

_Record = tuple[str, Position]
"""Its stream, and where it first failed."""


@dataclass(frozen=True, slots=True)
class Event:
    """The platform had something for a number: at a time and on a list, if known."""

    number: str = field(repr=False)
    list_number: str | None = None
    at_ms: int | None = None


def event_of(value: Any) -> Event | None:
    """Return a webhook's delivery event, None for any other value. Whatever its status, the platform accepted it."""
    if not isinstance(value, dict) or value.get("event") != "delivery" or not isinstance(value.get("to"), str):
        return None
    number, list_number = value["to"], value.get("list_number")
    return Event(number, list_number if isinstance(list_number, str) else None, time_of(_text(value.get("timestamp"))))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def read_numbers(lines: Iterable[str]) -> list[Event]:
    """Return the numbers in a file, one per line; empty lines and those that begin with # are skipped.

    Raises `ValueError` for a line that is not a number in international form.
    """
    events = []
    for at, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if not E164.fullmatch(text):
            raise ValueError(f"line {at} is no phone number in E.164 form")
        events.append(Event(text))
    return events


@dataclass(slots=True)
class Group:
    """Records that one crash, or one lost answer, left in doubt."""

    stream: str
    batch_id: str | None
    worker: str | None
    list_number: str | None
    first_ms: int
    last_ms: int
    detail: str
    letters: list[tuple[Letter, Address]] = field(default_factory=list, repr=False)
    """Their dead letters, each with whom it is about."""
    findings: Counter[Finding] = field(default_factory=Counter)

    @property
    def no_event(self) -> Counter[str]:
        """How many records have no event now, so that list and number are unknown, by cause."""
        return Counter(address.no_event for _, address in self.letters if address.no_event)

    def as_json(self) -> dict[str, Any]:
        """Return the group as JSON-ready values."""
        return {
            "stream": self.stream,
            "batch_id": self.batch_id,
            "worker": self.worker,
            "list_number": self.list_number,
            "from": told_time(self.first_ms),
            "to": told_time(self.last_ms),
            "detail": self.detail,
            "count": len(self.letters),
            **({} if not (no_event := self.no_event) else {"no_event": dict(no_event)}),
            **({} if not self.findings else {"findings": dict(self.findings)}),
        }


def groups_of(letters: Iterable[Letter], addresses: AddressBook) -> list[Group]:
    """Return dead letters in doubt, grouped by cause, the oldest group first."""
    groups: list[Group] = []
    open_groups: dict[tuple[str, str | None, str | None, str], Group] = {}
    for letter in sorted(letters, key=lambda letter: letter.failed_ms):
        batch_id = text_of(letter.facts, "trackly.batch_id")
        address = addresses.of(letter)
        key = (letter.stream or "", batch_id, address.list_number, letter.text or "")
        group = open_groups.get(key)
        at = letter.failed_ms
        if group is None or (batch_id is None and at - group.last_ms > SAME_CRASH_MS):
            worker = batch_id.rsplit("-", 2)[0] if batch_id else None
            group = open_groups[key] = Group(key[0], batch_id, worker, key[2], at, at, key[3])
            groups.append(group)
        group.last_ms = at
        group.letters.append((letter, address))
    return sorted(groups, key=lambda group: group.first_ms)


def without(groups: Iterable[Group], gone: Collection[Position], findings: Mapping[str, Finding]) -> list[Group]:
    """Return what is left of groups without some dead letters, by their places, with what is found of the rest."""
    left = []
    for group in groups:
        kept = [(letter, address) for letter, address in group.letters if letter.place not in gone]
        if kept:
            found = Counter(findings[letter.position] for letter, _ in kept if findings)
            left.append(replace(group, letters=kept, findings=found))
    return left


def split(
    groups: Iterable[Group],
    events: Iterable[Event],
    *,
    also: Iterable[Letter] = (),
    window_ms: int | None = None,
    complete_from_ms: int | None = None,
) -> dict[str, Finding]:
    """Return what becomes of each dead letter, by position; `also` are other dead letters of the same records.

    An event with a time settles a record if it is not older than the request. If no header says when that was, or there
    was an earlier request, it settles it if it is no more than `window_ms` older than the dead letter, or `NEAR_MS` if
    none is given. A record that an older event may be about stays in doubt: see `earliest_ms`; if it was sent again
    and an earlier dead letter is missing, any older event may be about it. So does one for which an event names another
    list than the settings do, since they may have been changed; and one that none is about, if it may have been posted
    before `complete_from_ms`: earlier events have been removed.
    """
    known: dict[str | None, list[Event]] = {}
    for event in events:
        known.setdefault(event.number, []).append(event)
    listed = list(groups)
    told = {(group.stream, letter.origin, letter.redrives) for group in listed for letter, _ in group.letters}
    told |= {(letter.stream or "", letter.origin, letter.redrives) for letter in also}
    records: dict[str | None, set[_Record]] = {}
    named: set[_Record] = set()
    unsure: set[_Record] = set()
    for group in listed:
        for letter, address in group.letters:
            record = group.stream, letter.origin
            records.setdefault(address.number, set()).add(record)
            sure_ms, earliest = _settles_from_ms(letter, window_ms), earliest_ms(letter, window_ms)
            if any((*record, redrives) not in told for redrives in range(letter.redrives)):
                earliest = -inf
            if complete_from_ms is not None and earliest < complete_from_ms:
                unsure.add(record)
            for event in known.get(address.number, ()):
                is_of = _is_of(event, address)
                if is_of and (event.at_ms is None or event.at_ms >= sure_ms):
                    named.add(record)
                elif (is_of or not address.names_list) and (event.at_ms is None or event.at_ms >= earliest):
                    unsure.add(record)
    all_known = not any(group.no_event for group in listed)
    findings: dict[str, Finding] = {}
    for group in listed:
        for letter, address in group.letters:
            number = address.number
            finding: Finding = "redrive"
            if number is None:
                finding = "still_in_doubt"
            elif (group.stream, letter.origin) in named:
                finding = "accepted" if all_known and len(records[number]) == 1 else "still_in_doubt"
            elif (group.stream, letter.origin) in unsure:
                finding = "still_in_doubt"
            findings[letter.position] = finding
    return findings


def posted_ms(letter: Letter) -> int | None:
    """Return when a record was posted, None if unknown, or if it was posted more than once."""
    is_resent = letter.facts.get("trackly.resent") == b"true"  # headers only tell the time of the last request
    return None if is_resent else time_of(text_of(letter.facts, "trackly.sent_at"))


def earliest_ms(letter: Letter, window_ms: int | None) -> float:
    """Return the time before which no event can be about a record, less what clocks may differ.

    That is minus infinity if nobody knows when it was posted, and no window is given.
    """
    posted = posted_ms(letter)
    if posted is None:
        return -inf if window_ms is None else letter.failed_ms - window_ms - CLOCKS_MS
    return posted - CLOCKS_MS


def _settles_from_ms(letter: Letter, window_ms: int | None) -> int:
    """Return the time from which on an event settles a record."""
    posted = posted_ms(letter)
    return letter.failed_ms - (NEAR_MS if window_ms is None else window_ms) if posted is None else posted


def _is_of(event: Event, address: Address) -> bool:
    """Return whether an event may be about a text of this list."""
    return event.list_number is None or address.list_number is None or event.list_number == address.list_number
