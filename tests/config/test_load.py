"""A settings file becomes settings, or everything that is wrong with it at once, with lines and without secrets."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from connector.config.load import load_settings
from connector.config.problems import Problem, SettingsError
from connector.config.settings import Settings

Load = Callable[..., Settings]
Refused = Callable[..., tuple[Problem, ...]]

SECRET = "hunter2-trk_0123456789"


def _told(path: Path, text: str, **environ: str) -> list[str]:
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ=environ)
    assert str(caught.value).splitlines() == [str(problem) for problem in caught.value.problems]
    return str(caught.value).splitlines()


def test_the_smallest_file_loads_with_defaults(load: Load) -> None:
    settings = load()

    assert settings.streams[0].batch.max_records == 1_000
    assert settings.trackly.base_url == "https://app.tracklysms.com/api/v2"
    assert settings.web.port == 8080


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(path: Path) -> None:
    """References, models, refused properties and rules each find their own; consequences are not told."""
    told = _told(
        path,
        """\
kafka:
  bootstrap_servers: b:1
  bootstrap_servers: c:1
  session_timeout_secs: "5"
  heartbeat_interval_secs: 8
  security: {protocol: sasl_ssl}
  properties: {group.id: x, max.in.flight: 6, odd: [1]}
trackly:
  api_key: "${env:NOPE}"
  timeouts: {total_secs: 60}
streams:
  - name: UPPER
    topics: [a, "b c"]
    list_number: +18005551234
    operation: sned
    batch:
      max_records: 2000
    drain_secs: 4
    delivery: {drian_secs: 70}
    outcomes: {topic: a}
    dead_letters: {topic: a}
  - name: two
    operation: revenue
    history: {kind: clicks}
    outcomes: {}
    dead_letters: {topic: o}
