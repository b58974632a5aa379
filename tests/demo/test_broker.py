"""The broker of the other tests: it behaves as specified when it is stopped, killed, or abandoned."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from connector.demo.artifacts import BrokerUnavailableError, kafka_jars
from connector.demo.broker import Broker, wait_until_ready
from connector.demo.finding import find_broker
from connector.demo.topics import Record, Topics, read_topic
from tests.conftest import MakeBroker
from tests.kit.brokers import Listener, archive_classes, archive_of_classes, sasl_plain, start_broker
from tests.kit.patience import PATIENCE_SECS


def _is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and waits to be collected does not."""
    try:
        return _state(Path(f"/proc/{pid}/stat")) != "Z"
    except FileNotFoundError:
        return False


def _state(stat: Path) -> str:
    """Return the letter by which Linux tells what a process or thread does: T, it is stopped; Z, it has ended."""
    return stat.read_text().rpartition(")")[2].split()[0]


def _wait_until_dead(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while _is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.02)


def test_address_and_data_outlast_stop_and_kill(make_broker: MakeBroker) -> None:
    broker = make_broker()
    address, topics = broker.bootstrap_servers, Topics(broker.bootstrap_servers)
    topic = topics.create(partitions=2)
    topics.produce(topic, [Record(b"first"), Record(b"second")])

    first_pid = broker.pid
    broker.stop()
    assert broker.pid is None
    with pytest.raises(BrokerUnavailableError):
        wait_until_ready(address, 0.5)
    broker.restart()
    topics.produce(topic, [Record(b"third")])

    second_pid = broker.pid
    broker.kill()
    assert broker.pid is None
    broker.restart()

    assert broker.bootstrap_servers == address
    assert len({first_pid, second_pid, broker.pid}) == 3
    assert sorted(m.value() or b"" for m in topics.read(topic)) == [b"first", b"second", b"third"]


