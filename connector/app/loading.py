"""How commands come by their settings: read, checked, and tried out on the clients that will use them.

Here, and not in `config`, since the clients lie in layers above that. Measured, the trial takes 10 ms, and to load the
library for it 15 to 40 ms.
"""

from pathlib import Path

from connector.config.load import load_settings
from connector.config.settings import Settings


def load(path: Path, *, copy: Path | None = None) -> Settings:
    """Return the settings of a file, or of its copy; raises SettingsError with all that is wrong with them."""
    from connector.kafka import trial as kafka  # noqa: PLC0415 (who imports a command does not load a Kafka client)
    from connector.shaping import trial as shaping  # noqa: PLC0415 (none of the formats)
    from connector.trackly import trial as trackly  # noqa: PLC0415 (and none of the operations)

    return load_settings(path, copy=copy, trials=(kafka.refused, shaping.refused, trackly.refused))
