"""The command line ends with documented codes, reports expected errors in a few lines, and hides no bug."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import connector.__main__
from connector import __version__
from connector.app.instance import TemporaryFolderError
from connector.cli.errors import CommandError, ExitCode, reported
from connector.cli.main import app
from connector.config.problems import Problem, SettingsError
from connector.config.schemas import schema_names
from connector.console.listening import PagesError
from connector.demo.artifacts import BrokerUnavailableError
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.topics import TopicRefusedError, TopicsMissingError
from tests.kit.patience import PATIENCE_SECS, tell
from tests.kit.world import KEY, free_port, start_worker

ROOT = Path(__file__).resolve().parents[2]


def _python(*arguments: str, columns: str = "200") -> subprocess.CompletedProcess[str]:
    return _interpreter("-m", "connector", *arguments, columns=columns)


def _interpreter(*arguments: str, columns: str = "200") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": columns},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECS,
    )


def test_the_module_runs_as_the_command_does() -> None:
    result = _python("--version")

    assert (result.returncode, result.stdout, result.stderr) == (0, f"trackly-connector {__version__}\n", "")


def test_ctrl_c_while_modules_are_loaded_leaves_no_traceback() -> None:
    """What typer does with it comes too late: it takes longer to load than to type."""
    interrupted = """
import sys
import connector.__main__
class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
connector.__main__.main()
"""
    result = _interpreter("-c", interrupted)

    assert (result.returncode, result.stdout, result.stderr) == (ExitCode.INTERRUPTED, "", "")


def test_another_system_than_linux_is_reported_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    with pytest.raises(SystemExit, match="runs on Linux; on other systems run it in a container"):
        connector.__main__.main()


def test_sigterm_while_modules_are_loaded_ends_the_first_process_of_a_container() -> None:
    """The kernel keeps a signal without a handler from it; it would start, post, and be killed in the middle of it."""
    told_to_end = """
import os, signal, sys
import connector.__main__
own = os.getpid()
os.getpid = lambda: 1
class Ending:
    def find_spec(self, name, *_):
        if name == "typer":
            os.kill(own, signal.SIGTERM)
