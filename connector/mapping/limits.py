"""Limits of a mapping's size, steps and results, per record."""

from typing import Final

MAX_TEXT: Final = 10_000
"""Characters of an expression or a template."""

MAX_CHARACTERS: Final = 20_000
"""Result of a template, or of a filter in it; the longest text that the platform accepts has 1,600 characters."""

STEPS: Final = 10_000
"""Iterations of all loops of a template together, per record."""

TOO_LONG: Final = f"gives more than {MAX_CHARACTERS:,} characters"
"""The message for a text that has more."""
