"""Settings: what they are, how they are read, what must fit together, and how they are printed."""
