"""Secrets given by file are read again on demand; what cannot be read keeps its last good value."""

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, current_thread
from typing import Any

import pytest

from connector.config.problems import SettingsError
from connector.config.references import resolve
from connector.config.secrets import API_KEY, Secrets
from connector.config.settings import Settings

Load = Callable[..., Settings]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("trk_1\n")
    return file


@pytest.fixture
def by_file(load: Load, key: Path, tmp_path: Path) -> Settings:
    assert key.exists()
    (tmp_path / "password").write_text("p1")
    registry = {"url": "http://127.0.0.1:8081", "username": "u", "password": "${file:password}"}
    web = {"token": "a-token-that-does-not-change"}
    streams = [{"format": "avro"}]
    return load({"trackly": {"api_key": "${file:key}"}, "schema_registry": registry, "web": web, "streams": streams})


def _values(secrets: Secrets) -> list[str | None]:
    found = [secrets.api_key(), secrets.registry_password(), secrets.web_token()]
    return [None if secret is None else secret.get_secret_value() for secret in found]


def test_the_first_values_are_those_of_the_settings(by_file: Settings) -> None:
    secrets = Secrets(by_file)

    assert _values(secrets) == ["trk_1", "p1", "a-token-that-does-not-change"]


def test_a_changed_file_is_taken_over_when_read_again(by_file: Settings, key: Path) -> None:
    secrets = Secrets(by_file)
    key.write_text("trk_2\n")

    before, changed, after = _values(secrets), secrets.read_again(), _values(secrets)

    assert before == ["trk_1", "p1", "a-token-that-does-not-change"]
    assert changed == {API_KEY}
    assert after == ["trk_2", "p1", "a-token-that-does-not-change"]
    assert secrets.read_again() == frozenset()


@pytest.mark.parametrize("content", ["", "two words", None])
def test_an_unusable_file_keeps_the_last_good_value_and_the_others_are_taken(
    content: str | None, by_file: Settings, key: Path, tmp_path: Path
) -> None:
    secrets = Secrets(by_file)
    (tmp_path / "password").write_text("p2")
    if content is None:
        key.unlink()
    else:
        key.write_text(content)

    with pytest.raises(SettingsError) as caught:
        secrets.read_again()

    assert [problem.path for problem in caught.value.problems] == [API_KEY]
    assert "two words" not in str(caught.value)
    assert _values(secrets) == ["trk_1", "p2", "a-token-that-does-not-change"]


def _trace_headers(secrets: Secrets) -> dict[str, str]:
    return {name: value.get_secret_value() for name, value in secrets.trace_headers().items()}


def test_headers_of_traces_are_read_again(load: Load, key: Path) -> None:
    headers = {"Authorization": "Bearer ${file:key}", "X-Scope-OrgID": "texts", "9-lives": "${file:key}"}
    secrets = Secrets(load({"traces": {"headers": headers}}))
    before = _trace_headers(secrets)
    key.write_text("trk_2\n")

    changed = secrets.read_again()

    assert before == {"Authorization": "Bearer trk_1", "X-Scope-OrgID": "texts", "9-lives": "trk_1"}
    assert changed == {"traces.headers.Authorization", 'traces.headers["9-lives"]'}
    assert _trace_headers(secrets) == {"Authorization": "Bearer trk_2", "X-Scope-OrgID": "texts", "9-lives": "trk_2"}


@pytest.mark.parametrize("content", ["", "two\nlines", "hünter2"])
def test_a_header_that_cannot_be_one_keeps_its_last_good_value(content: str, load: Load, key: Path) -> None:
    secrets = Secrets(load({"traces": {"headers": {"Authorization": "${file:key}"}}}))
    key.write_text(content)

    with pytest.raises(SettingsError) as caught:
        secrets.read_again()

    assert [problem.path for problem in caught.value.problems] == ["traces.headers.Authorization"]
    assert _trace_headers(secrets) == {"Authorization": "trk_1"}


def test_text_around_a_reference_and_the_environment_are_kept(load: Load, key: Path) -> None:
    environ = {"PREFIX": "a-"}
    secrets = Secrets(load({"trackly": {"api_key": "${env:PREFIX}${file:key}-z"}}, environ), environ=environ)
    key.write_text("trk_2")

    secrets.read_again()

    assert _values(secrets)[0] == "a-trk_2-z"


def test_secrets_from_elsewhere_never_change(load: Load) -> None:
    environ = {"KEY": "trk_env"}
    secrets = Secrets(load({"trackly": {"api_key": "${env:KEY}"}}, environ), environ={"KEY": "other"})

    assert secrets.read_again() == frozenset()
    assert _values(secrets) == ["trk_env", None, None]


def test_settings_built_by_code_have_secrets_too(load: Load) -> None:
    loaded = load()
    built = Settings.model_validate({"kafka": loaded.kafka, "trackly": loaded.trackly, "streams": loaded.streams})

    secrets = Secrets(built)

    assert secrets.read_again() == frozenset()
    assert _values(secrets)[0] == "trk_key"


def test_where_settings_came_from_does_not_show_the_texts_of_the_file(load: Load, key: Path) -> None:
    assert key.exists()

    assert "hunter2" not in repr(load({"trackly": {"api_key": "hunter2-${file:key}"}}).origin)


def test_what_one_thread_has_read_before_does_not_replace_what_another_has_read_since(
    by_file: Settings, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes read again in threads of their own, and SIGHUP does so meanwhile: nobody comes to read it once more."""
    secrets = Secrets(by_file)
    has_read, may_go_on = Event(), Event()

    def slowly(*arguments: Any, **options: Any) -> str:
        text = resolve(*arguments, **options)
        if current_thread().name == "slow" and not has_read.is_set():
            has_read.set()
            may_go_on.wait(0.5)
        return text

    monkeypatch.setattr("connector.config.secrets.resolve", slowly)
    slow = Thread(target=secrets.read_again, name="slow")
    slow.start()
    has_read.wait()
    key.write_text("trk_2\n")
    secrets.read_again()
    may_go_on.set()
    slow.join()

    assert secrets.api_key().get_secret_value() == "trk_2"
