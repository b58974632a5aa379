"""Downloading the broker's jars, with scripted programs in place of Maven, Java and Docker."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from connector.demo.artifacts import BrokerUnavailableError, java, kafka_jars
from connector.demo.finding import find_broker


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a folder for programs before all others, and the cache into a new place."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return folder


def _install(folder: Path, name: str, script: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def _install_maven(folder: Path) -> Path:
    """Install a Maven that takes its time, makes one jar, and notes each call; return its notes."""
    calls = folder / "calls"
    copies = 'for word; do case "$word" in -DoutputDirectory=*) out="${word#*=}";; esac; done'
    _install(folder, "mvn", f'echo called >> {calls}\n{copies}\nmkdir "$out"; sleep 0.3; echo jar > "$out/kafka.jar"')
    return calls


def test_makers_at_the_same_time_fetch_once_and_see_the_whole(programs: Path) -> None:
    calls = _install_maven(programs)

    with ThreadPoolExecutor(4) as makers:
        folders = list(makers.map(lambda _: sorted(jar.name for jar in kafka_jars().iterdir()), range(4)))

    assert folders == [["kafka.jar"]] * 4
    assert calls.read_text() == "called\n"


def test_a_folder_from_other_dependencies_is_recreated(programs: Path) -> None:
    calls = _install_maven(programs)
    libs = kafka_jars()
    (libs.parent / "pom.xml").write_text("<project>of last year</project>")
    (libs / "old.jar").touch()

    assert sorted(jar.name for jar in kafka_jars().iterdir()) == ["kafka.jar"]
    assert calls.read_text() == "called\ncalled\n"


def test_what_maven_said_is_reported_and_nothing_is_left(programs: Path, tmp_path: Path) -> None:
    _install(programs, "mvn", "echo '[ERROR] no such artifact'; exit 1")

    with pytest.raises(BrokerUnavailableError, match="no such artifact"):
        kafka_jars()

    assert [entry.name for entry in (tmp_path / "cache" / "trackly-connector").iterdir()] == ["kafka-4.2.0.lock"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'openjdk version \"11.0.2\" 2019-01-15' >&2", "needs Java 17; .* is 11"),
        ("echo 'java version \"1.8.0_202\"' >&2", "needs Java 17; .* is 1"),
        ("echo 'no runtime present' >&2; exit 1", "no runtime present"),
    ],
)
def test_a_java_that_cannot_run_kafka_is_refused(programs: Path, script: str, reason: str) -> None:
    _install(programs, "java", script)

    with pytest.raises(BrokerUnavailableError, match=reason):
        java()


def test_java_home_goes_before_the_path(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(programs, "java", "echo 'openjdk version \"11\"' >&2")
    newer = programs.parent / "newer" / "bin"
    newer.mkdir(parents=True)
    _install(newer, "java", "echo 'openjdk version \"21.0.1\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(newer.parent))

    assert java() == str(newer / "java")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", "Cannot connect to the Docker daemon"),
        ('[ "$1" = version ] && exit 0; echo "manifest unknown" >&2; exit 125', "manifest unknown"),
    ],
    ids=["no daemon", "no image"],
)
def test_why_docker_gives_no_broker_is_reported(programs: Path, script: str, reason: str) -> None:
    _install(programs, "java", "exit 1")
    _install(programs, "docker", script)

    with pytest.raises(BrokerUnavailableError, match=reason):
        find_broker()