sys.meta_path.insert(0, Ending())
connector.__main__.main()
"""
    result = _interpreter("-c", told_to_end)

    assert (result.returncode, result.stderr) == (128 + signal.SIGTERM, "")


def test_help_names_every_command_and_exit_code() -> None:
    result = _python("--help")

    assert result.returncode == 0
    for word in ("run", "check", "simulate", "demo", "schema", "Exit codes: 0 ok, 1 failed, 2 bad settings"):
        assert word in result.stdout
    for code in ExitCode:
        assert f" {code.value} " in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chekc", "c.yaml"], "Error: No such command 'chekc'. Did you mean 'check'?"),
        (["check", "--onlin", "c.yaml"], "Error: No such option: --onlin (Possible options: --json, --online)"),
        (["check"], "Error: Missing argument 'SETTINGS'."),
        (
            ["explain", "c.yaml", "--sample", "a", "--last", "3"],
            "Error: Invalid value for --last: is only for a topic; with --sample everything is shown",
        ),
        (["dead-letters", "redrvie"], "Error: No such command 'redrvie'. Did you mean 'redrive'?"),
        (
            ["acls", "c.yaml", "--format", "tabel"],
            "Error: Invalid value for '--format': 'tabel' is not one of 'table', 'commands', 'strimzi', 'json'.",
        ),
        (
            ["dead-letters", "redrive", "c.yaml", "--include", "doubt"],
            "Error: Invalid value for '--include': 'doubt' is not one of 'in_doubt'.",
        ),
    ],
)
def test_slips_in_arguments_are_reported_in_plain_lines_where_nobody_watches(arguments: list[str], said: str) -> None:
    """In the log of a deployment nothing is drawn around them, and no line is broken where a terminal would end."""
    result = _python(*arguments, columns="40")

    assert (result.returncode, result.stdout) == (2, "")
    # Click says it shorter from 8.3 on where there is one choice; newer versions of typer bring one of their own.
    assert result.stderr.splitlines()[-1].replace("is not 'in_doubt'", "is not one of 'in_doubt'") == said


@pytest.mark.parametrize("arguments", [["--help"], ["dead-letters", "redrive", "--help"]])
def test_help_that_goes_elsewhere_than_to_a_terminal_has_no_frame(arguments: list[str]) -> None:
    result = _python(*arguments)

    assert result.returncode == 0
    assert not set(result.stdout) & set("│╭─")


@pytest.mark.parametrize("arguments", [["nonsense"], ["check"], ["check", "--nonsense", "x"], ["schema", "--list=5"]])
def test_bad_arguments_exit_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == ExitCode.BAD_SETTINGS


@pytest.mark.parametrize("command", ["check", "run"])
def test_settings_that_cannot_be_used_exit_with_2_and_without_a_traceback(command: str, tmp_path: Path) -> None:
    path = tmp_path / "nothing.yaml"

    result = _python(command, str(path))

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"{path} cannot be used:\n  cannot read the file: No such file or directory\n"


def test_help_and_checking_settings_need_neither_kafka_nor_the_application() -> None:
    code = (
        "import sys, connector.cli.main; "
        "print([name for name in sys.modules if name in {'faust', 'confluent_kafka', 'httpx'}])"
    )

    result = _interpreter("-c", code)

    assert (result.returncode, result.stdout) == (0, "[]\n")


def test_schema_without_a_name_lists_all() -> None:
    for arguments in (["schema"], ["schema", "--list"], ["schema", "settings", "--list"]):
        assert CliRunner().invoke(app, arguments).stdout.splitlines() == schema_names()


@pytest.mark.parametrize("name", ["settings", "settings.v1"])
def test_schema_prints_the_file_that_ships(name: str) -> None:
    result = CliRunner().invoke(app, ["schema", name])

    assert result.exit_code == 0
    assert result.stdout == (ROOT / "schemas" / "settings.v1.schema.json").read_text()


def test_an_unknown_schema_exits_with_2_and_names_the_known_ones() -> None:
    result = CliRunner().invoke(app, ["schema", "nothing"])

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[0] == "error: there is no schema nothing"
    assert "settings.v1" in result.stderr.splitlines()[1]


def _ending_with(error: Exception) -> typer.Typer:
    failing = typer.Typer(pretty_exceptions_enable=False)

    @failing.command()
    @reported()
    def fail(number: int = 0) -> None:
        """Fail."""
        assert number == 0
        raise error

    return failing


def _kafka_trouble(*, fenced: bool = False, unauthorized: bool = False) -> KafkaTroubleError:
    trouble = KafkaTroubleError("no answer [x]")
    trouble.fenced, trouble.unauthorized = fenced, unauthorized
    return trouble


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (CommandError("no answer [x]", ExitCode.PLATFORM_REFUSED, way_out="wait"), 6),
        (CommandError("no answer [x]", ExitCode.STOPPED_IN_DOUBT, way_out="wait"), 5),
        (_kafka_trouble(fenced=True), 4),
        (_kafka_trouble(), 3),
        (_kafka_trouble(unauthorized=True), 1),
        (BrokerUnavailableError("no answer [x]"), 3),
        (PagesError("no answer [x]"), 1),
        (TemporaryFolderError("no answer [x]"), 1),
        (TopicsMissingError("no answer [x]"), 2),
        (TopicRefusedError("no answer [x]"), 2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_foreseeable_trouble_is_a_line_with_its_hint_and_a_code(error: Exception, code: int) -> None:
    result = CliRunner().invoke(_ending_with(error))

    told, way_out = result.stderr.splitlines()
    assert (result.exit_code, result.stdout, told) == (code, "", f"error: {error}")
    assert way_out.startswith("hint: ")


def test_a_hint_is_reported() -> None:
    error = CommandError("taken", ExitCode.INSTANCE_ID_IN_USE, way_out="set instance_id")

    assert CliRunner().invoke(_ending_with(error)).stderr == "error: taken\nhint: set instance_id\n"


def test_every_problem_of_settings_is_reported() -> None:
    error = SettingsError(Path("c.yaml"), [Problem("a", "is wrong", 3), Problem("b[0]", "too")])

    result = CliRunner().invoke(_ending_with(error))

    assert result.exit_code == 2
    assert result.stderr == "c.yaml cannot be used:\n  a: is wrong (line 3)\n  b[0]: too\n"


def test_a_bug_keeps_its_traceback() -> None:
    error = ZeroDivisionError("a bug")

    assert CliRunner().invoke(_ending_with(error)).exception is error


def test_exit_codes_are_published_and_stay() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "BAD_SETTINGS": 2,
        "BROKER_UNREACHABLE": 3,
        "INSTANCE_ID_IN_USE": 4,
        "STOPPED_IN_DOUBT": 5,
        "PLATFORM_REFUSED": 6,
        "INTERRUPTED": 130,
    }


def test_check_speaks_json_through_the_console_entry(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("streams: []\n")

    result = _python("check", str(tmp_path / "c.yaml"), "--json")

    assert result.returncode == 2
    assert [problem["path"] for problem in json.loads(result.stdout)["problems"]] == ["kafka", "trackly", "streams"]


_ENDED_TWICE = """
import os, signal, threading, time
from connector.cli import run

