"""The pure core: decides over chunks and batches. No I/O, clock, randomness, threads or logging."""
