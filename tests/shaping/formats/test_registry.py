"""What a registry answers is about a record's schema, or about the registry: the two are never taken for each other."""

import base64
import json
import socketserver
import ssl
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import trustme

from connector.config.formats import FormatSettings
from connector.core.verdicts import Verdict
from connector.shaping.decoded import FormatAwayError
from connector.shaping.formats import SchemaRegistry, schemas
from connector.shaping.formats.schemas import MAX_REFERENCES, Found, Schema
from tests.kit.patience import PATIENCE_SECS
from tests.kit.registries import Answer, MakeRegistry, TinyRegistry
from tests.shaping.formats.making import SMS, RegistrySecrets, decode, frame, reasons, registry

AVRO = FormatSettings(type="avro")
GOOD = b"\x18+15550000001\x0aHello\0"


@pytest.fixture
def tiny(make_registry: MakeRegistry) -> TinyRegistry:
    made = make_registry()
    made.add(1, SMS)
    return made


@pytest.fixture
def asking(tiny: TinyRegistry) -> SchemaRegistry:
    return registry(tiny.url)


def _verdict(found: Any) -> Verdict:
    assert isinstance(found, Verdict), found
    return found


def test_a_schema_is_asked_for_once(tiny: TinyRegistry, asking: SchemaRegistry) -> None:
    for _ in range(3):
        assert asking.find([1]) == {1: Schema("AVRO", SMS)}

    assert tiny.asked == ["schemas/ids/1"]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html><body>Sign in</body></html>", "text/html"),
        Answer(200, b"", "text/plain"),
        Answer(200, b"[]"),
        Answer(200, b"[" * 100_000),
        Answer(200, b'{"schema": 7}'),
        Answer(404, b"[40403]"),
        Answer(404, b"<h1>404 Not Found</h1>", "text/html"),
        Answer(404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}'),
        Answer(401, b'{"error_code": 401}'),
        Answer(403, b"Forbidden", "text/plain"),
        Answer(302),
        Answer(429, b"{}"),
        Answer(500, b'{"error_code": 50001}'),
        Answer(503, b"<html>", "text/html"),
        Answer(500, b"x" * 2_000_000),
    ],
    ids=lambda answer: f"{answer.status} {answer.body[:12].decode()}",
)
def test_an_answer_that_is_none_of_a_registry_is_nobodys_fault(
    answer: Answer, tiny: TinyRegistry, asking: SchemaRegistry
) -> None:
    tiny.always = answer
    with pytest.raises(FormatAwayError) as away:
        asking.find([1])

    assert away.value.reason == "schema_registry"
    assert tiny.url in str(away.value)
    assert len(str(away.value)) <= 300

    tiny.always = None
    assert asking.find([1]) == {1: Schema("AVRO", SMS)}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(200, b"\n<html>"), "the answer is HTML: is schema_registry.url right?"),
        (Answer(200, b"nothing"), "the answer is no JSON: is schema_registry.url right?"),
        (Answer(403), "HTTP 403: see schema_registry.username and password, or token"),
        (Answer(404), "HTTP 404: is schema_registry.url right?"),
        (Answer(500), "HTTP 500"),
    ],
)
def test_why_a_registry_is_away_is_told_with_the_setting_to_look_at(
    answer: Answer, told: str, tiny: TinyRegistry, asking: SchemaRegistry
) -> None:
    tiny.always = answer
    with pytest.raises(FormatAwayError) as away:
        asking.find([1])

    assert str(away.value) == f"the schema registry at {tiny.url} is away: {told}"


@pytest.mark.parametrize(
    ("answer", "is_one"),
    [
        (Answer(200, b'["a"]'), True),
        (Answer(200, b'["' + b"a" * 5_000 + b'"]'), True),
        (Answer(200, b"{}"), False),
        (Answer(404, b'{"error_code": 40401}'), False),
        (Answer(404), False),
    ],
    ids=["subjects", "more subjects than are read", "an object", "no subjects", "no such address"],
)
def test_whether_a_registry_is_there_shows_by_its_subjects(answer: Answer, is_one: bool, tiny: TinyRegistry) -> None:
    tiny.by_path["subjects"] = answer
    asking = registry(tiny.url, max_schema_bytes=2_000)

    if is_one:
        asking.ping()
    else:
        with pytest.raises(FormatAwayError):
            asking.ping()


