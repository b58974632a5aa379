"""Hypothesis profiles of the core's laws: as many examples in CI as locally, but always the same ones."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from connector.core import chunks

settings.register_profile("desk", deadline=None, max_examples=100)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


@pytest.fixture(autouse=True, scope="module")
def small_chunks_are_packed() -> Iterator[None]:
    """Those of the laws have few records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "PACKED_RECORDS", 2)
        yield
