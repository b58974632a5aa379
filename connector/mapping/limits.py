"""How much a mapping may be, take and give, for one record."""

from typing import Final

MAX_TEXT: Final = 10_000
"""Characters of an expression or a template."""

MAX_CHARACTERS: Final = 20_000
"""Of what a template or a filter in it gives: a text of 1,600 characters is the longest that the platform takes."""

STEPS: Final = 10_000
"""Rounds of all loops of a template together, for one record."""

TOO_LONG: Final = f"gives more than {MAX_CHARACTERS:,} characters"
"""What is said of a text that has more."""
