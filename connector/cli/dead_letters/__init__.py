"""`trackly-connector dead-letters`: find, understand, mend, send again."""
