"""The language of mappings: expressions, templates and what they make of a chunk; knows neither Kafka nor settings."""
