"""Checks settings with the formats, which alone know what they can do with a schema.

An unusable schema that values are resolved to would make a dead letter of every record.
"""

from collections.abc import Iterator

from connector.config.problems import Fault
from connector.config.settings import Settings


def refused(settings: Settings) -> Iterator[Fault]:
    """Yield the schemas that no value can be resolved to."""
    for path, chosen in settings.formats.items():
        if chosen.framed != "avro" or chosen.missing_extra is not None:
            continue
        from connector.shaping.formats import pinned_schema  # noqa: PLC0415 (it loads a client)

        try:
            pinned_schema(chosen)
        except ValueError as error:
            yield Fault((*path, "reader_schema_file"), f"cannot be used: {error}")
