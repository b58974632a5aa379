"""Kafka to Trackly SMS: events in, bulk requests out, one outcome or dead letter per record."""

__version__ = "0.1.0"
