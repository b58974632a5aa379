"""Speed and latency of the connector, side by side with what it is measured against."""
