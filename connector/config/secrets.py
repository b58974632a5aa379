"""Secrets that change while we run: replacing a key file must not need a restart.

Only texts of the settings file with `${file:...}` are resolved again, as they were when it was read. The settings file
itself is not read again: other changes take effect at the next start, and so do Kafka's passwords, which its clients
take when they are created.
"""

import os
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Final

from pydantic import SecretStr

from connector.config.problems import Problem, SettingsError, dotted
from connector.config.references import UnresolvedReferenceError, resolve
from connector.config.settings import Settings, check_web_token
from connector.config.trackly import check_api_key, check_header


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("must not be empty")
    return value


API_KEY: Final = "trackly.api_key"
WEB_TOKEN: Final = "web.token"  # noqa: S105  (a path)
REGISTRY_PASSWORD: Final = "schema_registry.password"  # noqa: S105  (a path)
REGISTRY_TOKEN: Final = "schema_registry.token"  # noqa: S105  (a path)

_CHECKS: Final[dict[str, Callable[[str], str]]] = {
    API_KEY: check_api_key,
    WEB_TOKEN: check_web_token,
    REGISTRY_PASSWORD: _not_empty,
    REGISTRY_TOKEN: check_api_key,
}


class Secrets:
    """The secrets in use now: those of the settings at first; `read_again` updates them from their files.

    One per process. A value is replaced as a whole, so any thread may read while another one updates.
    """

    def __init__(self, settings: Settings, *, environ: Mapping[str, str] | None = None) -> None:
        registry = settings.schema_registry
        self._environ = os.environ if environ is None else environ
        self._origin = settings.origin
        self._trace_headers = {name: dotted(("traces", "headers", name)) for name in settings.traces.headers}
        self._reading = Lock()
        """Held while reading again; otherwise a slower reader could restore older values."""
        self._current: dict[str, SecretStr | None] = {
            API_KEY: settings.trackly.api_key,
            WEB_TOKEN: settings.web.token,
            REGISTRY_PASSWORD: None if registry is None else registry.password,
            REGISTRY_TOKEN: None if registry is None else registry.token,
            **{self._trace_headers[name]: value for name, value in settings.traces.headers.items()},
        }
        self._checks = {**_CHECKS, **dict.fromkeys(self._trace_headers.values(), check_header)}
        templates = self._origin.templates if self._origin is not None else ()
        self._templates = {path: text for path, text in templates if path in self._checks}

    def api_key(self) -> SecretStr:
        """Return the platform's key."""
        key = self._current[API_KEY]
        assert key is not None, "the settings require it"
        return key

    def web_token(self) -> SecretStr | None:
        """Return the token that allows to pause and resume streams, if there is one."""
        return self._current[WEB_TOKEN]

    def registry_password(self) -> SecretStr | None:
        """Return the password for the schema registry, if there is one."""
        return self._current[REGISTRY_PASSWORD]

    def registry_token(self) -> SecretStr | None:
        """Return the bearer token for the schema registry, if there is one."""
        return self._current[REGISTRY_TOKEN]

    def trace_headers(self) -> dict[str, SecretStr]:
        """Return the authentication headers for the collector of traces, by name."""
        current = self._current
        found = {name: current[path] for name, path in self._trace_headers.items()}
        return {name: value for name, value in found.items() if value is not None}

    def read_again(self) -> frozenset[str]:
        """Read the files again and return the paths of the secrets that changed.

        Raises SettingsError if a file cannot be read or contains no usable secret. That one keeps its last good value
        (a mount that is just being replaced looks like a missing file); the others are updated all the same.
        """
        if self._origin is None:
            return frozenset()
        source, problems, found = self._origin.source, [], {}
        with self._reading:
            for path, template in self._templates.items():
                try:
                    text = resolve(template, base=source.parent, environ=self._environ)
                    found[path] = SecretStr(self._checks[path](text))
                except (UnresolvedReferenceError, ValueError) as error:
                    problems.append(Problem(path, str(error)))
            changed = frozenset(path for path, secret in found.items() if secret != self._current[path])
            self._current = {**self._current, **found}
        if problems:
            raise SettingsError(source, problems)
        return changed
