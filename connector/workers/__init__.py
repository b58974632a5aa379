"""Several workers on one machine: a supervisor, and the pages that merge those of its workers."""
