"""`trackly-connector dead-letters`: find, examine, fix, send again."""
