"""The `simulate` command, as a process of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.kit.local import NO_TLS
from tests.kit.patience import PATIENCE_SECS

COMMAND = [
    sys.executable,
    "-c",
    "import typer; from connector.cli.simulate import simulate; app = typer.Typer(); app.command()(simulate); app()",
]
ROOT = Path(__file__).parents[2]
MESSAGE = {"to": "+15550000001", "list_number": "+18005551234", "body": "private text"}


@contextmanager
def running(*options: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [*COMMAND, *options], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended_with(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [*COMMAND, *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_SECS, check=False)


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_url_serves_and_ends_at_a_signal_with_the_sums(number: signal.Signals) -> None:
    with running("--json", "--api-key", "trk_a", "--api-key", "trk_b", "--list", "+18005551234") as process:
        urls = json.loads(first_line(process))
        answers = [
            httpx.post(
                f"{urls['url']}/send/bulk",
                json={"messages": [MESSAGE] * 2},
                headers={"X-Api-Key": key},
                trust_env=False,
                verify=NO_TLS,
            ).status_code
            for key in ("trk_a", "trk_b", "trk_c")
        ]
        lists = httpx.get(
            f"{urls['url']}/lists", headers={"X-Api-Key": "trk_a"}, trust_env=False, verify=NO_TLS
        ).json()["lists"]
        health = httpx.get(f"{urls['control_url']}/health", trust_env=False, verify=NO_TLS).status_code
        process.send_signal(number)
        said, complained = process.communicate(timeout=PATIENCE_SECS)

    assert (process.returncode, complained) == (0, "")
    assert answers == [200, 200, 401]
    assert [entry["phone_number"] for entry in lists] == ["+18005551234"]
    assert health == 200
    totals = json.loads(said)
    assert (totals["accepted"], totals["accepted_twice"]) == (4, 1)
    assert "private" not in said, "examples of repeats are for the control API only"


def test_for_people_it_prints_lines(tmp_path: Path) -> None:
    (tmp_path / "faults.yaml").write_text("error_rate: {503: 1}\nlatency_ms: 1\n")
    with running("--faults", str(tmp_path / "faults.yaml"), "--latency-ms", "2-3", "--fast") as process:
        line = first_line(process)
        url = line.split()[3]
        status = httpx.get(f"{url}/lists", trust_env=False, verify=NO_TLS).status_code
        faults = httpx.get(url.replace("/api/v2", "/_simulator/faults"), trust_env=False, verify=NO_TLS).json()
        process.terminate()
        said, complained = process.communicate(timeout=PATIENCE_SECS)

    assert line == f"Simulator ready at {url} (control: {url.replace('/api/v2', '/_simulator')})\n"
    assert (status, process.returncode, complained) == (503, 0, "")
    assert faults["latency_ms"] == [2.0, 3.0], "the option wins over the file"
    assert faults["error_rate"] == {"503": 1.0}
    assert said.splitlines() == [
        "Requests: 1 (1 x 503), 1 at once at most",
        "Accepted records: 0",
        "Refused records: 0",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--faults", "absent.yaml"], "absent.yaml cannot be used:\n  cannot read the file: No such file or directory"),
        (["--faults", "{bad}"], "lose_reply: must be at most 1"),
        (["--script", "{bad}"], "must be a list of steps"),
        (["--switches", "{bad}"], "lose_reply: is not a setting; did you mean duplicate_reply?"),
        (["--list", "800"], "\n  --list: "),
        (["--script-from", "noon"], "\n  --script-from: "),
        (["--host", ""], "\n  --host: "),
        (["--host", "a..b"], "\n  --host: "),
        (["--host", "127.0.0.1:8090"], "\n  --host: "),
        (["--host", "no-such-host.invalid"], "error: cannot listen on --host no-such-host.invalid: "),
        (["--host", "192.0.2.7"], "error: cannot listen on --host 192.0.2.7: Cannot assign requested address"),
        (["--api-key", ""], "\n  --api-key: "),
        (["--identify", ""], "\n  --identify: "),
        (["--identify", "body+"], "\n  --identify: must be paths into a record with + between, such as body"),
        (["--latency-ms", "fast"], "--latency-ms"),
        (["--latency-ms", "80-20"], "--latency-ms"),
        (["--port", "70000"], "--port"),
        (["--tls-cert", "{bad}"], "a certificate and its key go together: give both files"),
        (["--tls-cert", "absent.pem", "--tls-key", "absent.pem"], "absent.pem"),
        (
            ["--tls-cert", "{bad}", "--tls-key", "{bad}"],
            "error: --tls-cert {bad} contains no usable certificate",
        ),
        (["--fast", "--faults", "{records}"], "a fast simulator does not look at records: billing_code"),
    ],
)
def test_what_cannot_be_used_ends_it_with_2_and_a_clear_word(tmp_path: Path, options: list[str], said: str) -> None:
    bad, records = tmp_path / "bad.yaml", tmp_path / "records.yaml"
    bad.write_text("lose_reply: 2\n")
    records.write_text("billing_code: suspended\n")

    ended = ended_with(*(option.format(bad=bad, records=records) for option in options))

    assert ended.returncode == 2
    assert said.format(bad=bad) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_taken_port_ends_it_with_1() -> None:
    with running("--json") as process:
        port = httpx.URL(json.loads(first_line(process))["url"]).port
        ended = ended_with("--port", str(port))

    assert ended.returncode == 1
    told, way_out = ended.stderr.splitlines()
    assert told == f"error: cannot listen on --port {port} of --host 127.0.0.1: Address already in use"
    assert way_out.startswith("hint: stop whatever listens there, or use another --port (0 picks a free one)")


def test_script_switches_and_identities_are_those_of_the_options(tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text(
        '[{"at_secs": 0, "faults": {"status_override": 429, "only_paths": ["/send/bulk"]}}]'
    )
    (tmp_path / "switches.yaml").write_text("success_status: 201")
    options = ["--json", "--script", str(tmp_path / "script.json"), "--switches", str(tmp_path / "switches.yaml")]
    with running(*options, "--identify", "to") as process:
        urls = json.loads(first_line(process))
        with httpx.Client(trust_env=False, headers={"X-Api-Key": "k"}) as client:
            before = client.get(f"{urls['control_url']}/health").json()["faults_in_force"]
            single = client.post(f"{urls['url']}/send", json=MESSAGE).status_code
            bulk = client.post(f"{urls['url']}/send/bulk", json={"messages": [MESSAGE]}).status_code
            entry = client.get(f"{urls['control_url']}/ledger", params={"identity": MESSAGE["to"]}).json()

    assert before == {}, "the script waits for the first request"
    assert (single, bulk) == (201, 429)
    assert entry["accepted"] == 1
