"""How commands load settings: read, validated, and tried with the clients that will use them.

Not in `config`, because the clients are in layers above it. Measured: the trial takes 10 ms, and loading the library
for it 15 to 40 ms.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Literal, get_args

from connector.config.load import load_settings
from connector.config.problems import KeyPath
from connector.config.settings import Settings

Asked = Literal["kafka", "registry", "platform", "pages", "traces"]
"""What a secret is used for."""

_SECRETS: Final[Mapping[Asked, tuple[KeyPath, ...]]] = {
    "kafka": (("kafka", "security", "password"),),
    "registry": (("schema_registry", "password"), ("schema_registry", "token")),
    "platform": (("trackly", "api_key"),),
    "pages": (("web", "token"),),
    "traces": (("traces", "headers"),),
}


def load(path: Path, *, copy: Path | None = None, asks: Collection[Asked] = get_args(Asked)) -> Settings:
    """Return the settings of a file, or of its copy; raises SettingsError with everything that is wrong.

    Secrets for what the command does not use may be missing, as file or variable: a person who looks at dead letters
    need not have the platform's key.
    """
    from connector.kafka import trial as kafka  # noqa: PLC0415 (who imports a command does not load a Kafka client)
    from connector.shaping import trial as shaping  # noqa: PLC0415 (none of the formats)
    from connector.trackly import trial as trackly  # noqa: PLC0415 (and none of the operations)

    unused = [secret for whom, secrets in _SECRETS.items() if whom not in asks for secret in secrets]
    trials = (kafka.refused, shaping.refused, trackly.refused)
    return load_settings(path, copy=copy, unused=unused, trials=trials)