def again():
    threading.main_thread().join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)

run._obey_sigterm()
threading.Thread(target=again).start()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(30)
"""


def test_a_second_sigterm_at_the_very_beginning_does_not_break_into_the_end() -> None:
    """It reaches the interpreter while that waits for threads, where what a handler raises is printed."""
    result = _interpreter("-c", _ENDED_TWICE)

    assert (result.returncode, result.stderr) == (0, "")


_ENDED_IN_A_FINALIZER = """
import os, signal
from connector.cli import run

class Client:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)

run._obey_sigterm()
Client()
print("goes on")
"""


def test_a_sigterm_that_finds_a_finalizer_running_is_obeyed() -> None:
    """What a handler raises there is printed and forgotten; a start drops one client of Kafka after another."""
    result = _interpreter("-c", _ENDED_IN_A_FINALIZER)

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


_NOT_LISTENING_YET = """
import os, signal
from connector.cli import run
from connector.processes import hear_requests

run._obey_sigterm()
os.kill(os.getpid(), signal.{name})
print("lives")
signal.signal(signal.{name}, lambda *_: print("hears it"))
hear_requests()
"""


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1"])
def test_a_signal_that_is_not_listened_for_yet_waits_until_it_is(name: str) -> None:
    """`systemctl reload` while a start waits for brokers would end the service for good: SIGHUP is an end in order."""
    program = _NOT_LISTENING_YET.format(name=name)

    result = _interpreter("-c", program)

    assert (result.returncode, result.stdout) == (0, "lives\nhears it\n")


def test_a_worker_that_starts_after_the_log_was_switched_begins_with_level_debug(tmp_path: Path) -> None:
    stream = {"name": "s", "topics": ["t"], "operation": "send", "list_number": "+18005551234"}
    topics = {"outcomes": {"topic": "o"}, "dead_letters": {"topic": "d"}}
    settings = {
        "kafka": {"bootstrap_servers": f"127.0.0.1:{free_port()}", "startup_timeout_secs": 1},
        "trackly": {"api_key": KEY},
        "streams": [stream | topics],
    }
    path = tmp_path / "connector.yaml"
    path.write_text(json.dumps(settings))

    result = _python("worker", str(path), "0", "--instance-id", "one", "--copy", str(path), "--log-switched")

    told = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert result.returncode == ExitCode.BROKER_UNREACHABLE, result.stderr
    assert [(line["worker"], line["to"]) for line in told if line["event"] == "log level changed"] == [(0, "debug")]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["schema", "settings"], ["acls"], ["check"]])
def test_output_that_cannot_be_written_is_reported_in_one_line(
    arguments: list[str], unbuffered: str, tmp_path: Path
) -> None:
    if arguments in (["acls"], ["check"]):
        arguments = [*arguments, str(tmp_path / "connector.yaml")]
        (tmp_path / "connector.yaml").write_text(
            "kafka: {bootstrap_servers: a}\ntrackly: {api_key: trk_key}\nstreams:\n"
            "  - {name: s, topics: [in], operation: send, outcomes: {topic: out}, dead_letters: {topic: dead}}\n"
        )

    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "connector", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert (result.returncode, result.stderr) == (1, "cannot write the output: No space left on device\n")


def test_a_closed_stdin_is_read_as_an_empty_one(tmp_path: Path) -> None:
    """For Python there is none then, and reading from it, or asking for confirmation, would end with a traceback."""
    stream = {"name": "s", "topics": ["t"], "operation": "send", "list_number": "+18005551234"}
    settings = {
        "kafka": {"bootstrap_servers": "127.0.0.1:1"},
        "trackly": {"api_key": KEY},
        "streams": [stream | {"outcomes": {"topic": "o"}, "dead_letters": {"topic": "d"}}],
    }
    path = tmp_path / "connector.yaml"
    path.write_text(json.dumps(settings))
    shell = f'exec "{sys.executable}" -m connector explain "{path}" --sample - <&-'

    result = subprocess.run(
        ["/bin/sh", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE_SECS
    )

    assert (result.returncode, result.stderr.splitlines()[0]) == (2, "error: - contains no sample")


_STDERR = {"closed": "exec 2>&-", "full": "exec 2>/dev/full", "all closed": "exec <&- >&- 2>&-"}


@pytest.mark.parametrize(("command", "stderr"), [("run", "closed"), ("run", "full"), ("run --workers 2", "all closed")])
def test_a_worker_with_a_blocked_stderr_ends_with_its_usual_code(command: str, stderr: str, tmp_path: Path) -> None:
    """Whoever starts it again goes by the code: Python's own for a stderr that cannot be written is 120."""
    stream = {"name": "s", "topics": ["t"], "operation": "send", "list_number": "+18005551234"}
    topics = {"outcomes": {"topic": "o"}, "dead_letters": {"topic": "d"}}
    settings = {
        "kafka": {"bootstrap_servers": f"127.0.0.1:{free_port()}", "startup_timeout_secs": 1},
        "trackly": {"api_key": KEY},
        "web": {"port": free_port()},
        "streams": [stream | topics],
    }
    path = tmp_path / "connector.yaml"
    path.write_text(json.dumps(settings))
    shell = f'{_STDERR[stderr]}; exec "{sys.executable}" -m connector {command} "{path}"'

    result = subprocess.run(["/bin/sh", "-c", shell], cwd=ROOT, check=False, timeout=PATIENCE_SECS)

    assert result.returncode == ExitCode.BROKER_UNREACHABLE


