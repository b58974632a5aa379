"""One stream at work: thin drivers around the core. The reader reads, the ticker commits, the sender posts."""
