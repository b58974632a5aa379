"""The pure core: decides over chunks and batches. No I/O, clock, dice, threads or logging lives here."""