@pytest.fixture
def archive(kafka_by_java: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give brokers a cache of their own, which has the jars alone; return where they have their archive of classes."""
    jars = kafka_jars()
    folder = tmp_path / "trackly-connector" / jars.parent.name
    folder.mkdir(parents=True)
    for item in (jars, jars.parent / "pom.xml"):
        (folder / item.name).symlink_to(item)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return archive_of_classes()


def _takes_classes_from(broker: Broker, archive: Path) -> bool:
    return str(archive) in Path(f"/proc/{broker.pid}/maps").read_text()


def test_classes_are_archived_once_by_whoever_is_first_and_later_brokers_take_them_from_there(archive: Path) -> None:
    with ThreadPoolExecutor() as makers:
        list(makers.map(archive_classes, [archive] * 3))

    assert sorted(archive.parent.iterdir()) == sorted(
        [archive, archive.with_suffix(".lock"), *(archive.with_name(name) for name in ("libs", "pom.xml"))]
    )
    assert b"kafka/server/BrokerServer" in archive.read_bytes()  # which formatting alone does not load
    with start_broker() as broker:
        assert _takes_classes_from(broker, archive)


def test_where_no_archive_of_classes_can_be_written_none_is(archive: Path) -> None:
    archive.with_suffix(".lock").mkdir()

    archive_classes(archive)

    assert not archive.exists()


def test_a_broker_starts_without_an_archive_of_classes_that_another_java_has_left(archive: Path) -> None:
    archive.write_bytes(b"of another one")

    with start_broker() as broker:
        assert not _takes_classes_from(broker, archive)


def test_a_paused_broker_stands_still_answers_when_it_is_resumed_and_is_gone_when_it_is_closed(
    make_broker: MakeBroker,
) -> None:
    broker = make_broker()

    for _ in range(50):  # a thread that still runs is caught by about every second try
        broker.pause()
        assert {_state(stat) for stat in Path(f"/proc/{broker.pid}/task").glob("*/stat")} == {"T"}
        broker.resume()
    broker.pause()
    with pytest.raises(BrokerUnavailableError):
        wait_until_ready(broker.bootstrap_servers, 1)
    broker.resume()

    wait_until_ready(broker.bootstrap_servers, PATIENCE_SECS)

    pid, home = broker.pid, broker.log.parent

    broker.close()

    assert pid is not None
    assert not _is_alive(pid)
    assert not home.exists()


def test_properties_and_listeners_of_the_tests_own(make_broker: MakeBroker) -> None:
    """One broker with all of it: a property, users by password in two ways, an address that clients are sent to."""
    module = "org.apache.kafka.common.security.scram.ScramLoginModule"
    broker = make_broker(
        {"auto.create.topics.enable": "true", "num.partitions": "3"},
        listeners=[
            sasl_plain("PASSWORD", {"ada": "secret"}),
            Listener(
                "SCRAM",
                "SASL_PLAINTEXT",
                {
                    "sasl.enabled.mechanisms": "SCRAM-SHA-256",
                    "scram-sha-256.sasl.jaas.config": f"{module} required;",
                },
            ),
            Listener("PROXIED", advertised="127.0.0.1:1"),
        ],
        scram_users={"grace": "hidden"},
    )

    def ask(listener: str, patience: float = 60, /, **properties: str) -> tuple[int, str]:
        settings = {name.replace("_", "."): value for name, value in properties.items()}
        deadline = time.monotonic() + patience
        while True:
            # One client may learn of the address that it cannot reach before its own question is out: a new one asks.
            client = AdminClient({"bootstrap.servers": broker.address(listener), "log_level": 0, **settings})
            try:
                metadata = client.list_topics(timeout=3)
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
            else:
                return len(metadata.brokers), str(next(iter(metadata.brokers.values())))

    known = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "ada"}
    by_scram = known | {"sasl_mechanism": "SCRAM-SHA-256", "sasl_username": "grace"}
    assert ask("PASSWORD", **known, sasl_password="secret")[0] == 1
    assert ask("SCRAM", **by_scram, sasl_password="hidden")[0] == 1
    assert ask("PROXIED")[1].startswith("127.0.0.1:1/")
    with pytest.raises(KafkaException):
        ask("PASSWORD", 0, **known, sasl_password="wrong")
    asked = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    assert asked.list_topics(timeout=PATIENCE_SECS).topics == {}


@pytest.mark.usefixtures("quick_java")
def test_a_broker_that_cannot_start_says_why() -> None:
    with pytest.raises(BrokerUnavailableError, match=r"no\.such\.compression"):
        Broker.start(properties={"compression.type": "no.such.compression"})


_PARENT = """
import sys, threading
from connector.demo.broker import Broker
brokers = []
starter = threading.Thread(target=lambda: brokers.append(Broker.start()))  # a thread that ends before the broker does
starter.start()
starter.join()
print(brokers[0].pid, brokers[0].bootstrap_servers, flush=True)
sys.stdin.read()
"""


@pytest.mark.usefixtures("quick_java")
def test_it_ends_with_the_process_that_started_it_even_by_kill_9(tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path)}  # nobody is left to remove the data
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid, address = parent.stdout.readline().split()
        wait_until_ready(address, PATIENCE_SECS)  # still there, though the thread that started it is not

        parent.send_signal(signal.SIGKILL)
        parent.wait()

    _wait_until_dead(int(pid))


def test_a_given_broker_that_does_not_answer_is_not_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector.demo.finding._GIVEN_TIMEOUT_SECS", 0.3)

    with pytest.raises(BrokerUnavailableError, match="does not answer"):
        find_broker("127.0.0.1:1", allow_mock=True)


def test_without_any_broker_each_way_says_why_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BrokerUnavailableError) as caught:
        find_broker()

    assert "Java and Maven: java is not installed" in str(caught.value)
    assert "Docker: docker is not installed" in str(caught.value)
    assert "--bootstrap-servers" in str(caught.value)


def test_the_mock_cluster_is_the_last_resort_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    with find_broker(allow_mock=True) as found:
        topics = Topics(found.bootstrap_servers, auto_created=True)
        topic = topics.create()
        topics.produce(topic, [Record(b"a"), Record(b"b")])
        read = [m.value() for chunk in read_topic(found.bootstrap_servers, topic) for m in chunk]

    assert (found.kind, found.is_transactional) == ("mock", False)
    assert "NO REAL BROKER" in found.description
    assert set(found.skipped) == {"Java and Maven", "Docker"}
    assert sorted(value or b"" for value in read) == [b"a", b"b"]
