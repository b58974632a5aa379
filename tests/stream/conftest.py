"""The tests of a stream run in the same world as the end-to-end tests: real processes, a real broker."""

from tests.e2e.conftest import platform, world

__all__ = ["platform", "world"]
