"""How commands come by their settings: read, checked, and tried out on the clients that will use them.

Here, and not in `config`, since the clients lie in layers above that. Measured, the trial takes 10 ms, and to load the
library for it 15 to 40 ms.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Literal, get_args

from connector.config.load import load_settings
from connector.config.problems import KeyPath
from connector.config.settings import Settings

Asked = Literal["kafka", "registry", "platform", "pages", "traces"]
"""Who is asked, or told, by means of a secret."""

_SECRETS: Final[Mapping[Asked, tuple[KeyPath, ...]]] = {
    "kafka": (("kafka", "security", "password"),),
    "registry": (("schema_registry", "password"), ("schema_registry", "token")),
    "platform": (("trackly", "api_key"),),
    "pages": (("web", "token"),),
    "traces": (("traces", "headers"),),
}


def load(path: Path, *, copy: Path | None = None, asks: Collection[Asked] = get_args(Asked)) -> Settings:
    """Return the settings of a file, or of its copy; raises SettingsError with all that is wrong with them.

    Secrets for those that the command does not ask need not be there, in file or variable: whoever looks at dead
    letters need not have the platform's key.
    """
    from connector.kafka import trial as kafka  # noqa: PLC0415 (who imports a command does not load a Kafka client)
    from connector.shaping import trial as shaping  # noqa: PLC0415 (none of the formats)
    from connector.trackly import trial as trackly  # noqa: PLC0415 (and none of the operations)

    unused = [secret for whom, secrets in _SECRETS.items() if whom not in asks for secret in secrets]
    trials = (kafka.refused, shaping.refused, trackly.refused)
    return load_settings(path, copy=copy, unused=unused, trials=trials)
