"""Each rule that spans several settings refuses what breaks it, with its sum, and only that."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme

from connector.config.problems import Problem
from connector.config.settings import Settings

Load = Callable[..., Settings]
Refused = Callable[..., tuple[Problem, ...]]

CERTIFICATE = trustme.CA(key_type=trustme.KeyType.ECDSA).cert_pem


def _stream(**changes: Any) -> dict[str, Any]:
    return {"streams": [changes]}


def _second(**changes: Any) -> dict[str, Any]:
    second = {
        "name": "second",
        "topics": ["in2"],
        "operation": "send",
        "outcomes": {"topic": "out2"},
        "dead_letters": {"topic": "dead2"},
    }
    return {"streams": [{}, second | changes]}


def _sasl(mechanism: str | None = None, protocol: str = "sasl_ssl", **changes: Any) -> dict[str, Any]:
    return {"kafka": {"security": {"protocol": protocol, "sasl_mechanism": mechanism, **changes}}}


def _traces(endpoint: str, *, enabled: bool = True, allow_plain_http: bool = False, **headers: str) -> dict[str, Any]:
    traces = {"enabled": enabled, "endpoint": endpoint, "headers": headers, "allow_plain_http": allow_plain_http}
    return {"traces": traces}


TIME = {
    "request and tick must fit into the drain": (
        {"trackly": {"timeouts": {"total_secs": 39.5}}},
        "streams[0].delivery.drain_secs",
        "must be at least trackly.timeouts.total_secs + 1 for the last tick (39.5 + 1 = 40.5); is 40",
    ),
    "the drain must end before the grace period": (
        {"shutdown": {"grace_secs": 40}},
        "streams[0].delivery.drain_secs",
        "must be below shutdown.grace_secs (40); is 40",
    ),
    "a revoke waits for the drain within the poll interval": (
        {"kafka": {"max_poll_interval_secs": 40}},
        "streams[0].delivery.drain_secs",
        "must be below kafka.max_poll_interval_secs (40); is 40",
    ),
    "two heartbeats must fit into the session": (
        {"kafka": {"heartbeat_interval_secs": 5}},
        "kafka.session_timeout_secs",
        "must be above two heartbeats (2 x 5 = 10); is 10",
    ),
    "the session must fit into the poll interval": (
        {"kafka": {"session_timeout_secs": 301}},
        "kafka.max_poll_interval_secs",
        "must be at least session_timeout_secs (301); is 300",
    ),
    "ticks must come within the time in which a post must start": (
        {"kafka": {"session_timeout_secs": 6.5}, **_stream(delivery={"tick_interval_ms": 500})},
        "streams[0].delivery.tick_interval_ms",
        (
            "must be below the session timeout less two heartbeats, within which a post must start after its tick "
            "(500 ms); is 500"
        ),
    ),
    "a drain and a window may pass without progress": (
        {"health": {"stalled_secs": 100}, **_stream(delivery={"drain_secs": 40}, batch={"window_ms": 60_000})},
        "health.stalled_secs",
        (
            "must be above streams[0].delivery.drain_secs + streams[0].batch.window_ms (40 + 60 = 100), which may pass "
            "without progress; is 100"
        ),
    ),
    "records must not expire while they wait for company": (
        _stream(delivery={"max_age_secs": 30}, batch={"window_ms": 30_000}),
        "streams[0].delivery.max_age_secs",
        "must be above batch.window_ms (30), for which records wait for their batch and grow older; is 30",
    ),
    "connecting is part of the request": (
        {"trackly": {"timeouts": {"connect_secs": 31}}},
        "trackly.timeouts.connect_secs",
        "must be at most total_secs (30); is 31",
    ),
    "idle connections are given up before the platform does": (
        {"trackly": {"platform_idle_secs": 4}},
        "trackly.idle_connection_secs",
        "must be below platform_idle_secs (4); is 4",
    ),
    "librdkafka's sockets give up before the transaction": (
        {"kafka": {"producer_properties": {"socket.timeout.ms": 9_901}}},
        'kafka.producer_properties["socket.timeout.ms"]',
        "must be at most transaction_timeout_secs less 100 ms (10000 - 100 = 9900); is 9901",
    ),
    "the same for common properties": (
        {"kafka": {"properties": {"socket.timeout.ms": 60_000}}},
        'kafka.properties["socket.timeout.ms"]',
        "must be at most transaction_timeout_secs less 100 ms (10000 - 100 = 9900); is 60000",
    ),
    "backoff rises": (
        _stream(retry={"backoff_base_secs": 61}),
        "streams[0].retry.backoff_base_secs",
        "must be at most backoff_max_secs (60); is 61",
    ),
    "probes of the breaker rise": (
        _stream(breaker={"probe_secs": 31}),
        "streams[0].breaker.probe_secs",
        "must be at most probe_max_secs (2); is 31",
    ),
    "probes of a hold rise": (
        _stream(hold={"probe_secs": 60.5}),
        "streams[0].hold.probe_secs",
        "must be at most probe_max_secs (60); is 60.5",
    ),
}

AMOUNTS = {
    "a batch must fit into what may be in flight": (
        _stream(delivery={"max_in_flight_records": 999}),
        "streams[0].delivery.max_in_flight_records",
        "must be at least batch.max_records (1000); is 999",
    ),
    "concurrency must rise": (
        _stream(concurrency={"min": 9, "max": 8}),
        "streams[0].concurrency.min",
        "must be at most concurrency.max (8); is 9",
    ),
    "concurrency must rise to its default in bulk mode": (
        _stream(concurrency={"min": 65}),
        "streams[0].concurrency.min",
        "must be at most the default of max in bulk mode (64); is 65",
    ),
    "a code is transient or a matter of settings": (
        _stream(retry={"setting_codes": ["provider_error", "x"]}),
        "streams[0].retry.setting_codes",
        "has provider_error, which is also in transient_codes",
    ),
}

TOPICS = {
    "a stream reads something": (_stream(topics=[]), "streams[0]", "needs topics or pattern"),
    "a stream reads topics or a pattern": (
        _stream(pattern="^in"),
        "streams[0]",
        "takes topics or pattern, not both",
    ),
    "a topic is named once": (_stream(topics=["a", "b", "a"]), "streams[0].topics", "names a 2 times"),
    "outcomes are not read": (
        _stream(outcomes={"topic": "in"}),
        "streams[0].outcomes.topic",
        "must not be a topic that the stream reads",
    ),
    "dead letters are not read": (
        _stream(dead_letters={"topic": "in"}),
        "streams[0].dead_letters.topic",
        "must not be a topic that the stream reads",
    ),
    "outcomes are not matched": (
        _stream(topics=[], pattern="^o"),
        "streams[0].outcomes.topic",
        "must not match the pattern of topics that the stream reads",
    ),
    "dead letters are not matched": (
        _stream(topics=[], pattern="^dea"),
        "streams[0].dead_letters.topic",
        "must not match the pattern of topics that the stream reads",
    ),
    "a rule is for reasons that there are": (
        _stream(dead_letters={"redrive": [{"name": "again", "reasons": ["save_error", "server_eror"]}]}),
        "streams[0].dead_letters.redrive[0].reasons[1]",
        "is not a reason of a dead letter; did you mean server_error?",
    ),
    "a reason has one rule": (
        _stream(dead_letters={"redrive": [{"name": name, "reasons": ["save_error"]} for name in ("one", "two")]}),
        "streams[0].dead_letters.redrive[1].reasons",
        "has save_error, which is also in rule 0",
    ),
    "a rule waits for no reason in vain": (
        _stream(dead_letters={"redrive": [{"name": "again", "reasons": ["503"]}]}),
        "streams[0].dead_letters.redrive[0].reasons[0]",
        "is not a reason of a dead letter, and the rule would wait for it in vain",
    ),
    "the redrive topic is no output": (
        _stream(dead_letters={"topic": "sends.redrive"}),
        "streams[0].dead_letters.topic",
        "must not be the stream's redrive topic: it is reserved for records sent again",
    ),
    "the redrive topic is no input": (
        _stream(topics=["in", "sends.redrive"]),
        "streams[0].topics",
        "must not list sends.redrive: it is reserved for records sent again",
    ),
    "outcomes and dead letters are apart": (
        _stream(outcomes={"topic": "dead"}),
        "streams[0].dead_letters.topic",
        "must differ from outcomes.topic",
    ),
    "outcomes and dead letters are apart across streams": (
        _second(dead_letters={"topic": "out"}),
        "streams[1].dead_letters.topic",
        "must differ from streams[0].outcomes.topic",
    ),
    "names are unique": (_second(name="sends"), "streams[1].name", "must be unique; sends is that of streams[0]"),
    "groups are unique": (
        _second(group_id="trackly-connector.sends"),
        "streams[1].group_id",
        "must be unique; trackly-connector.sends is that of streams[0]",
    ),
}

OPERATIONS = {
    "history has no single mode": (
        _stream(operation="history", mode="single"),
        "streams[0].mode",
        "must be bulk: the platform has no single mode for history imports",
    ),
    "only texts have a pace": (
        _stream(operation="contacts", pace={"messages_per_minute": 17_000}),
        "streams[0].pace",
        "has no effect with operation contacts",
    ),
    "top level is for sends": (
        _stream(operation="contacts", list_number_placement="top_level"),
        "streams[0].list_number_placement",
        "top_level is only for send in bulk mode",
    ),
    "top level is for bulk": (
        _stream(mode="single", list_number_placement="top_level"),
        "streams[0].list_number_placement",
        "top_level is only for send in bulk mode",
    ),
    "revenue has no list": (
        _stream(operation="revenue", list_number="+18005551234"),
        "streams[0].list_number",
        "has no effect: revenue has no list",
    ),
    "clicks have no list": (
        _stream(operation="history", history={"kind": "clicks"}, list_number="+18005551234"),
        "streams[0].list_number",
        "has no effect: history of clicks has no list",
    ),
    "history is for history": (
        _stream(history={"kind": "clicks"}),
        "streams[0].history",
        "has no effect with operation send",
    ),
    "revenue is for revenue": (
        _stream(revenue={"imported": True}),
        "streams[0].revenue",
        "has no effect with operation send",
    ),
    "a single request has no mark of an import": (
        _stream(operation="revenue", mode="single", revenue={"imported": True}),
        "streams[0].revenue.imported",
        "is only for bulk mode: a single request has no such field",
    ),
    "contacts is for contacts": (
        _stream(contacts={"journeys": True}),
        "streams[0].contacts",
        "has no effect with operation send",
    ),
}

SECURITY = {
    "sasl needs a mechanism": (
        _sasl(),
        "kafka.security.sasl_mechanism",
        "is required with protocol sasl_ssl",
    ),
    "a mechanism needs sasl": (
        _sasl("PLAIN", protocol="ssl", username="u", password="p"),
        "kafka.security.sasl_mechanism",
        "has no effect with protocol ssl; use a sasl protocol",
    ),
    "PLAIN needs a user": (_sasl("PLAIN", password="p"), "kafka.security.username", "is required with PLAIN"),
    "SCRAM needs a password": (
        _sasl("SCRAM-SHA-256", username="u"),
        "kafka.security.password",
        "is required with SCRAM-SHA-256",
    ),
    "a user needs a mechanism": (
        _sasl(protocol="plaintext", username="u"),
        "kafka.security.username",
        "needs sasl_mechanism PLAIN or SCRAM",
    ),
    "OAUTHBEARER takes no password": (
        {
            "kafka": {
                "security": {"protocol": "sasl_ssl", "sasl_mechanism": "OAUTHBEARER", "password": "p"},
                "properties": {"sasl.oauthbearer.method": "oidc"},
            }
        },
        "kafka.security.password",
        "does nothing with OAUTHBEARER",
    ),
    "OAUTHBEARER needs its properties": (
        _sasl("OAUTHBEARER"),
        "kafka.security.sasl_mechanism",
        (
            "OAUTHBEARER needs its details in kafka.properties (sasl.oauthbearer.method, "
            "sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id, ...)"
        ),
    ),
    "a certificate needs its key": (
        _sasl(protocol="ssl", cert_file="is-there.pem"),
        "kafka.security.key_file",
        "is required with cert_file",
    ),
    "a key needs its certificate": (
        _sasl(protocol="ssl", key_file="is-there.pem"),
        "kafka.security.cert_file",
        "is required with key_file",
    ),
    "a key password needs a key": (
        _sasl(protocol="ssl", key_password="p"),
        "kafka.security.key_password",
        "needs key_file",
    ),
    "authorities need ssl": (
        _sasl(protocol="plaintext", ca_file="is-there.pem"),
        "kafka.security.ca_file",
        "has no effect with protocol plaintext; use ssl or sasl_ssl",
    ),
    "a certificate for the platform needs its key": (
        {"trackly": {"tls": {"cert_file": "is-there.pem"}}},
        "trackly.tls.key_file",
        "is required with cert_file",
    ),
    "plain http stays on this machine": (
        {"trackly": {"base_url": "http://platform.example/api/v2"}},
        "trackly.base_url",
        (
            "must be https, since plain http shows the API key and every phone number on the way; for a test set-up, "
            "set trackly.allow_plain_http: true"
        ),
    ),
}

TRACES = {
    "headers of traces do not go over plain http": (
        _traces("http://collector.example:4318/v1/traces", Authorization="Bearer x"),
        "traces.endpoint",
        (
            "must be https, since plain http shows traces.headers, and any token there, on the way; for a collector on "
            "a network of your own, set traces.allow_plain_http: true"
        ),
    ),
    "a user in the address is a header": (
        _traces("https://user:hunter2@collector.example/v1/traces"),
        "traces.endpoint",
        "must not contain a user name or password; a collector knows us by traces.headers",
    ),
    "a header in two lines": (
        _traces("https://collector.example/v1/traces", Authorization="Bearer hunter2\n"),
        "traces.headers.Authorization",
        "must not begin or end with white space (perhaps a line break at the end)",
    ),
    "a header beyond ASCII": (
        _traces("https://collector.example/v1/traces", Authorization="Bearer hünter2"),
        "traces.headers.Authorization",
        "must contain only printable ASCII characters",
    ),
    "a header that says nothing": (
        _traces("https://collector.example/v1/traces", Authorization=""),
        "traces.headers.Authorization",
        "must not be empty",
    ),
}

BROKEN = {**TIME, **AMOUNTS, **TOPICS, **OPERATIONS, **SECURITY, **TRACES}


@pytest.mark.parametrize(("changes", "where", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_rule_is_the_one_problem(
    changes: Mapping[str, Any], where: str, message: str, refused: Refused, tmp_path: Path
) -> None:
    CERTIFICATE.write_to_path(tmp_path / "is-there.pem")

    problems = refused(changes)

    assert [(problem.path, problem.message) for problem in problems] == [(where, message)]


FITTING = {
    "request and tick fill the drain": {"trackly": {"timeouts": {"total_secs": 39}}},
    "ticks come just within the time in which a post must start": {
        "kafka": {"session_timeout_secs": 6.5},
        **_stream(delivery={"tick_interval_ms": 499}),
    },
    "the session fills the poll interval": {"kafka": {"session_timeout_secs": 300}},
    "connecting may take the whole request": {"trackly": {"timeouts": {"connect_secs": 30}}},
    "waits may stay as they begin": _stream(retry={"backoff_base_secs": 60}, hold={"probe_secs": 60}),
    "the session leaves room for two heartbeats": {"kafka": {"heartbeat_interval_secs": 4.9}},
    "sockets give up in time": {"kafka": {"producer_properties": {"socket.timeout.ms": 9_900}}},
    "consumers have no transactions": {"kafka": {"consumer_properties": {"socket.timeout.ms": 60_000}}},
    "sockets of producers give up in time, whatever others do": {
        "kafka": {"properties": {"socket.timeout.ms": 60_000}, "producer_properties": {"socket.timeout.ms": 9_900}}
    },
    "records may wait for company and be young": _stream(delivery={"max_age_secs": 0.3}),
    "single mode waits for no company": _stream(mode="single", delivery={"max_age_secs": 0.1}),
    "single mode has no batches": _stream(mode="single", delivery={"max_in_flight_records": 1}),
    "single mode has a higher default": _stream(mode="single", concurrency={"min": 256}),
    "history of sends has lists": _stream(operation="history", list_number="+18005551234"),
    "an output may be another stream's input": _second(topics=["out"]),
    "streams may share their dead letters": _second(dead_letters={"topic": "dead"}),
    "plain http to this machine": {"trackly": {"base_url": "http://127.0.0.1:9/api/v2"}},
    "plain http to its name": {"trackly": {"base_url": "http://localhost:9/api/v2"}},
    "plain http to its IPv6 address": {"trackly": {"base_url": "http://[::1]:9/api/v2"}},
    "a host with a zone": {"trackly": {"base_url": "https://[fe80::1%25eth0]:9/api/v2"}},
    "a host of a container": {"trackly": {"base_url": "https://the_platform.of-tests.:9/api/v2"}},
    "a host of other letters": {"trackly": {"base_url": "https://b\u00fccher.example/api/v2"}},
    "plain http on demand": {"trackly": {"base_url": "http://sim:9/api/v2", "allow_plain_http": True}},
    "traces over plain http without headers": _traces("http://collector:4318/v1/traces"),
    "traces over plain http to this machine": _traces("http://127.0.0.1:4318/v1/traces", Authorization="x"),
    "traces over plain http on demand": _traces("http://collector:4318", allow_plain_http=True, Authorization="x"),
    "traces that are off": _traces("http://collector:4318/v1/traces", enabled=False, Authorization="x"),
    "a header of several words": _traces("https://collector.example/v1/traces", Authorization="Bearer x y"),
    "OAUTHBEARER with properties": {
        "kafka": {
            "security": {"protocol": "sasl_ssl", "sasl_mechanism": "OAUTHBEARER"},
            "properties": {"sasl.oauthbearer.method": "oidc"},
        }
    },
    "PLAIN with both": _sasl("PLAIN", username="u", password="p"),
    "at least once": _stream(delivery={"guarantee": "at_least_once"}),
}


@pytest.mark.parametrize("changes", FITTING.values(), ids=FITTING.keys())
def test_what_fits_is_loaded(changes: Mapping[str, Any], load: Load) -> None:
    assert load(changes).streams[0].name == "sends"


@pytest.mark.parametrize("group", ["kafka.security", "trackly.tls"])
def test_a_named_file_must_exist_and_relative_ones_start_at_the_settings(
    group: str, load: Load, refused: Refused, tmp_path: Path
) -> None:
    owner, _, section = group.partition(".")
    changes = {owner: {section: {"ca_file": "ca.pem"}}}
    if section == "security":
        changes[owner][section]["protocol"] = "ssl"

    before = refused(changes)
    CERTIFICATE.write_to_path(tmp_path / "ca.pem")
    after = load(changes)

    assert [str(problem).partition(" (line")[0] for problem in before] == [
        f"{group}.ca_file: does not name a file: {tmp_path / 'ca.pem'}"
    ]
    assert getattr(getattr(after, owner), section).ca_file == tmp_path / "ca.pem"


def test_every_file_setting_is_looked_for(refused: Refused) -> None:
    pair = {"ca_file": "a", "cert_file": "b", "key_file": "c"}

    problems = refused({"kafka": {"security": {"protocol": "ssl", **pair}}, "trackly": {"tls": pair}})

    assert {problem.path for problem in problems if problem.message.startswith("does not name a file")} == {
        f"{group}.{name}" for group in ("kafka.security", "trackly.tls") for name in pair
    }
