"""Mappings in a settings file: what is wrong with one is told with its path, line and column."""

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from connector.config.load import load_settings
from connector.config.problems import SettingsError
from connector.shaping.shaper import Shaper
from tests.config.conftest import Load, Refused

STREAM = """\
kafka: {bootstrap_servers: "localhost:9092"}
trackly: {api_key: trk_key}
streams:
  - name: sends
    topics: [orders, carts]
    operation: send
    outcomes: {topic: out}
    dead_letters: {topic: dead}
"""


def problems_of(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "connector.yaml"
    path.write_text(STREAM + "".join(f"    {line}\n" for line in dedent(text).splitlines()))
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environ={})
    return [str(problem) for problem in caught.value.problems]


def test_every_slip_has_its_path_line_and_column(tmp_path: Path) -> None:
    found = problems_of(
        tmp_path,
        """\
        mapping:
          when: value.a ==
          fields:
            to: vlaue.phone
            body: {template: "Hi {{ value.name | nope }}"}
            metadata:
              order: "value.id &&& 1"
              text:
                template: |
                  Hi
                  {{ value.a | nope }}
              both: {from: value.a, const: 1}
          list_number: "+18005551234"
        """,
    )

    at = "streams[0].mapping"
    assert [(line.partition(":")[0], line.rpartition("(")[2]) for line in found] == [
        (f"{at}.when", "line 10, column 23)"),
        (f"{at}.fields.to", "line 12, column 13)"),
        (f"{at}.fields.body.template", "line 13, column 27)"),
        (f"{at}.fields.metadata.order", "line 15, column 32)"),
        (f"{at}.fields.metadata.text.template", "line 19)"),
        (f"{at}.fields.metadata.both", "line 20)"),
        (f"{at}.list_number", "line 21, column 21)"),
    ]
    for line, said in zip(
        found,
        (
            "it ends too early",
            "looks at `vlaue`, which does not exist; did you mean value?",
            "has no filter `nope`",
            "does not belong here; text that stands for itself is written {const: ...}",
            "has no filter `nope`",
            "has const and from together; fields with such names go under fields:",
            "is not a JMESPath expression",
        ),
        strict=True,
    ):
        assert said in line


@pytest.mark.parametrize(
    ("stream", "at", "said"),
    [
        ({"mapping": {"fields": {"to": ["a"]}}}, "mapping.fields.to", "must be an expression, a number"),
        ({"mapping": {"fields": {"to": None}}}, "mapping.fields.to", "must be an expression, a number"),
        ({"mapping": {"fields": {"to": {}}}}, "mapping.fields.to", "must be an expression, a number"),
        ({"mapping": {"fields": {"to": {"template": 1}}}}, "mapping.fields.to.template", "must be text"),
        ({"mapping": {"fields": {"to": "Hi {{ value.a }}"}}}, "mapping.fields.to", "is written {template: ...}"),
        ({"mapping": {"fields": {"to": {"default": 1}}}}, "mapping.fields.to", "has only a default; add an expression"),
        ({"mapping": {"fields": {"to": {"form": "key", "default": 1}}}}, "mapping.fields.to", "did you mean from?"),
        ({"mapping": {"fields": {"to": {"fields": {}}}}}, "mapping.fields.to.fields", "must be a group of fields"),
        ({"mapping": {"list_number": {"table": {}}}}, "mapping.list_number.table", "must map the results"),
        (
            {"mapping": {"list_number": {"table": {"a": "+18005551234"}, "by": "value.a", "elese": "x"}}},
            "mapping.list_number.elese",
            "is not a setting; known here",
        ),
        (
            {"mapping": {"list_number": {"table": {"a": "+18005551234"}}}},
            "mapping.list_number.by",
            "must be an expression",
        ),
        (
            {"mapping": {"list_number": {"table": {"US": "+18005551234", "GB": "441632960960"}, "by": "value.a"}}},
            "mapping.list_number.table.GB",
            "must be a list's number in E.164 form",
        ),
        (
            {"mapping": {"list_number": {"table": {"US": "+18005551234"}, "by": "value.a", "default": "default"}}},
            "mapping.list_number.default",
            "must be a list's number in E.164 form",
        ),
        (
            {"mapping": {"list_number": {"from": "value.a", "default": 18005551234}}},
            "mapping.list_number.default",
            "must be a list's number in E.164 form",
        ),
        (
            {"mapping": {"list_number": {"const": "+1 800 555 1234"}}},
            "mapping.list_number.const",
            "must be a list's number in E.164 form",
        ),
        ({"mapping": {"list_number": 18005551234}}, "mapping.list_number", "must be a list's number in E.164 form"),
        (
            {"overrides": [{"topics": ["in"], "mapping": {"list_number": {"const": "+1\n"}}}]},
            "overrides[0].mapping.list_number.const",
            "must be a list's number in E.164 form",
        ),
        ({"mapping": {"max_segments": 0}}, "mapping.max_segments", "must be at least 1"),
        ({"mapping": {"felds": {}}}, "mapping.felds", "did you mean fields?"),
        ({"transform": "nowhere"}, "transform", "must be package.module:function"),
        ({"transform": "no.such_module:f"}, "transform", "names a module that does not exist (no)"),
        ({"transform": "json:nothing"}, "transform", "does not name a function: json has no nothing"),
        ({"mapping": {"when": "attributes.type == 'a'"}}, "mapping.when", "looks at `attributes`"),
        ({"format": "cloudevent", "mapping": {"when": "attributes.type == 'a'"}}, "format", "must be 'json'"),
        (
            {"mapping": {"fields": {"to": "value.to", "body": {"template": "Hi {{ attributes.subject }}"}}}},
            "mapping.fields.body.template",
            "looks at `attributes`, which only records with format cloudevents have",
        ),
        (
            {
                "overrides": [
                    {"topics": ["in"], "mapping": {"list_number": {"from": "attributes.list", "default": "+1800"}}}
                ]
            },
            "overrides[0].mapping.list_number.from",
            "looks at `attributes`",
        ),
        ({"overrides": [{"mapping": None}]}, "overrides[0]", "must name topics or a pattern"),
        ({"overrides": [{"topics": ["in"]}]}, "overrides[0]", "changes nothing"),
        (
            {"overrides": [{"topics": ["other"], "mapping": None}]},
            "overrides[0].topics",
            "names other, which the stream does not read",
        ),
        (
            {"overrides": [{"topics": ["in"], "mapping": {"fields": {"to": "value..a"}}}]},
            "overrides[0].mapping.fields.to",
            "is not a JMESPath expression",
        ),
        (
            {
                "mapping": {"list_number": "value.a"},
                "overrides": [{"topics": ["in"], "mapping": {"fields": {"list_number": "value.b"}}}],
            },
            "overrides[0].mapping.fields.list_number",
            "stands beside streams[0].mapping.list_number; null removes that here",
        ),
        (
            {
                "mapping": {"fields": {"list_number": "value.a"}},
                "overrides": [{"topics": ["in"], "mapping": {"list_number": "value.b"}}],
            },
            "overrides[0].mapping.list_number",
            "stands beside streams[0].mapping.fields.list_number; null removes that here",
        ),
        (
            {
                "mapping": {"fields": {"to": "value.a"}},
                "overrides": [
                    {"topics": ["in"], "mapping": {"list_number": "value.b", "fields": {"list_number": "value.c"}}}
                ],
            },
            "overrides[0].mapping.list_number",
            "is set in fields too",
        ),
        (
            {"operation": "revenue", "mapping": {"list_number": "value.a"}},
            "mapping.list_number",
            "has no effect: revenue has no list",
        ),
        (
            {"operation": "contacts", "mapping": {"max_segments": 1}},
            "mapping.max_segments",
            "has no effect with operation contacts",
        ),
    ],
)
def test_what_cannot_be_is_refused(refused: Refused, stream: dict[str, Any], at: str, said: str) -> None:
    (problem,) = refused({"streams": [stream]})

    assert problem.path == f"streams[0].{at}"
    assert said in problem.message


