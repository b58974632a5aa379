"""A real Prometheus that scrapes workers of a test, with the rules that are delivered."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from connector.processes import spawn, stop, tail
from tests.kit.local import NO_TLS
from tests.kit.patience import PATIENCE_SECS
from tests.kit.programs import program
from tests.kit.world import free_port


class Prometheus:
    """A Prometheus that runs."""

    def __init__(self, port: int, log: Path) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._log = log

    def get(self, path: str, **params: str) -> Any:
        """Return what the API says; fails with its own words."""
        found = httpx.get(
            f"{self._url}/api/v1/{path}", params=params, timeout=PATIENCE_SECS, trust_env=False, verify=NO_TLS
        )
        if found.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # not ready yet, in words of its own
            found.raise_for_status()
        body = found.json()
        assert body["status"] == "success", body
        return body["data"]

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the series of a query, each with `metric` and `value`; scalars have none."""
        data = self.get("query", query=query)
        return [] if data["resultType"] == "scalar" else list(data["result"])

    def wait_for(self, query: str) -> list[dict[str, Any]]:
        """Wait until a query has series, and return them."""
        deadline = time.monotonic() + PATIENCE_SECS
        while not (found := self.ask(query)):
            assert time.monotonic() < deadline, f"nothing for {query}:\n{tail(self._log)}"
            time.sleep(0.1)
        return found


@contextmanager
def prometheus(
    ports: Sequence[int], folder: Path, rules: Path, labels: Mapping[str, str] | None = None
) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes these ports of this machine twice a second and evaluates the rules every second."""
    port, config, log = free_port(), folder / "prometheus.yml", folder / "prometheus.log"
    settings = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "1s", "external_labels": dict(labels or {})},
        "rule_files": [str(rules)],
        "scrape_configs": [
            {"job_name": "trackly-connector", "static_configs": [{"targets": [f"127.0.0.1:{each}" for each in ports]}]}
        ],
    }
    config.write_text(yaml.safe_dump(settings))
    arguments = [
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = spawn([program("prometheus"), *arguments], log=log)
    made = Prometheus(port, log)
    try:
        deadline = time.monotonic() + PATIENCE_SECS
        while True:
            assert process.poll() is None, tail(log)
            assert time.monotonic() < deadline, tail(log)
            try:
                made.get("status/buildinfo")
            except httpx.HTTPError:
                time.sleep(0.1)
            else:
                break
        yield made
    finally:
        stop(process, grace_secs=10)
