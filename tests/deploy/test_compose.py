"""The compose file names what is there: images that are built, files, commands, pages, times that fit together."""

import json
import re
import subprocess
from typing import Any

import jsonschema
import pytest
import yaml

from connector.app import pages
from connector.config.load import load_settings
from connector.config.settings import Settings
from connector.demo.artifacts import KAFKA_VERSION
from connector.simulator.settings import BASE_PATH, CONTROL_PATH
from tests.deploy.conftest import COMPOSE_FILE, DEPLOY, environment, vendored_schemas
from tests.docs.commands import problem_with
from tests.kit.programs import program

OURS = ("simulator", "connector")
SERVICE_KEYS = {
    "build", "cap_drop", "command", "depends_on", "environment", "healthcheck", "image", "init", "ports", "read_only",
    "restart", "security_opt", "stop_grace_period", "tmpfs", "volumes",
}  # fmt: skip


@pytest.fixture(scope="module")
def settings(compose: dict[str, Any]) -> Settings:
    return load_settings(DEPLOY / "compose" / "connector.yaml", environ=environment(compose["services"]["connector"]))


def _option(service: dict[str, Any], name: str) -> str:
    command: list[str] = service["command"]
    return command[command.index(name) + 1]


def test_services_have_known_keys_and_an_image(compose: dict[str, Any]) -> None:
    assert set(compose) == {"name", "services", "volumes", "x-ours"}
    for service in compose["services"].values():
        assert set(service) <= SERVICE_KEYS
        assert service["image"]


def test_the_schema_of_compose_files_is_kept(compose: dict[str, Any]) -> None:
    schema = json.loads((vendored_schemas() / "compose-spec.json").read_text())

    jsonschema.validate(compose, schema)


def test_the_broker_is_the_one_that_the_tests_run(compose: dict[str, Any]) -> None:
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"


@pytest.mark.parametrize("name", OURS)
def test_our_image_is_built_from_what_is_there(name: str, compose: dict[str, Any]) -> None:
    build = compose["services"][name]["build"]
    context = COMPOSE_FILE.parent / build["context"]

    assert (context / "pyproject.toml").is_file()
    assert (context / build["dockerfile"]).is_file()


@pytest.mark.parametrize("name", OURS)
def test_commands_exist_with_their_options(name: str, compose: dict[str, Any]) -> None:
    assert problem_with(compose["services"][name]["command"]) is None


def test_what_is_mounted_is_there_or_a_volume_of_the_file(compose: dict[str, Any]) -> None:
    mounts = [mount.split(":") for service in compose["services"].values() for mount in service.get("volumes", ())]

    assert mounts
    for source, target, *_ in mounts:
        assert target.startswith("/")
        assert (COMPOSE_FILE.parent / source).exists() if source.startswith(".") else source in compose["volumes"]


def test_the_connector_reads_the_file_that_is_mounted(compose: dict[str, Any]) -> None:
    service = compose["services"]["connector"]
    (mount,) = service["volumes"]

    assert mount.split(":")[1:] == [service["command"][1], "ro"]


def test_who_is_waited_for_tells_its_health(compose: dict[str, Any]) -> None:
    for service in compose["services"].values():
        for name, condition in service.get("depends_on", {}).items():
            assert condition == {"condition": "service_healthy"}
            assert compose["services"][name]["healthcheck"]["test"][0] == "CMD"


def test_the_settings_load_with_the_variables_of_the_service(settings: Settings, compose: dict[str, Any]) -> None:
    kafka = environment(compose["services"]["kafka"])
    simulator = compose["services"]["simulator"]
    (stream,) = settings.streams

    assert f"INSIDE://{settings.kafka.bootstrap_servers}" in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert settings.trackly.base_url == f"http://simulator:{_option(simulator, '--port')}{BASE_PATH}"
    assert _option(simulator, "--list") == stream.list_number


def test_topics_are_created_as_one_broker_can_hold_them(settings: Settings, compose: dict[str, Any]) -> None:
    kafka = environment(compose["services"]["kafka"])
    (stream,) = settings.streams

    assert stream.create_topics.enabled
    assert stream.create_topics.replication_factor == 1
    assert str(stream.create_topics.partitions) == kafka["KAFKA_NUM_PARTITIONS"]
    factors = {value for name, value in kafka.items() if name.endswith(("REPLICATION_FACTOR", "MIN_ISR"))}
    assert factors == {"1"}


def test_the_broker_serves_the_inside_and_this_machine(compose: dict[str, Any]) -> None:
    service = compose["services"]["kafka"]
    kafka = environment(service)
    names = {listener.partition("://")[0] for listener in kafka["KAFKA_LISTENERS"].split(",")}

    assert names == {pair.partition(":")[0] for pair in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")}
    assert {kafka["KAFKA_INTER_BROKER_LISTENER_NAME"], kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]} <= names
    assert "HOST://localhost:9092" in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert service["ports"] == ["127.0.0.1:9092:9092"]
    assert service["volumes"] == [f"kafka:{kafka['KAFKA_LOG_DIRS']}"]


def test_every_port_is_published_to_this_machine_alone(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service["ports"]]

    assert len(ports) == 5
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_pages_are_served_to_the_published_port(settings: Settings, compose: dict[str, Any]) -> None:
    assert settings.web.host == "0.0.0.0"
    assert compose["services"]["connector"]["ports"] == [f"127.0.0.1:{settings.web.port}:{settings.web.port}"]


def test_the_grace_period_is_the_one_that_the_settings_count_on(settings: Settings, compose: dict[str, Any]) -> None:
    assert compose["services"]["connector"]["stop_grace_period"] == f"{settings.shutdown.grace_secs:g}s"


def test_health_checks_ask_pages_that_exist(compose: dict[str, Any]) -> None:
    simulator = compose["services"]["simulator"]
    code = simulator["healthcheck"]["test"][-1]
    compile(code, "healthcheck", "exec")

    assert f"HTTPConnection('127.0.0.1', {_option(simulator, '--port')}, " in code
    assert re.findall(r"'GET', '([^']+)'", code) == [f"{CONTROL_PATH}/health"]
    assert "healthcheck" not in compose["services"]["connector"]  # the image's own, which asks /healthz
    assert "/healthz" in (pages.__loader__.get_source(pages.__name__) or "")  # type: ignore[union-attr] # a file's


@pytest.mark.parametrize("name", OURS)
def test_our_containers_may_write_where_they_must_and_nowhere_else(name: str, compose: dict[str, Any]) -> None:
    service = compose["services"][name]

    assert service["read_only"]
    assert [mount.partition(":")[0] for mount in service["tmpfs"]] == ["/tmp", "/var/lib/trackly-connector"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_prometheus_scrapes_the_connector_and_grafana_asks_prometheus(
    settings: Settings, compose: dict[str, Any]
) -> None:
    scraping = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text())["datasources"]
    (provider,) = yaml.safe_load((folder / "dashboards" / "trackly-connector.yaml").read_text())["providers"]
    targets = [
        target for job in scraping["scrape_configs"] for config in job["static_configs"] for target in config["targets"]
    ]

    assert targets == [f"connector:{settings.web.port}"]
    assert source["url"] == "http://prometheus:9090"
    assert f"./grafana:{provider['options']['path']}:ro" in compose["services"]["grafana"]["volumes"]


def test_promtool_takes_the_configuration() -> None:
    promtool = program("promtool")

    result = subprocess.run(
        [promtool, "check", "config", "--syntax-only", DEPLOY / "prometheus" / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
