"""The drivers of one stream around the pure core: the reader reads, the ticker commits, the sender posts."""
