"""Programs that are published as Go modules, built once into a cache of the user's.

`python -m tests.kit.go_tools` builds all.

A program that is on the PATH is taken as it is. Building takes some minutes of two cores once, so a test asks for a
program by `pytest.mark.timeout`, or leaves the building to whoever prepares the machine (`make tools`).
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

MODULES: Final = {
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    "actionlint": "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12",
}
BUILD_SECS: Final = 1_200


class ToolUnavailableError(Exception):
    """A program can neither be found nor built; the message says why."""


def tool(name: str) -> Path:
    """Return the path of a program, built if need be; raises `ToolUnavailableError`."""
    module = MODULES[name]
    folder = _cache_home() / "tools" / module.replace("/", "_")
    program = folder / name
    if not program.exists():
        if found := shutil.which(name):
            return Path(found)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # parallel test runs build once
            if not program.exists():
                _build(name, folder)
    return program


def _build(name: str, folder: Path) -> None:
    go, module = shutil.which("go"), MODULES[name]
    if go is None:
        raise ToolUnavailableError(f"neither {name} nor go is installed")
    try:
        subprocess.run(
            [go, "install", module],
            env={**os.environ, "GOBIN": str(folder)},
            check=True,
            capture_output=True,
            text=True,
            timeout=BUILD_SECS,
        )
    except subprocess.CalledProcessError as error:
        raise ToolUnavailableError(f"go install {module}: {error.stderr.strip()[-500:]}") from error
    except subprocess.TimeoutExpired as error:
        raise ToolUnavailableError(f"go install {module} did not end within {BUILD_SECS} s") from error


def _cache_home() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "trackly-connector"


if __name__ == "__main__":
    missing = 0
    for each in MODULES:
        try:
            print(tool(each))
        except ToolUnavailableError as trouble:
            print(trouble, file=sys.stderr)
            missing = 1
    sys.exit(missing)
