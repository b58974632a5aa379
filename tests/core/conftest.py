"""How the core's laws are tried: as many examples in CI as at a desk, but there the same ones each time."""

import os

from hypothesis import settings

settings.register_profile("desk", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
