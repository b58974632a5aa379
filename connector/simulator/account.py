"""What the platform remembers of an account, to distinguish new things from repeats."""

import hashlib
import random
import string
from collections import OrderedDict
from typing import Final

from connector.simulator.settings import SendingList

_ALPHABET: Final = string.digits + string.ascii_letters
_ID_LENGTH: Final = 8
_MOST_USED_LISTS: Final = 1_000


class Account:
    """Messages, contacts, history and lists of the one account that a simulator has."""

    def __init__(self, seed: int, lists: tuple[SendingList, ...] | None) -> None:
        self._random = random.Random(seed)  # noqa: S311  # ids that can be repeated, not secrets
        self._issued: set[str] = set()
        self._given = lists
        self._used: dict[str, SendingList] = {}
        self._contacts: set[str] = set()
        self._memberships: set[tuple[str, str]] = set()
        self._history_sends: set[str] = set()
        self._history_clicks: set[str] = set()
        self._sent_at: OrderedDict[int, float] = OrderedDict()

    def issue_message_id(self) -> str:
        """Return a new id of 8 letters and digits; with a seed, always the same sequence."""
        while True:
            message_id = "".join(self._random.choices(_ALPHABET, k=_ID_LENGTH))
            if _added(self._issued, message_id):
                return message_id

    def is_repeated_message(self, to: str, list_number: str, body: str, *, window_secs: float, now: float) -> bool:
        """Return whether the same message was sent within the window; if not, remember it as sent now."""
        sent_at = self._sent_at
        while sent_at and now - sent_at[next(iter(sent_at))] >= window_secs:
            sent_at.popitem(last=False)
        message = hash((to, list_number, body))
        if message in sent_at:
            return True
        sent_at[message] = now
        return False

    def add_contact(self, phone_number: str, list_number: str) -> tuple[bool, bool]:
        """Create or update a contact on a list; return whether the contact is new, and whether the membership is."""
        membership = (phone_number, list_number)
        new = phone_number not in self._contacts, membership not in self._memberships
        self._contacts.add(phone_number)
        self._memberships.add(membership)
        return new

    def add_history_send(self, message_id: str) -> bool:
        """Import a message; return whether its id was new."""
        return _added(self._history_sends, message_id)

    def add_history_click(self, message_id: str) -> bool:
        """Import a click; return whether it is the first one of its message."""
        return _added(self._history_clicks, message_id)

    def note_list(self, number: str) -> None:
        """Remember a list that was used, if any number counts as one."""
        if self._given is None and number not in self._used and len(self._used) < _MOST_USED_LISTS:
            self._used[number] = SendingList(phone_number=number)

    def lists(self) -> tuple[SendingList, ...]:
        """Return the account's lists: those it was given, otherwise those that were used."""
        return self._given if self._given is not None else tuple(self._used.values())


def record_id(*parts: str) -> str:
    """Return an id of 24 hexadecimal digits, always the same for the same parts."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _added(known: set[str], member: str) -> bool:
    size = len(known)
    known.add(member)
    return len(known) > size
