"""Registries that a test makes are closed with it."""

from tests.shaping.formats.making import closed_registries

__all__ = ["closed_registries"]