shutdown: {grace_secs: 30}
webb:
""",
    )

    assert told == [
        "kafka.bootstrap_servers: occurs twice, first in line 2 (line 3)",
        "kafka.session_timeout_secs: must be a number, without quotes (line 4)",
        "kafka.security.sasl_mechanism: is required with protocol sasl_ssl (line 6)",
        "kafka.properties.odd: must be text, a number, true or false (line 7)",
        'kafka.properties["group.id"]: may not be set here: use streams[].group_id (line 7)',
        (
            'kafka.properties["max.in.flight"]: must be a whole number from 1 to 5; more would let records be '
            "reordered (line 7)"
        ),
        "trackly.api_key: environment variable NOPE is not set (line 9)",
        (
            "streams[0].name: must be 1 to 100 lower-case letters, digits, dots, underscores and hyphens, a "
            "letter or digit first (line 12)"
        ),
        "streams[0].topics[1]: must be a topic name: 1 to 249 letters, digits, dots, underscores and hyphens (line 13)",
        "streams[0].list_number: must be text: put it in quotes (line 14)",
        "streams[0].operation: must be 'send', 'contacts', 'revenue' or 'history' (line 15)",
        "streams[0].batch.max_records: must be at most 1000 (line 17)",
        "streams[0].drain_secs: is not a setting here; it belongs to streams[].delivery.drain_secs (line 18)",
        "streams[0].delivery.drian_secs: is not a setting; did you mean drain_secs? (line 19)",
        "streams[0].dead_letters.topic: must differ from outcomes.topic (line 21)",
        (
            "streams[1].delivery.drain_secs: must be at least trackly.timeouts.total_secs + 1 for the last tick "
            "(60 + 1 = 61); is 40 (line 22)"
        ),
        "streams[1].delivery.drain_secs: must be below shutdown.grace_secs (30); is 40 (line 22)",
        "streams[1]: needs topics or pattern (line 22)",
        "streams[1].history: has no effect with operation revenue (line 24)",
        "streams[1].outcomes.topic: is required (line 25)",
        "webb: is not a setting; did you mean web? (line 28)",
    ]


def _servers(servers: str) -> dict[str, Any]:
    return {"kafka": {"bootstrap_servers": servers}}


BY_PROTOCOL = "kafka.security.protocol says how to talk to the brokers"
AT_SERVERS = "kafka.bootstrap_servers"
ALIKE = (
    r"must mean the same to Kafka's client as here: write [0-9] for \d, ( ) for (?: ), and leave out look-aheads, "
    "lazy repeats, classes such as [:alpha:], and backslashes in brackets except before a dot"
)
HOST = "must be the name of a host or an address, without a port: 127.0.0.1, or 0.0.0.0 for every interface"
A_VARIABLE = "must not be a shell variable, which is not expanded here: write ${env:NAME}"
DIGITS = ": digits alone, without a unit or commas"


def _batch(**limits: Any) -> dict[str, Any]:
    return {"streams": [{"batch": limits}]}


SINGLE = {
    "unknown at the top": ({"srteams": []}, "srteams: is not a setting; did you mean streams?"),
    "choice left empty": (
        {"streams": [{"operation": None}]},
        "streams[0].operation: must be 'send', 'contacts', 'revenue' or 'history'",
    ),
    "whole number": ({"web": {"port": 1.5}}, "web.port: must be a whole number"),
    "quoted number": ({"web": {"port": "80"}}, "web.port: must be a whole number, without quotes"),
    "quoted switch": ({"web": {"enabled": "true"}}, "web.enabled: must be true or false, without quotes"),
    "number with a unit": ({"shutdown": {"grace_secs": "60s"}}, f"shutdown.grace_secs: must be a number{DIGITS}"),
    "number of bytes": (_batch(max_bytes="5 MB"), f"streams[0].batch.max_bytes: must be a whole number{DIGITS}"),
    "number with a comma": (
        _batch(max_records="1,000"),
        f"streams[0].batch.max_records: must be a whole number{DIGITS}",
    ),
    "share in percent": (
        {"streams": [{"storm_guard": {"max_ratio": "50%"}}]},
        f"streams[0].storm_guard.max_ratio: must be a number{DIGITS}",
    ),
    "brokers as a list": (
        {"kafka": {"bootstrap_servers": ["a:9092", "b:9092"]}},
        "kafka.bootstrap_servers: must be text, not a list",
    ),
    "reference without its sign": (
        {"trackly": {"api_key": {"env:KEY": None}}},
        "trackly.api_key: must be text, not a group of settings",
    ),
    "topic that is no list": ({"streams": [{"topics": "in"}]}, "streams[0].topics: must be a list: put it in brackets"),
    "names with dots": (
        {"streams": [{"batch.max_records": 5}]},
        'streams[0]["batch.max_records"]: is not a setting; write `batch:`, and `max_records:` below it',
    ),
    "switch": ({"web": {"enabled": "yes"}}, "web.enabled: must be true or false"),
    "true is no number": ({"web": {"port": True}}, "web.port: must be a whole number"),
    "finite": ({"shutdown": {"grace_secs": float("inf")}}, "shutdown.grace_secs: must be a finite number"),
    "above": ({"streams": [{"storm_guard": {"max_ratio": 0}}]}, "streams[0].storm_guard.max_ratio: must be above 0"),
    "at least": ({"web": {"port": -1}}, "web.port: must be at least 0"),
    "at most": ({"web": {"port": 65_536}}, "web.port: must be at most 65535"),
    "choice": ({"log": {"level": "loud"}}, "log.level: must be 'debug', 'info', 'warning' or 'error'"),
    "empty group": ({"web": None}, "web: is empty: leave it out, or say what it is (must be a group of settings)"),
    "not a group": ({"web": 8080}, "web: must be a group of settings: enabled, host, port, ..."),
    "not a list": ({"streams": {"a": 1}}, "streams: must be a list: put a hyphen before each entry"),
    "a number for a list": ({"streams": 5}, "streams: must be a list: put it in brackets"),
    "text for a number": ({"web": {"port": "many"}}, "web.port: must be a whole number"),
    "no stream": ({"streams": None}, "streams: is empty, but required (must be a list)"),
    "topic without a name": (
        {"streams": [{"outcomes": {"topic": None}}]},
        "streams[0].outcomes.topic: is empty, but required (must be text)",
    ),
    "list with an empty entry": (
        {"streams": [{"topics": [None]}]},
        "streams[0].topics[0]: is empty: leave it out, or say what it is (must be text)",
    ),
    "stream that is none": ({"streams": ["x"]}, "streams[0]: must be a group of settings: name, group_id, topics, ..."),
    "empty text": ({"web": {"host": ""}}, "web.host: must not be empty"),
    "port that is none": (_servers("a:9092, b:kafka"), f"{AT_SERVERS}: server 2 must have a port from 1 to 65535"),
    "port too high": (_servers("a:65536"), f"{AT_SERVERS}: server 1 must have a port from 1 to 65535"),
    "port of nothing": (_servers("a:"), f"{AT_SERVERS}: server 1 must have a port from 1 to 65535"),
    "port too long": (_servers("a:0000009092"), f"{AT_SERVERS}: server 1 must have a port from 1 to 65535"),
    "protocol of a broker": (
        _servers("SASL_SSL://a:9092"),
        f"{AT_SERVERS}: server 1 must be host:port, without a protocol before it: {BY_PROTOCOL}",
    ),
    "broker without brackets": (
        _servers("::1"),
        f"{AT_SERVERS}: server 1 must be host:port, with an IPv6 address in brackets, such as [::1]:9092",
    ),
    "broker in brackets": (
        _servers("[a]:9092"),
        f"{AT_SERVERS}: server 1 must be host:port, with an IPv6 address in brackets",
    ),
    "broker without a name": (
        _servers("a,user@b:9092"),
        f"{AT_SERVERS}: server 2 must be host:port, with the name or the address of a host",
    ),
    "address with a port": ({"web": {"host": "127.0.0.1:80"}}, f"web.host: {HOST}"),
    "name with a blank": ({"web": {"host": "my host"}}, f"web.host: {HOST}"),
    "number too many": ({"web": {"host": "10.0.0.300"}}, f"web.host: {HOST}"),
    "address in brackets": ({"web": {"host": "[::1]"}}, f"web.host: {HOST}"),
    "pattern of addresses": ({"web": {"host": "*"}}, f"web.host: {HOST}"),
    "empty code": (
        {"streams": [{"retry": {"setting_codes": [""]}}]},
        "streams[0].retry.setting_codes[0]: must not be empty",
    ),
    "long code": (
        {"streams": [{"retry": {"setting_codes": ["x" * 101]}}]},
        "streams[0].retry.setting_codes[0]: must have at most 100 characters",
    ),
    "phone number": (
        {"streams": [{"list_number": "18005551234"}]},
        "streams[0].list_number: must be a phone number in E.164 form, such as +18005551234",
    ),
    "bracket that is not closed": (
        {"streams": [{"pattern": "^[a"}]},
        "streams[0].pattern: is not a valid regular expression: unterminated character set",
    ),
    "regular expression": (
        {"streams": [{"topics": [], "pattern": "^("}]},
        "streams[0].pattern: is not a valid regular expression: missing ), unterminated subpattern",
    ),
    "anchored": ({"streams": [{"topics": [], "pattern": "sms"}]}, "streams[0].pattern: must start with ^"),
    "start": (
        {"streams": [{"start": "yesterday"}]},
        "streams[0].start: must be earliest, latest or a time such as 2026-01-31T08:00:00Z",
    ),
    "start without offset": (
        {"streams": [{"start": "2026-01-31T08:00:00"}]},
        "streams[0].start: must have a UTC offset, such as 2026-01-31T08:00:00Z",
    ),
    "start as number": (
        {"streams": [{"start": 5}]},
        "streams[0].start: must be earliest, latest or a time such as 2026-01-31T08:00:00Z",
    ),
    "topic of dots": (
        {"streams": [{"outcomes": {"topic": ".."}}]},
        "streams[0].outcomes.topic: must not be '.' or '..'",
    ),
    "replication": (
        {"streams": [{"create_topics": {"replication_factor": 0}}]},
        "streams[0].create_topics.replication_factor: must be at least 1, or -1 for the broker's default",
    ),
    "4xx in doubt": (
        {"streams": [{"delivery": {"in_doubt_statuses": [504, 404]}}]},
        "streams[0].delivery.in_doubt_statuses[1]: must be at least 500",
    ),
    "address": (
        {"trackly": {"base_url": "app.example"}},
        "trackly.base_url: must start with http:// or https:// and contain a host",
    ),
    "address without host": (
        {"trackly": {"base_url": "https:///api"}},
        "trackly.base_url: must start with http:// or https:// and contain a host",
    ),
    "address with port 0": (
        {"trackly": {"base_url": "https://app.example:0"}},
        "trackly.base_url: must start with http:// or https:// and contain a host",
    ),
    "address with user": (
        {"trackly": {"base_url": "https://u:p@app.example"}},
        "trackly.base_url: must not contain a user name or password; the platform knows us by trackly.api_key",
    ),
    "address with query": (
        {"trackly": {"base_url": "https://app.example/?x"}},
        "trackly.base_url: must not contain a query or a fragment",
    ),
    "address with a space": (
        {"trackly": {"base_url": "https://app.example/ x"}},
        "trackly.base_url: must not contain white space or control characters",
    ),
    "address without sense": (
        {"trackly": {"base_url": "https://app.example:port"}},
        "trackly.base_url: is not a valid address",
    ),
    **{
        f"address of {host}": (
            {"trackly": {"base_url": f"https://{host}:8443/api"}},
            "trackly.base_url: must contain a host name or address",
        )
        for host in ("10.0.0.256", "app..example", "app%2eexample", "a\\b", "[v1.a]")
    },
    "address of no proxy": (
        {"trackly": {"proxy": "http://user:pass@10.0.0.256:3128"}},
        "trackly.proxy: must contain a host name or address",
    ),
    "proxy": (
        {"trackly": {"proxy": "socks5://p:1"}},
        "trackly.proxy: must start with http:// or https:// and contain a host",
    ),
    "key with a line break": (
        {"trackly": {"api_key": "trk_1\n"}},
        "trackly.api_key: must not contain white space (perhaps a line break at the end)",
    ),
    "empty key": ({"trackly": {"api_key": ""}}, "trackly.api_key: must not be empty"),
    "key beyond ASCII": (
        {"trackly": {"api_key": "trk_\u00fc"}},
        "trackly.api_key: must contain only printable ASCII characters",
    ),
    **{
        f"{name} {form}": ({group: {setting: form}}, f"{group}.{setting}: {A_VARIABLE}")
        for form in ("$TRACKLY_CONNECTOR_KEY_2", "%TRACKLY_CONNECTOR_KEY_2%")
        for name, group, setting in (("key", "trackly", "api_key"), ("token", "web", "token"))
    },
    "servers": (
        {"kafka": {"bootstrap_servers": "a:1,,b:1"}},
        "kafka.bootstrap_servers: must be host:port, several separated by commas",
    ),
    "file": ({"trackly": {"tls": {"ca_file": ""}}}, "trackly.tls.ca_file: must not be empty"),
    "file as number": ({"trackly": {"tls": {"ca_file": 5}}}, "trackly.tls.ca_file: must be text: put it in quotes"),
    "property": ({"kafka": {"properties": {"a": None}}}, "kafka.properties.a: must be text, a number, true or false"),
}


@pytest.mark.parametrize(("changes", "told"), SINGLE.values(), ids=SINGLE.keys())
def test_one_slip_is_one_problem_that_says_what_is_wanted(changes: Any, told: str, refused: Refused) -> None:
    problems = refused(changes)

    assert [f"{problem.path}: {problem.message}" for problem in problems] == [told]


@pytest.mark.parametrize(
    "pattern",
    [
        r"^sms\.\d+$",  # POSIX: the letter d
        r"^sms\.[\d]",  # POSIX: a backslash or the letter d
        r"^sms[\-_]x",  # POSIX: all from the backslash to the underscore
        r"^sms[+-\.]x",
        r"^sms\.a+?b",  # POSIX: an a, or none
        r"^sms\.[[:digit:]]",  # Python: a bracket, a colon or a letter
        r"^sms\.(?!test)",  # these the client does not take at all
        r"^sms\.(?:a|b)$",
        r"^(sms)\.\1",
    ],
)
def test_a_pattern_that_kafkas_client_reads_otherwise_is_refused(pattern: str, refused: Refused) -> None:
    """What it matches is judged by Python: whether a stream would read its own dead letters, among others."""
    stream = {"topics": [], "pattern": pattern, "dead_letters": {"topic": "sms.dead-letters"}}
    (problem,) = refused({"streams": [stream]})

    assert (problem.path, problem.message) == ("streams[0].pattern", ALIKE)


@pytest.mark.parametrize(
    "pattern",
    [r"^sms\..*", "^sms[.].*", "^sms", r"^sms[\._-][a-z0-9]+$", r"^(eu|us)-sms\.[^x]{2,8}\w*$", r"^sms(\.a+)?$"],
)
def test_a_pattern_that_all_read_alike_is_taken(pattern: str, load: Load) -> None:
    (stream,) = load({"streams": [{"topics": [], "pattern": pattern}]}).streams

    assert stream.pattern == pattern


def test_a_missing_setting_is_reported_with_the_line_of_its_group(path: Path) -> None:
    told = _told(path, "trackly: {api_key: k}\nkafka:\n  group_protocol: classic\n")

    assert told == ["streams: is required", "kafka.bootstrap_servers: is required (line 2)"]


def test_a_reference_cannot_stand_for_a_number(refused: Refused) -> None:
    problems = refused({"web": {"port": "${env:PORT}"}}, {"PORT": "80"})

    assert problems[0].message == "must be a whole number; a reference brings text and cannot stand here"


@pytest.mark.parametrize("key", ["$ecret", "$ecret_KEY", "$", "$5000", "%", "100%", "K$KEY", "$KEY-2"])
def test_a_key_or_a_password_may_hold_what_is_no_variable(key: str, load: Load) -> None:
    security = {"protocol": "sasl_ssl", "sasl_mechanism": "PLAIN", "username": "u", "password": "$ECRET"}

    settings = load({"trackly": {"api_key": key}, "kafka": {"security": security}})

    assert settings.trackly.api_key.get_secret_value() == key
    assert settings.kafka.security.password is not None
    assert settings.kafka.security.password.get_secret_value() == "$ECRET"


def test_references_are_replaced_before_validation(load: Load, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("trk_file\n")

    settings = load(
        {"trackly": {"api_key": "${file:key}"}, "kafka": {"bootstrap_servers": "${env:HOST}:9092"}}, {"HOST": "kafka"}
    )

    assert settings.trackly.api_key.get_secret_value() == "trk_file"
    assert settings.kafka.bootstrap_servers == "kafka:9092"


def test_the_environment_of_the_process_is_used_unless_one_is_given(
    path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNECTOR_TEST_KEY", "trk_process")
    load({"trackly": {"api_key": "${env:CONNECTOR_TEST_KEY}"}}, {"CONNECTOR_TEST_KEY": "trk_given"})

    assert load_settings(path).trackly.api_key.get_secret_value() == "trk_process"


@pytest.mark.parametrize("text", ["2026-01-31T08:00:00Z", "2026-01-31 09:00:00+01:00"])
def test_a_start_time_may_stand_without_quotes(text: str, load: Load, path: Path) -> None:
    load()
    path.write_text(path.read_text().replace("  operation:", f"  start: {text}\n  operation:"))

    assert load_settings(path).streams[0].start == datetime(2026, 1, 31, 8, tzinfo=UTC)


def test_the_base_url_loses_its_slash(load: Load) -> None:
    assert load({"trackly": {"base_url": "https://a.example/api/v2/"}}).trackly.base_url == "https://a.example/api/v2"


def _assert_silent(settings_or_error: object) -> None:
    for text in (repr(settings_or_error), str(settings_or_error)):
        assert SECRET not in text
        assert SECRET[:8] not in text


def test_settings_do_not_show_their_secrets(load: Load) -> None:
    settings = load(
        {
            "trackly": {"api_key": SECRET, "proxy": f"http://user:{SECRET}@proxy:1"},
            "kafka": {
                "security": {"protocol": "sasl_ssl", "sasl_mechanism": "PLAIN", "username": "u", "password": SECRET},
                "properties": {"ssl.keystore.password": SECRET},
            },
        }
    )

    _assert_silent(settings)
    _assert_silent(settings.trackly)
    _assert_silent(settings.kafka)


ON_THE_WRONG_LINE = {
    "unknown key": {"trackly": {"key": SECRET}},
    "number": {"web": {"port": SECRET}},
    "choice": {"log": {"level": SECRET}},
    "pattern": {"instance_id": f"{SECRET} "},
    "phone number": {"streams": [{"list_number": SECRET}]},
    "expression": {"streams": [{"topics": [], "pattern": f"^({SECRET}"}]},
    "time": {"streams": [{"start": SECRET}]},
    "group": {"web": SECRET},
    "list": {"streams": SECRET},
    "property": {"kafka": {"properties": {"sasl.password": SECRET}}},
    "property in flight": {"kafka": {"properties": {"max.in.flight": SECRET}}},
    "property of a wrong kind": {"kafka": {"properties": {"a": [SECRET]}}},
    "address": {"trackly": {"base_url": f"https://{SECRET}@h"}},
    "port of an address": {"trackly": {"base_url": f"https://h:{SECRET}"}},
    "proxy": {"trackly": {"proxy": f"ftp://u:{SECRET}@h"}},
    "port of a proxy": {"trackly": {"proxy": f"http://u:p@h:{SECRET}"}},
    "key with white space": {"trackly": {"api_key": f"{SECRET} "}},
    "password out of place": {"kafka": {"security": {"password": SECRET}}},
    "key as number list": {"trackly": {"api_key": [SECRET]}},
}


@pytest.mark.parametrize("changes", ON_THE_WRONG_LINE.values(), ids=ON_THE_WRONG_LINE.keys())
def test_no_message_repeats_a_value(changes: Any, load: Load) -> None:
    with pytest.raises(SettingsError) as caught:
        load(changes)

    error: BaseException | None = caught.value
    while error is not None:
        _assert_silent(error)
        error = None if error.__suppress_context__ else error.__context__


@pytest.mark.parametrize("reference", ["${env:KEY}", "${file:key}"])
def test_no_message_repeats_what_a_reference_brought(reference: str, refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{SECRET} and more")

    problems = refused({"trackly": {"api_key": reference}}, {"KEY": f"{SECRET} and more"})

    assert problems[0].path == "trackly.api_key"
    _assert_silent(problems)


def test_models_built_by_code_do_not_show_their_input_either() -> None:
    with pytest.raises(ValueError, match="api_key") as caught:
        Settings.model_validate({"trackly": {"api_key": f"{SECRET} "}})

    _assert_silent(caught.value)


@pytest.mark.parametrize("group", ["properties", "consumer_properties", "producer_properties"])
def test_rules_are_checked_beside_a_wrong_value(group: str, refused: Refused) -> None:
    problems = refused({"web": {"port": -1}, "kafka": {group: {"group.id": "x"}}})

    assert {problem.path for problem in problems} == {"web.port", f'kafka.{group}["group.id"]'}


def test_rules_are_checked_when_nearly_everything_is_missing(path: Path) -> None:
    told = _told(path, "streams: [{delivery: {drain_secs: 61}}]\n")

    assert told == [
        "kafka: is required",
        "trackly: is required",
        "streams[0].name: is required (line 1)",
        "streams[0].operation: is required (line 1)",
        "streams[0].outcomes: is required (line 1)",
        "streams[0].dead_letters: is required (line 1)",
        "streams[0].delivery.drain_secs: must be below shutdown.grace_secs (60); is 61 (line 1)",
        "streams[0]: needs topics or pattern (line 1)",
    ]


@pytest.mark.parametrize(
    "host", ["localhost", "0.0.0.0", "::", "fe80::1%eth0", "web-1.web.default.svc.cluster.local", "my_host", "host."]
)
def test_every_address_and_name_of_a_host_can_be_listened_on(host: str, load: Load) -> None:
    assert load({"web": {"host": host}}).web.host == host


def test_a_key_at_the_top_that_is_no_text_hides_nothing_else(path: Path) -> None:
    path.write_text(
        "kafka: {bootstrap_servers: a, max_poll_interval_secs: 40.0}\n5: x\ntrackly: {}\nstreams:\n"
        "  - {name: s, topics: [in], operation: send, outcomes: {topic: out}, dead_letters: {topic: dead}}\n"
    )

    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ={})

    assert [str(problem) for problem in caught.value.problems] == [
        "has a key that is not text; put it in quotes (line 2)",
        "trackly.api_key: is required (line 3)",
        "streams[0].delivery.drain_secs: must be below kafka.max_poll_interval_secs (40); is 40 (line 5)",
    ]


@pytest.mark.parametrize(
    "servers", ["a", "a:9092", "a:1, b_1.example:65535", "10.0.0.1:9092", "[::1]:9092", "[fe80::1%eth0]", " a:9 ,b:9 "]
)
def test_every_way_to_name_brokers_is_taken(servers: str, load: Load) -> None:
    assert load(_servers(servers)).kafka.bootstrap_servers == servers
