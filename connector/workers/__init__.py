"""Several workers on one machine: a supervisor, and what its pages make of theirs."""
