"""Kafka: the only home of confluent_kafka. Reads chunks, writes results, commits progress; decides nothing."""