@pytest.mark.parametrize(
    "stream",
    [
        {"format": "cloudevents", "mapping": {"when": "attributes.type"}},
        {"mapping": {"when": "attributes.type || value.type"}}
        | {"overrides": [{"topics": ["in"], "format": "cloudevents"}]},
        {"mapping": {"when": "@.value.wanted", "fields": {"to": "[value.a, key][0]", "body": "value.b"}}},
    ],
)
def test_attributes_are_looked_at_where_some_topic_has_them(load: Load, stream: dict[str, Any]) -> None:
    assert load({"streams": [stream]}).streams[0].mapping is not None


def test_a_module_that_fails_when_it_is_imported_is_no_traceback(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_hook.py").write_text("raise RuntimeError('secret')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (problem,) = refused({"streams": [{"transform": "broken_hook:f"}]})

    assert problem.message == "names a module that fails when it is imported: RuntimeError"
    assert "broken_hook" not in sys.modules


@pytest.mark.parametrize(
    ("mapping", "over"),
    [
        ({"list_number": "value.a"}, {"list_number": None, "fields": {"list_number": "value.b"}}),
        ({"fields": {"list_number": "value.a"}}, {"list_number": "value.b", "fields": {"list_number": None}}),
        ({"list_number": "value.a"}, {"list_number": "value.b"}),
        ({"fields": {"list_number": "value.a"}}, {"fields": {"list_number": "value.b"}}),
    ],
)
def test_an_override_may_choose_the_list_in_another_place(
    load: Load, mapping: dict[str, Any], over: dict[str, Any]
) -> None:
    (stream,) = load({"streams": [{"mapping": mapping, "overrides": [{"topics": ["in"], "mapping": over}]}]}).streams

    assert Shaper(stream).plan_for("in").mapping is not None


def test_null_takes_a_field_away_in_an_override(load: Load) -> None:
    mapping = {"fields": {"to": "value.to", "body": "value.body"}, "when": "value.a"}
    over = {"topics": ["in"], "mapping": {"fields": {"body": None, "metadata": {"a": "key"}}, "max_segments": 2}}
    (stream,) = load({"streams": [{"mapping": mapping, "overrides": [over]}]}).streams
    plain, changed = stream.variants()

    assert [stream.variant_for(topic) for topic in ("x", "in")] == [0, 1]
    assert plain.mapping is not None
    assert changed.mapping is not None
    assert plain.mapping.fields == mapping["fields"]
    assert changed.mapping.fields == {"to": "value.to", "metadata": {"a": "key"}}
    assert (changed.mapping.when, changed.mapping.max_segments) == ("value.a", 2)
