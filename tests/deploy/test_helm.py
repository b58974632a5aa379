"""The chart: three sets of values render, and what they render to is valid, fits together and keeps the promises.

Helm is taken from the PATH, or built once from its Go module; where neither can be had these tests are left out.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import pytest
import yaml

from connector import __version__
from connector.app.acls import needed, strimzi
from connector.config.load import load_settings
from connector.config.settings import Settings
from tests.deploy.conftest import DEPLOY
from tests.kit.go_tools import BUILD_SECS, ToolUnavailableError, tool
from tests.kit.programs import leave_out, program

CHART: Final = DEPLOY / "helm" / "trackly-connector"
SETS: Final = ("minimal", "production", "strimzi-keda")
KUBERNETES: Final = ("1.27", "1.34")
"""The oldest that the chart takes, and a newer one."""

SECRETS: Final = "/run/secrets/trackly-connector"
CUSTOM: Final = {
    json.loads(path.read_text())["title"]: json.loads(path.read_text())
    for path in (Path(__file__).parent / "custom_resources").glob("*.json")
}

pytestmark = pytest.mark.timeout(BUILD_SECS + 120)

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


@pytest.fixture(scope="session")
def helm() -> Path:
    try:
        return tool("helm")
    except ToolUnavailableError as error:
        leave_out(str(error))


def _run(helm: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([helm, *arguments], capture_output=True, text=True, check=False)


def _template(helm: Path, name: str, *options: str, version: str = KUBERNETES[-1]) -> subprocess.CompletedProcess[str]:
    values = str(CHART / "ci" / f"{name}-values.yaml")
    fixed = ["--namespace", "sms", "--kube-version", version]
    return _run(helm, "template", "texts", str(CHART), "--values", values, *fixed, *options)


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    def rendered(name: str, *options: str, version: str = KUBERNETES[-1]) -> list[Manifest]:
        result = _template(helm, name, *options, version=version)
        assert result.returncode == 0, result.stderr
        return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]

    return rendered


def _of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def _only(manifests: list[Manifest], kind: str) -> Manifest:
    (found,) = _of_kind(manifests, kind)
    return found


def _settings(manifests: list[Manifest], folder: Path) -> Settings:
    """Load the settings as a pod does, with the files of its secrets."""
    pod = _only(manifests, "StatefulSet")["spec"]["template"]["spec"]
    files = [
        item["path"]
        for volume in pod["volumes"]
        for source in volume.get("projected", {}).get("sources", ())
        for item in source["secret"]["items"]
    ]
    for name in files:
        (folder / name).write_text("trk_0123456789abcdef0123456789abcdef\n")
    path = folder / "connector.yaml"
    path.write_text(_only(manifests, "ConfigMap")["data"]["connector.yaml"].replace(SECRETS, str(folder)))
    return load_settings(path)


@pytest.mark.parametrize("name", SETS)
def test_the_chart_is_linted_strictly(helm: Path, name: str) -> None:
    values = str(CHART / "ci" / f"{name}-values.yaml")

    result = _run(helm, "lint", "--strict", str(CHART), "--values", values)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "[WARNING]" not in result.stdout


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", SETS)
def test_every_manifest_is_valid(render: Render, name: str, version: str) -> None:
    for manifest in render(name, version=f"{version}.0"):
        if (schema := CUSTOM.get(manifest["kind"])) is not None:
            jsonschema.validate(manifest, schema, cls=jsonschema.Draft202012Validator)
        else:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_sets_have_the_kinds_that_they_ask_for(render: Render) -> None:
    always = {"ConfigMap", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"}

    kinds = {name: {manifest["kind"] for manifest in render(name)} for name in SETS}

    assert kinds["minimal"] == always
    assert kinds["production"] == always | {"NetworkPolicy", "PodMonitor"}
    assert kinds["strimzi-keda"] == always | {"KafkaTopic", "KafkaUser", "ScaledObject"}


@pytest.mark.parametrize("name", SETS)
def test_the_settings_load_and_the_grace_period_covers_the_drain(render: Render, name: str, tmp_path: Path) -> None:
    manifests = render(name)
    settings = _settings(manifests, tmp_path)
    pod = _only(manifests, "StatefulSet")["spec"]["template"]["spec"]

    assert pod["terminationGracePeriodSeconds"] >= settings.shutdown.grace_secs
    assert settings.shutdown.grace_secs >= max(stream.delivery.drain_secs for stream in settings.streams) + 10
    assert settings.web.host == "0.0.0.0"
    assert settings.web.port == pod["containers"][0]["ports"][0]["containerPort"]
    assert settings.instance_id is None, "it comes from the pod's name"
    startup = pod["containers"][0]["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > settings.kafka.startup_timeout_secs


def test_large_numbers_arrive_as_they_are(render: Render, tmp_path: Path) -> None:
    settings = _settings(render("production"), tmp_path)

    assert settings.buffer.max_bytes == 128_000_000
    assert settings.streams[0].delivery.max_in_flight_records == 10_000_000
    assert settings.streams[0].delivery.drain_secs == 75.5


@pytest.mark.parametrize("name", SETS)
def test_a_pod_may_do_no_more_than_it_must(render: Render, name: str) -> None:
    pod = _only(render(name), "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    user = re.search(r"--uid (\d+)", (DEPLOY / "docker" / "Dockerfile").read_text())
    assert user is not None
    assert pod["securityContext"]["runAsUser"] == int(user[1])
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/tmp", "/var/lib/trackly-connector"}


@pytest.mark.parametrize("name", SETS)
def test_no_secret_is_in_a_manifest(render: Render, name: str) -> None:
    manifests = render(name)
    settings = json.loads(_only(manifests, "ConfigMap")["data"]["connector.yaml"])

    assert settings["trackly"]["api_key"] == "${file:" + SECRETS + "/api_key}"
    assert _of_kind(manifests, "Secret") == []


def test_names_stay_over_restarts_and_are_found(render: Render) -> None:
    manifests = render("minimal")
    stateful = _only(manifests, "StatefulSet")["spec"]
    service = _only(manifests, "Service")
    labels = stateful["template"]["metadata"]["labels"]

    assert stateful["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    for selector in (
        service["spec"]["selector"],
        stateful["selector"]["matchLabels"],
        _only(manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()


def _rights(entries: list[dict[str, Any]]) -> dict[tuple[str, ...], set[str]]:
    found = {tuple(sorted(entry["resource"].items())): set(entry["operations"]) for entry in entries}
    assert len(found) == len(entries)
    return {tuple(f"{name}={value}" for name, value in resource): told for resource, told in found.items()}


@pytest.mark.parametrize("creating", [0, 3])
def test_the_rights_of_the_user_are_those_that_the_code_computes(render: Render, creating: int, tmp_path: Path) -> None:
    options = ["--set", "settings.streams[0].create_topics.enabled=true"] if creating else []
    manifests = render("strimzi-keda", *options)
    settings = _settings(manifests, tmp_path)
    user = _only(manifests, "KafkaUser")
    acls = user["spec"]["authorization"]["acls"]

    assert _rights(acls) == _rights(strimzi(needed(settings, "worker")))
    assert sum("Create" in acl["operations"] for acl in acls) == creating
    assert settings.kafka.security.username == user["metadata"]["name"]


def test_topics_are_made_for_results_and_not_for_what_is_read(render: Render, tmp_path: Path) -> None:
    manifests = render("strimzi-keda")
    settings = _settings(manifests, tmp_path)
    made = _of_kind(manifests, "KafkaTopic")
    topics = [manifest["spec"] for manifest in made]

    assert {topic["metadata"]["annotations"]["helm.sh/resource-policy"] for topic in made} == {"keep"}
    assert {topic["topicName"] for topic in topics} == {
        topic
        for stream in settings.streams
        for topic in (stream.outcomes.topic, stream.dead_letters.topic, stream.redrive_topic)
    }
    assert {topic["config"]["retention.ms"] for topic in topics} == {336 * 3_600_000, 168 * 3_600_000}


def test_workers_are_left_to_the_scaler_where_there_is_one(render: Render) -> None:
    manifests = render("strimzi-keda")
    target = _only(manifests, "ScaledObject")["spec"]["scaleTargetRef"]
    stateful = _only(manifests, "StatefulSet")

    assert "replicas" not in stateful["spec"]
    assert (target["kind"], target["name"]) == ("StatefulSet", stateful["metadata"]["name"])


_POD = 'namespace="sms",pod="texts-trackly-connector-0",instance="a"'


@pytest.mark.parametrize(
    ("series", "answer"),
    [
        ({'trackly_lag_records{POD,stream="a"}': 700, 'trackly_lag_records{POD,stream="b"}': 20}, 720),
        (
            {
                'trackly_lag_records{POD,stream="a"}': 700,
                'trackly_lag_records{POD,stream="b"}': 20,
                'trackly_hold{POD,stream="a",reason="outage"}': 1,
                'trackly_hold{POD,stream="a",reason="in_doubt"}': 1,
            },
            20,
        ),
        ({'trackly_lag_records{POD,stream="a"}': 700, 'trackly_hold{POD,stream="a",reason="outage"}': 1}, 0),
        ({'trackly_lag_records{POD,stream="a"}': 700, 'trackly_pace_backlog_seconds{POD,stream="a"}': 90}, 0),
        ({'trackly_lag_records{POD,stream="a"}': 700, 'trackly_pace_backlog_seconds{POD,stream="a"}': 0}, 700),
        (
            {
                'trackly_lag_records{POD,worker="0",stream="a"}': 700,
                'trackly_lag_records{POD,worker="1",stream="a"}': 30,
                'trackly_hold{POD,worker="0",stream="a",reason="in_doubt"}': 1,
            },
            30,
        ),
        ({'trackly_lag_records{namespace="other",pod="x-0",instance="a",stream="a"}': 9}, None),
    ],
    ids=["lag", "one of two holds", "all hold", "pace", "pace kept", "one worker of a pod holds", "others' lag"],
)
def test_lag_that_a_hold_or_a_pace_explains_brings_no_workers(
    render: Render, series: dict[str, int], answer: int | None, tmp_path: Path
) -> None:
    promtool = program("promtool")
    (trigger,) = _only(render("strimzi-keda"), "ScaledObject")["spec"]["triggers"]
    samples = [] if answer is None else [{"labels": "{}", "value": answer}]
    case = {
        "interval": "1m",
        "input_series": [
            {"series": name.replace("POD", _POD), "values": f"{value} {value}"} for name, value in series.items()
        ],
        "promql_expr_test": [{"expr": trigger["metadata"]["query"], "eval_time": "1m", "exp_samples": samples}],
    }
    path = tmp_path / "query_test.yml"
    path.write_text(yaml.safe_dump({"tests": [case]}))

    result = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--set", "settings.streams[0].operatoin=send"], "operatoin"),
        (["--set", "settings.streams[0].batch.max_records=5000"], "/settings/streams/0/batch/max_records"),
        (["--set", "settings.trackly.api_key=trk_0123456789abcdef0123456789abcdef"], "/settings/trackly/api_key"),
        (["--set", "settings.trackly.proxy=http://me:hunter2@proxy:3128"], "/settings/trackly/proxy"),
        (["--set", "settings.schema_registry.url=https://registry,settings.schema_registry.token=hunter2"], "/token"),
        (
            ["--set", "settings.schema_registry.url=https://registry,settings.schema_registry.password=hunter2"],
            "/settings/schema_registry/password",
        ),
        (["--set", "settings.traces.headers.Authorization=Bearer hunter2"], "/settings/traces/headers/Authorization"),
        (["--set", "settings.instance_id=me"], "settings.instance_id: leave it out"),
        (["--set", "replica=3"], "replica"),
        (["--set", "strimzi.enabled=true"], "strimzi.cluster: name the Kafka resource"),
        (["--set", "keda.enabled=true,keda.minReplicas=0"], "/keda/minReplicas"),
        (["--set", "keda.enabled=true,keda.minReplicas=9"], "keda.maxReplicas: must not be below"),
    ],
)
def test_values_that_cannot_work_are_refused_by_name(helm: Path, options: list[str], said: str) -> None:
    result = _template(helm, "minimal", *options)

    assert result.returncode == 1
    assert said in result.stderr


def test_the_network_policy_lets_out_to_brokers_that_are_named_without_a_port(render: Render) -> None:
    servers = r"settings.kafka.bootstrap_servers=kafka1\, kafka-0:9094\,[2001:db8::9]"
    policy = _only(render("minimal", "--set", "networkPolicy.enabled=true", "--set", servers), "NetworkPolicy")

    assert {port["port"] for port in policy["spec"]["egress"][1]["ports"]} == {9092, 9094, 443}


def test_secrets_by_reference_are_taken_wherever_they_stand(helm: Path, tmp_path: Path) -> None:
    file = "${file:/run/secrets/trackly-connector/x}"
    registry = {"url": "https://registry", "username": "u", "password": file}
    traces = {"headers": {"Authorization": f"Bearer {file}"}}
    proxies = [f"http://me:{file}@proxy:3128", "http://proxy:3128"]
    results = []
    for proxy in proxies:
        values = {"settings": {"trackly": {"proxy": proxy}, "schema_registry": registry, "traces": traces}}
        (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
        results.append(_template(helm, "minimal", "--values", str(tmp_path / "values.yaml")).stderr)

    assert results == ["", ""]


def test_what_no_schema_can_say_is_refused_with_the_hint(helm: Path, tmp_path: Path) -> None:
    text = (CHART / "ci" / "strimzi-keda-values.yaml").read_text()
    values = yaml.safe_load(text)
    del values["settings"]["streams"][0]["topics"]
    values["settings"]["streams"][0]["pattern"] = "^sms"
    keyless = {**yaml.safe_load(text), "secretFiles": {}}
    for content, said in ((values, "trackly-connector acls SETTINGS --format strimzi"), (keyless, "name the Secret")):
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump(content))
        fixed = ["--kube-version", KUBERNETES[-1]]

        result = _run(helm, "template", "texts", str(CHART), "--values", str(path), *fixed)

        assert result.returncode == 1
        assert said in result.stderr


def test_the_schema_of_the_values_has_all_their_names() -> None:
    values = json.loads((CHART / "values.schema.json").read_text())

    assert yaml.safe_load((CHART / "values.yaml").read_text()).keys() <= values["properties"].keys()


def test_the_chart_is_of_the_version_that_it_runs() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == __version__
