"""Clients that have lost their brokers for good.

librdkafka forgets the brokers that an answer to a metadata request does not name, those of `bootstrap.servers` as well.
A node that comes up again, and does not count as alive yet, names topics but no brokers. Unless it is just asking again
when they are named, the client reaches nobody from then on, tells nobody, and nothing brings it back but a new one
(librdkafka issue 5301; seen with 2.15, open in 2.16). What every caller does about a call that fails, to try again, is
not enough here.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Final

from confluent_kafka import Consumer, KafkaException

SILENT_SECS: Final = 5.0
"""A consumer that has brought nothing for so long is asked whether it reaches anybody, and again after as long."""

REACH_SECS: Final = 2.0
"""How long one question may take. Where a slow cluster needs longer the new client does not answer either."""


def is_cut_off(consumer: Consumer, make: Callable[[], Consumer], topic: str, secs: float) -> bool:
    """Tell whether a consumer reaches no broker although a new one does; takes up to three times `secs`.

    `topic` is any that it may see. A cluster that is away for all is no reason to say so.
    """
    if _reaches(consumer, topic, secs):
        return False
    try:
        fresh = make()
    except KafkaException:  # no room for one more: a third would not be any better
        return False
    with closing(fresh):
        there = _reaches(fresh, topic, secs)
    return there and not _reaches(consumer, topic, secs)


def _reaches(consumer: Consumer, topic: str, secs: float) -> bool:
    try:
        return bool(consumer.list_topics(topic, timeout=secs).brokers)
    except KafkaException:
        return False