def test_an_answer_that_trickles_in_is_not_read_for_longer_than_the_setting_says(tiny: TinyRegistry) -> None:
    """Each part of it arrives in time, so that nothing else would end the question."""
    at = [0.0]

    def now() -> float:
        at[0] += 6.0
        return at[0]

    with pytest.raises(FormatAwayError, match="no answer within 5 s"):
        registry(tiny.url, timeout_secs=5.0, now=now).find([1])


def test_proxies_of_the_environment_are_not_used(tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be handed the registry's credentials; no setting says so."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    assert isinstance(registry(tiny.url).find([1])[1], Schema)


def test_a_registry_that_is_not_there_is_away(tiny: TinyRegistry) -> None:
    nowhere = registry("http://localhost:1")

    with pytest.raises(FormatAwayError, match="ConnectError"):
        nowhere.find([1])


def test_an_answer_is_waited_for_no_longer_than_the_setting_says(tiny: TinyRegistry) -> None:
    tiny.always = Answer(200, b"{}", after_secs=PATIENCE_SECS)
    slow = registry(tiny.url, timeout_secs=0.2)
    began = time.monotonic()

    with pytest.raises(FormatAwayError):
        slow.find(range(1_000))

    assert time.monotonic() - began < PATIENCE_SECS / 2
    assert len(tiny.asked) <= 8, "what nobody waits for any more is not asked"


def test_a_question_that_another_stream_took_back_is_asked_again(tiny: TinyRegistry, asking: SchemaRegistry) -> None:
    taken_back: Future[Found] = Future()
    taken_back.cancel()
    taken_back.set_running_or_notify_cancel()
    asking._asked[1] = taken_back
    with pytest.raises(FormatAwayError):
        asking.find([1])

    assert asking.find([1]) == {1: Schema("AVRO", SMS)}


def test_a_question_that_is_being_answered_is_not_asked_twice(tiny: TinyRegistry) -> None:
    asking = registry(tiny.url, timeout_secs=0.1)
    running: Future[Found] = Future()
    running.set_running_or_notify_cancel()
    asking._asked[1] = running
    with pytest.raises(FormatAwayError):
        asking.find([1])

    running.set_result(Schema("AVRO", "late"))

    assert asking.find([1]) == {1: Schema("AVRO", "late")}
    assert tiny.asked == []


def test_a_question_of_two_streams_may_be_taken_back_by_both(tiny: TinyRegistry, asking: SchemaRegistry) -> None:
    shared: Future[Found] = Future()
    asking._asked[1] = shared

    for _ in range(2):
        asking._take_back({1: shared})

    assert asking.find([1]) == {1: Schema("AVRO", SMS)}


def test_what_fails_is_reported_though_another_question_is_not_answered_yet(tiny: TinyRegistry) -> None:
    tiny.by_path["schemas/ids/1"] = Answer(500)
    asking = registry(tiny.url, timeout_secs=60)
    asking._asked[2] = Future()
    began = time.monotonic()

    with pytest.raises(FormatAwayError, match="HTTP 500"):
        asking.find([2, 1])

    assert time.monotonic() - began < PATIENCE_SECS / 2


def test_a_registry_that_is_closed_is_away(tiny: TinyRegistry, asking: SchemaRegistry) -> None:
    asking.close()

    with pytest.raises(FormatAwayError):
        asking.find([1])


def test_a_registry_is_closed_without_waiting_for_answers_and_asks_nothing_more(asking: SchemaRegistry) -> None:
    gate = threading.Event()
    questions = [asking._threads.submit(gate.wait, PATIENCE_SECS) for _ in range(schemas.THREADS + 1)]

    asking.close()

    assert not any(running.done() for running in questions[:-1])
    assert questions[-1].cancelled()
    gate.set()


def test_an_unknown_id_is_a_dead_letter_and_asked_for_again_when_its_time_is_over(tiny: TinyRegistry) -> None:
    at = [0.0]
    asking = registry(tiny.url, unknown_id_secs=30, now=lambda: at[0])

    assert _verdict(asking.find([7])[7]).reason == "schema_not_found"
    tiny.add(7, SMS)
    at[0] = 29.0
    assert _verdict(asking.find([7])[7]).reason == "schema_not_found"
    at[0] = 31.0
    assert asking.find([7]) == {7: Schema("AVRO", SMS)}
    assert len(tiny.asked) == 2


@pytest.mark.parametrize("number", [2**31, 2**32 - 1])
def test_an_id_that_no_registry_can_give_is_a_dead_letter_whatever_would_be_answered(
    number: int, tiny: TinyRegistry, asking: SchemaRegistry
) -> None:
    """Confluent's registry answers for a number that is none of Java's what it answers for any address it has not."""
    tiny.add(1, SMS)
    tiny.add(2**31 - 1, SMS)
    no_place = Answer(404, b'{"error_code": 404, "message": "HTTP 404 Not Found"}')
    tiny.by_path[f"schemas/ids/{number}"] = no_place

    decoded = decode(AVRO, asking, [frame(number, b"x"), frame(1, b"\2a\2b\0"), frame(2**31 - 1, b"\2a\2b\0")])

    assert reasons(decoded) == {0: "schema_not_found"}
    assert decoded.values[1] == decoded.values[2] == {"to": "a", "body": "b"}


def test_a_guid_that_a_registry_does_not_know_is_a_dead_letter_where_the_registry_works(
    tiny: TinyRegistry, asking: SchemaRegistry
) -> None:
    """A registry that knows no GUIDs at all answers as one that was not found: it is asked whether it is there."""
    unknown = "00000000-0000-0000-0000-000000000001"
    tiny.by_path[f"schemas/guids/{unknown}"] = Answer(404)

    assert _verdict(asking.find([unknown])[unknown]).reason == "schema_not_found"

    tiny.always = Answer(404)
    with pytest.raises(FormatAwayError):
        asking.find(["00000000-0000-0000-0000-000000000002"])


def test_a_registry_that_answers_for_no_number_is_away_though_it_has_subjects(
    tiny: TinyRegistry, asking: SchemaRegistry
) -> None:
    """Every registry has numbers: something between it and us does not let the question through."""
    tiny.by_path["schemas/ids/1"] = Answer(404, b"<html>", "text/html")

    asking.ping()
    with pytest.raises(FormatAwayError, match="HTTP 404"):
        asking.find([1])


def test_a_failure_that_is_not_about_a_guid_is_nobodys_fault(tiny: TinyRegistry, asking: SchemaRegistry) -> None:
    unknown = "00000000-0000-0000-0000-000000000001"
    tiny.by_path[f"schemas/guids/{unknown}"] = Answer(500)

    asking.ping()
    with pytest.raises(FormatAwayError, match="HTTP 500"):
        asking.find([unknown])


def test_a_schema_that_is_too_large_concerns_its_records_alone(tiny: TinyRegistry) -> None:
    tiny.add(2, '{"type": "string", "doc": "%s"}' % ("x" * 5_000))
    asking = registry(tiny.url, max_schema_bytes=2_000)

    found = asking.find([1, 2])

    assert isinstance(found[1], Schema)
    assert _verdict(found[2]).reason == "schema_unusable"
    assert "max_schema_bytes" in _verdict(found[2]).text


@pytest.mark.parametrize("too_much", [0, 1])
def test_a_schema_may_have_as_many_bytes_as_the_setting_says(too_much: int, tiny: TinyRegistry) -> None:
    body = json.dumps({"schema": json.dumps({"type": "string", "doc": "x" * 5_000})}).encode()
    tiny.by_path["schemas/ids/2"] = Answer(200, body)
    asking = registry(tiny.url, max_schema_bytes=len(body) - too_much)

    assert isinstance(asking.find([2])[2], Verdict if too_much else Schema)


def test_the_cache_is_bounded(tiny: TinyRegistry) -> None:
    for number in range(10):
        tiny.add(number, SMS)
    asking = registry(tiny.url, cached_schemas=3)

    for number in range(10):
        asking.find([number])
    asking.find([9, 8, 7])

    assert len(tiny.asked) == 10
    assert len(asking._schemas) == 3


def test_the_schemas_that_were_not_needed_for_longest_are_dropped(tiny: TinyRegistry) -> None:
    for number in (1, 2, 3):
        tiny.add(number, SMS)
    asking = registry(tiny.url, cached_schemas=2)

    for number in (1, 2, 1, 3, 1, 2):
        asking.find([number])

    assert tiny.asked == [f"schemas/ids/{number}" for number in (1, 2, 3, 2)]


def test_of_very_many_unknown_ids_the_oldest_are_dropped(
    tiny: TinyRegistry, asking: SchemaRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "MAX_UNKNOWN", 2)

    for number in (11, 12, 13, 13, 12, 11):
        assert _verdict(asking.find([number])[number]).reason == "schema_not_found"

    assert tiny.asked == [f"schemas/ids/{number}" for number in (11, 12, 13, 11)]


def test_of_two_schemas_under_one_name_the_first_counts(tiny: TinyRegistry, asking: SchemaRegistry) -> None:
    """As for Confluent's clients, which draw references in depth first."""
    for version, text in ((1, '"int"'), (2, '"long"')):
        tiny.schemas[f"subjects/n/versions/{version}"] = {"schema": text}
    number = [{"name": "N", "subject": "n", "version": version} for version in (1, 2)]
    tiny.schemas["subjects/o/versions/1"] = {"schema": '"string"', "references": number[1:]}
    other = {"name": "O", "subject": "o", "version": 1}
    for key, references in ((2, [number[0], other]), (3, [other, number[0]])):
        tiny.add(key, '"string"', references=references)

    found = asking.find([2, 3])

    drawn_in = [
        [(name, inner.text) for name, inner in schema.references.items()]
        for schema in found.values()
        if isinstance(schema, Schema)
    ]
    assert drawn_in == [[("N", '"int"'), ("O", '"string"')], [("N", '"long"'), ("O", '"string"')]]


def test_references_are_drawn_in_and_those_that_are_missing_named(tiny: TinyRegistry, asking: SchemaRegistry) -> None:
    inner = '{"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "long"}]}'
    outer = '{"type": "record", "name": "Outer", "fields": [{"name": "i", "type": "Inner"}]}'
    tiny.schemas["subjects/in%2Fner/versions/3"] = {"schema": inner}
    tiny.add(2, outer, references=[{"name": "Inner", "subject": "in/ner", "version": 3}])
    tiny.add(3, outer, references=[{"name": "Inner", "subject": "gone", "version": 1}])

    decoded = decode(AVRO, asking, [frame(2, b"\x0a"), frame(3, b"\x0a")])

    assert (decoded.values, reasons(decoded)) == ([{"i": {"n": 5}}, None], {1: "schema_unusable"})
    assert "gone" in decoded.bad[1].text


def test_a_reference_that_was_deleted_since_is_drawn_in_as_the_schema_itself_is(
    tiny: TinyRegistry, asking: SchemaRegistry
) -> None:
    """A registry gives a schema by its id after its subject was deleted, since records of it are still there."""
    inner = '{"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "long"}]}'
    outer = '{"type": "record", "name": "Outer", "fields": [{"name": "i", "type": "Inner"}]}'
    tiny.schemas["subjects/inner/versions/1"] = {"schema": inner}
    tiny.deleted.add("subjects/inner/versions/1")
    tiny.add(2, outer, references=[{"name": "Inner", "subject": "inner", "version": 1}])

    decoded = decode(AVRO, asking, [frame(2, b"\x0a")])

    assert (decoded.values, decoded.bad) == ([{"i": {"n": 5}}], {})


def test_references_that_go_in_circles_end(tiny: TinyRegistry, asking: SchemaRegistry) -> None:
    again = [{"name": "A", "subject": "a", "version": 1}]
    tiny.schemas["subjects/a/versions/1"] = {"schema": "{}", "references": again}
    tiny.add(2, "{}", references=again)

    assert _verdict(asking.find([2])[2]).reason == "schema_unusable"
    assert len(tiny.asked) <= MAX_REFERENCES + 2


@pytest.mark.parametrize(
    "references",
    ["7", "true", '"inner"', '{"name": "a"}', r'[{"name": "a", "subject": "\ud800", "version": 1}]'],
)
def test_references_that_are_none_concern_the_records_of_their_schema_alone(
    references: str, tiny: TinyRegistry, asking: SchemaRegistry
) -> None:
    body = f'{{"schema": "\\"string\\"", "references": {references}}}'
    tiny.by_path["schemas/ids/2"] = Answer(200, body.encode())

    decoded = decode(AVRO, asking, [frame(1, GOOD), frame(2, b"\2a")])

    assert decoded.values[0]["body"] == "Hello"
    assert reasons(decoded) == {1: "schema_unusable"}


@pytest.mark.parametrize(
    ("username", "secrets", "header"),
    [
        ("us", RegistrySecrets(password="pass:word"), f"Basic {base64.b64encode(b'us:pass:word').decode()}"),
        ("us", RegistrySecrets(), f"Basic {base64.b64encode(b'us:').decode()}"),
        (None, RegistrySecrets(token="a-token"), "Bearer a-token"),
    ],
    ids=["basic", "without a password", "bearer"],
)
def test_valid_credentials_are_accepted_and_others_hold_the_stream(
    username: str | None, secrets: RegistrySecrets, header: str, make_registry: MakeRegistry
) -> None:
    tiny = make_registry(authorization=header)
    tiny.add(1, SMS)
    known, unknown = registry(tiny.url, secrets, username=username), registry(tiny.url)

    assert isinstance(known.find([1])[1], Schema)
    known.ping()
    for ask in (unknown.ping, lambda: unknown.find([1])):
        with pytest.raises(FormatAwayError, match=r"401: see schema_registry\.username") as away:
            ask()
        assert "pass" not in str(away.value).replace("password", "")


def test_a_secret_that_changes_is_used_with_the_next_question(make_registry: MakeRegistry) -> None:
    tiny, secrets = make_registry(authorization="Bearer new"), RegistrySecrets(token="old")
    tiny.add(1, SMS)
    asking = registry(tiny.url, secrets)
    with pytest.raises(FormatAwayError):
        asking.find([1])

    secrets.token = "new"

    assert isinstance(asking.find([1])[1], Schema)


def _server(authority: trustme.CA, *, asks_for: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    if asks_for is not None:
        asks_for.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def test_certificates_are_checked_and_their_files_read_again_after_a_failure(
    make_registry: MakeRegistry, tmp_path: Path
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    tiny = make_registry(tls=_server(authority))
    tiny.add(1, SMS)
    file = tmp_path / "ca.pem"
    other.cert_pem.write_to_path(str(file))
    asking = registry(tiny.url, tls={"ca_file": file})
    with pytest.raises(FormatAwayError, match="CERTIFICATE_VERIFY_FAILED"):
        asking.find([1])

    authority.cert_pem.write_to_path(str(file))

    assert isinstance(asking.find([1])[1], Schema)
    with pytest.raises(FormatAwayError, match="CERTIFICATE_VERIFY_FAILED"):
        registry(tiny.url).find([1])
    assert isinstance(registry(tiny.url, tls={"verify": False}).find([1])[1], Schema)


def test_a_certificate_file_that_is_gone_is_nobodys_fault(make_registry: MakeRegistry, tmp_path: Path) -> None:
    """As while it is replaced."""
    authority = trustme.CA()
    tiny = make_registry(tls=_server(authority))
    tiny.add(1, SMS)
    file = tmp_path / "ca.pem"
    asking = registry(tiny.url, tls={"ca_file": file})
    with pytest.raises(FormatAwayError, match="FileNotFoundError"):
        asking.find([1])

    authority.cert_pem.write_to_path(str(file))

    assert isinstance(asking.find([1])[1], Schema)


def test_a_client_that_another_question_has_closed_is_replaced(asking: SchemaRegistry) -> None:
    """A question that fails closes it for all."""
    asking._open().close()
    with pytest.raises(FormatAwayError, match="closed"):
        asking.find([1])

    assert isinstance(asking.find([1])[1], Schema)


def test_a_registry_that_asks_for_a_certificate_gets_ours(make_registry: MakeRegistry, tmp_path: Path) -> None:
    authority, ours = trustme.CA(), trustme.CA()
    tiny = make_registry(tls=_server(authority, asks_for=ours))
    tiny.add(1, SMS)
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    authority.cert_pem.write_to_path(str(ca))
    mine = ours.issue_cert("connector")
    mine.private_key_pem.write_to_path(str(key))
    mine.cert_chain_pems[0].write_to_path(str(cert))

    assert isinstance(registry(tiny.url, tls={"ca_file": ca, "cert_file": cert, "key_file": key}).find([1])[1], Schema)
    with pytest.raises(FormatAwayError):
        registry(tiny.url, tls={"ca_file": ca}).find([1])


def test_what_was_known_is_decoded_while_the_registry_is_away(tiny: TinyRegistry, asking: SchemaRegistry) -> None:
    asking.find([1])
    tiny.always = Answer(200, b"<html>", "text/html")

    assert decode(AVRO, asking, [frame(1, GOOD)]).values[0]["body"] == "Hello"
    with pytest.raises(FormatAwayError):
        decode(AVRO, asking, [frame(1, GOOD), frame(2, GOOD)])


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_what_answers_with_our_credentials_does_not_have_them_told(before: bytes) -> None:
    """As a proxy that repeats in its error what it was sent; why a stream holds stands in its log and on its pages."""

    class Repeating(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            [told] = [line for line in iter(self.rfile.readline, b"\r\n") if line.startswith(b"Authorization")]
            self.wfile.write(before + told.replace(b": ", b" ") + b"\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Repeating) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(FormatAwayError) as caught:
            registry(url, RegistrySecrets(token="not-to-be-told")).find([1])
        server.shutdown()

    assert "no HTTP" in str(caught.value)
    assert "not-to-be-told" not in str(caught.value)
