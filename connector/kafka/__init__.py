"""Kafka: the only package that uses confluent_kafka. Reads chunks, writes results, commits progress."""