_SECOND_SIGNAL = """
import sys
from connector.app.application import Connector

sys.stderr = open("/dev/full", "w", buffering=1)
Connector._stop_at_once(None)
"""


def test_a_second_signal_is_obeyed_without_output() -> None:
    result = subprocess.run([sys.executable, "-c", _SECOND_SIGNAL], cwd=ROOT, check=False, timeout=PATIENCE_SECS)

    assert result.returncode == ExitCode.STOPPED_IN_DOUBT


def test_a_worker_that_waits_for_brokers_ends_at_once(tmp_path: Path) -> None:
    """A call to a client lets no signal through until it has its answer, or gives up."""
    where = f"127.0.0.1:{free_port()}"
    stream = {"name": "s", "topics": ["t"], "operation": "send", "list_number": "+18005551234"}
    topics = {"outcomes": {"topic": "o"}, "dead_letters": {"topic": "d"}}
    settings = {
        "kafka": {"bootstrap_servers": where},
        "trackly": {"base_url": f"http://{where}", "api_key": KEY},
        "streams": [stream | topics],
    }
    worker = start_worker(settings, tmp_path, "worker")
    deadline = time.monotonic() + PATIENCE_SECS
    while "no broker answers yet" not in worker.log.read_text():
        assert time.monotonic() < deadline, worker.log.read_text()
        time.sleep(0.05)
    time.sleep(1.5)  # it waits a second before it asks again, for five

    told = time.monotonic()
    worker.signal(signal.SIGTERM)
    code = worker.process.wait(PATIENCE_SECS)

    tell("ended after SIGTERM", time.monotonic() - told, 1)
    assert code == 0


def test_commands_for_dead_letters_refuse_what_librdkafka_refuses(tmp_path: Path) -> None:
    path = tmp_path / "connector.yaml"
    path.write_text(
        "kafka: {bootstrap_servers: a, properties: {foo.bar: 1}}\ntrackly: {api_key: trk_key}\nstreams:\n"
        "  - {name: s, topics: [in], operation: send, outcomes: {topic: out}, dead_letters: {topic: dead}}\n"
    )

    result = CliRunner().invoke(app, ["dead-letters", "stats", str(path)])

    assert result.exit_code == 2
    assert 'kafka.properties["foo.bar"]: librdkafka rejects it' in result.stderr


_PRINTING = """
import sys
from connector.cli import main
import typer
app = typer.Typer()
@app.command()
def say() -> None:
    sys.stdout.write("\\u00fc \\u2014 \\udcff")
main.app = app
sys.argv[1:] = []
main.main()
"""


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8:strict"])
def test_what_is_no_terminal_gets_utf_8_and_names_of_files_as_they_are(encoding: str) -> None:
    """JSON is UTF-8, and an export that is not could not be imported: whatever the locale of a cron job is."""
    environment = os.environ | {"PYTHONIOENCODING": encoding}

    result = subprocess.run(
        [sys.executable, "-c", _PRINTING],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=False,
        timeout=PATIENCE_SECS,
    )

    assert (result.returncode, result.stdout) == (0, "\u00fc \u2014 ".encode() + b"\xff"), result.stderr.decode()
