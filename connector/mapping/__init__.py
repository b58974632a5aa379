"""The language of mappings: expressions and templates over a chunk; independent of Kafka and settings."""
