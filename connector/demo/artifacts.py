"""Downloads Kafka's jars with Maven, once, into the user's cache.

The complete folder gets its name by one rename, and a file lock lets one process at a time work: parallel test runs
neither see half a folder nor download twice.
"""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.2.0"
"""The broker that the demo and the tests run; the version in `pom.xml`."""

_POM: Final = Path(__file__).with_name("pom.xml")
_MIN_JAVA: Final = 17  # what Kafka 4's server is compiled for
_MAVEN_TIMEOUT_SECS: Final = 600  # 45 MB over a slow line


class BrokerUnavailableError(Exception):
    """No broker can be started this way; the message says why, for users."""


def java() -> str:
    """Return the path of a Java that can run Kafka; raise `BrokerUnavailableError` if there is none."""
    home = os.environ.get("JAVA_HOME")
    program = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if program is None:
        raise BrokerUnavailableError(f"no java in {home}/bin (JAVA_HOME)" if home else "java is not installed")
    report = subprocess.run(  # noqa: S603 - the user's own Java
        [program, "-version"], capture_output=True, text=True, check=False
    )
    version = re.search(r'version "(\d+)', report.stderr + report.stdout)
    if report.returncode or version is None:
        raise BrokerUnavailableError(f"{program} -version does not answer: {report.stderr.strip()[:200]}")
    if int(version[1]) < _MIN_JAVA:
        raise BrokerUnavailableError(f"Kafka {KAFKA_VERSION} needs Java {_MIN_JAVA}; {program} is {version[1]}")
    return program


def kafka_jars() -> Path:
    """Return the folder with Kafka's jars, downloaded with Maven if the cache has none (about 45 MB).

    Raises `BrokerUnavailableError` if Maven is missing or fails.
    """
    home = _cache_home()
    folder = home / f"kafka-{KAFKA_VERSION}"
    if not _is_complete(folder):
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / f"{folder.name}.lock"):
            if not _is_complete(folder):  # another process may have been first
                _fetch(folder)
    return folder / "libs"


def _cache_home() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trackly-connector"


def _is_complete(folder: Path) -> bool:
    """Return whether the folder exists and is up to date."""
    try:
        return (folder / _POM.name).read_bytes() == _POM.read_bytes()
    except FileNotFoundError:
        return False


def _fetch(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        shutil.copyfile(_POM, made / _POM.name)
        goal = ["-f", str(made / _POM.name), "dependency:copy-dependencies", f"-DoutputDirectory={made / 'libs'}"]
        run_maven(goal, f"Kafka {KAFKA_VERSION}")
        if folder.exists():  # created from an older pom.xml
            folder.rename(Path(scratch) / "outdated")
        made.rename(folder)


def run_maven(goal: Sequence[str], what: str) -> None:
    """Download something with Maven; raise `BrokerUnavailableError`, naming `what`, if it is missing or fails."""
    maven = shutil.which("mvn")
    if maven is None:
        raise BrokerUnavailableError("mvn (Apache Maven) is not installed")
    try:
        subprocess.run(  # noqa: S603 - the user's own Maven
            [maven, "-q", "-B", "-Dstyle.color=never", *goal],
            check=True,
            capture_output=True,
            text=True,
            timeout=_MAVEN_TIMEOUT_SECS,
        )
    except subprocess.CalledProcessError as error:
        words = "\n".join((error.stdout + error.stderr).strip().splitlines()[-5:])
        raise BrokerUnavailableError(f"Maven could not fetch {what}:\n{words}") from error
    except subprocess.TimeoutExpired as error:
        raise BrokerUnavailableError(f"Maven did not finish within {_MAVEN_TIMEOUT_SECS} s") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time continue; the file stays."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file closes, also if this process dies
        yield
