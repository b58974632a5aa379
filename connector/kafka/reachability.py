"""Clients that have lost their brokers for good.

librdkafka forgets brokers that a metadata response does not name, including those of `bootstrap.servers`. A broker that
is starting, and not alive yet for the cluster, names topics but no brokers. Unless the client happens to query again
when they are named, it reaches nobody from then on, reports nothing, and only a new client helps (librdkafka issue
5301; seen with 2.15, open in 2.16). So retrying, as every caller does when a call fails, is not enough here.
"""

from collections.abc import Callable
from contextlib import closing
from typing import Final

from confluent_kafka import Consumer, KafkaException

SILENT_SECS: Final = 5.0
"""A consumer that received nothing for so long is checked, and again after as long."""

REACH_SECS: Final = 2.0
"""Timeout of one query. If a slow cluster takes longer, the new client gets no answer either."""


def is_cut_off(consumer: Consumer, make: Callable[[], Consumer], topic: str, secs: float) -> bool:
    """Return whether a consumer reaches no broker although a new one does; takes up to three times `secs`.

    `topic` is any that it may see. A cluster that is unreachable for everyone does not count. A consumer whose only
    connection is to a frozen broker does: by itself it would wait until `socket.timeout.ms` has passed. Measured with
    the classic protocol, the partitions of such a broker stood still for 7 to 15 s, and without this for 54 to 64 s.
    """
    if _reaches(consumer, topic, secs):
        return False
    try:
        fresh = make()
    except KafkaException:  # no resources for another client: replacing it would fail as well
        return False
    with closing(fresh):
        there = _reaches(fresh, topic, secs)
    return there and not _reaches(consumer, topic, secs)


def _reaches(consumer: Consumer, topic: str, secs: float) -> bool:
    try:
        return bool(consumer.list_topics(topic, timeout=secs).brokers)
    except KafkaException:
        return False
