"""The pages of the settings and of the simulator, and the settings' JSON Schema, generated from the models."""

import json
from collections.abc import Iterator
from typing import Any, Final

from connector.config.checks import RULES
from connector.config.kafka import REFUSED, REFUSED_PREFIXES
from connector.config.settings import Settings
from connector.simulator import Faults, Switches
from reference.markdown import page, table

SCHEMA_ID: Final = "urn:trackly-connector:settings:v1"

_REFERENCE_DEF: Final = {
    "description": "A text with a reference in it: `${env:NAME}` or `${file:PATH}`.",
    "type": "string",
    "pattern": r"\$\{(env|file):[^}]+\}",
}

_HEAD: Final = """\
One YAML file holds all settings. `trackly-connector check FILE` reads it like `run` and reports everything that is
wrong with it; `trackly-connector schema settings` prints its JSON Schema for editors. This page is generated from the
code.

## References

Any text may contain references, alone or among other characters:

| Form | Replaced by |
| --- | --- |
| `${env:NAME}` | the environment variable `NAME` |
| `${file:PATH}` | the text of a file, without the line break at its end; relative to the folder of the settings file |
| `$${` | a plain `${` |

The result is text and is not searched for further references. Numbers and booleans cannot contain any. A
variable that is not set and a file that cannot be read are errors, except for secrets that a command does not use:
`dead-letters` and `explain` work without the platform's key, `acls` also without Kafka's password.

A secret from a file (`trackly.api_key`, `schema_registry.password`, `schema_registry.token`, `traces.headers`,
`web.token`) is re-read on SIGHUP and at every probe of a hold. Kafka clients read theirs
(`kafka.security.password`, `kafka.security.key_password`) once: a new one needs a restart.

Values follow YAML 1.2: only `true` and `false` are booleans. Put phone numbers in quotes, since `+18005551234` without
them is a number."""
_REFUSED_HEAD: Final = """\
All other librdkafka properties may be set in `kafka.properties`, `kafka.consumer_properties` and
`kafka.producer_properties`. `max.in.flight` above 5 is rejected as well: an idempotent producer keeps the order of
records up to 5 requests."""


def settings_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a settings file."""
    schema = _with_references(_without_titles(Settings.model_json_schema()))
    definitions = {**schema.pop("$defs"), "Reference": _REFERENCE_DEF}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "Settings of the Trackly connector for Kafka",
        **schema,
        "$defs": definitions,
    }


def chart_schema() -> dict[str, Any]:
    """Return the schema of the settings in a Helm chart's values, where the key is optional: the chart adds it."""
    schema = settings_schema()
    schema["$id"] = f"{SCHEMA_ID}:in-chart"
    schema["required"] = [name for name in schema["required"] if name != "trackly"]
    del schema["$defs"]["TracklySettings"]["required"]
    return schema


def settings_page() -> str:
    """Return the reference page in Markdown."""
    schema = Settings.model_json_schema()
    refused = [*REFUSED.items(), *((f"{prefix}*", reason) for prefix, reason in REFUSED_PREFIXES.items())]
    return page(
        "Settings",
        _HEAD,
        *_groups(schema, schema["$defs"], prefix=""),
        "## What must fit together",
        "Checked at startup; the message shows the calculation.",
        "\n".join(f"- {rule}" for rule in RULES),
        "## Kafka properties that are refused",
        _REFUSED_HEAD,
        table(("Property", "Why, and what to use instead"), [(f"`{name}`", reason) for name, reason in refused]),
    )


_SIMULATOR_HEAD: Final = """\
`trackly-connector simulate` simulates the platform: for tests, and to see how a stream handles faults.
[First stream](../tutorial/first-stream.md) uses it; [commands](commands.md#simulate) has its options. This page is
generated from the code.

## Inspect and control

Under `/_simulator`, on the same port and without a key: keep the port on a private network.

| Request | What it does |
| --- | --- |
| `GET /health` | returns the current faults, including those of a script |
| `GET /ledger` | returns totals: records accepted, records accepted twice, rejections by code, requests, replies |
| `GET /ledger?identity=TEXT` | returns how often a record was accepted: a message is its `body`, or see `--identify` |
| `GET /ledger/records` | lists all identities, one JSON line each, with how often it was accepted |
| `GET /faults` | returns the permanent faults |
| `PUT /faults` | replaces them; those left out are reset to their defaults |
| `PATCH /faults` | changes the given ones; null resets one to its default |
| `POST /reset` | starts over: an empty ledger, the initial faults, the script not started |

## Files

`--faults` takes a YAML or JSON file of [faults](#faults), as `PUT` does:

```yaml
latency_ms: [20, 80]
error_rate: {503: 0.05}
lose_reply: {next: 1}
record_codes:
  - {text: order 7, code: provider_error, times: 1}
```

A chance, such as `lose_reply`, is a rate from 0 to 1, or the number of next requests that it affects, or both:
`{next: 2, rate: 0.05}`. Chances affect bulk and single POSTs, at most one per request, in the order of the table.

`--script` takes a list of steps. A step overrides the permanent faults from `at_secs` until `until_secs`, or
to the end; seconds count from the first request, or with `--script-from start` from the start:

```yaml
- {at_secs: 5, until_secs: 15, faults: {status_override: 503}}
- {at_secs: 20, faults: {account_suspended: true}}
```

`--switches` takes a file of [switches](#switches). All errors in a file are reported at once, and the exit code
is 2."""


def simulator_page() -> str:
    """Return the page of the simulator's settings."""
    faults, switches = Faults.model_json_schema(), Switches.model_json_schema()
    return page(
        "Simulator",
        _SIMULATOR_HEAD,
        *_groups(faults, faults["$defs"], prefix="", heading="Faults"),
        *_groups(switches, {}, prefix="", heading="Switches"),
    )


def _without_titles(node: Any) -> Any:
    """Drop the titles that pydantic derives from names; a property called `title` stays."""
    if isinstance(node, list):
        return [_without_titles(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _without_titles(value) for key, value in node.items() if not (key == "title" and isinstance(value, str))
    }


def _with_references(node: Any) -> Any:
    """Allow a reference wherever a text has a pattern, which the reference itself does not match."""
    if isinstance(node, list):
        return [_with_references(item) for item in node]
    if not isinstance(node, dict):
        return node
    words = node.get("enum", [node["const"]] if "const" in node else [])
    of_text = node.get("type") == "string" or any(isinstance(word, str) for word in words)
    form = {key: node[key] for key in ("type", "pattern", "enum", "const", "format") if key in node}
    if (of_text and form.keys() & {"pattern", "enum", "const"}) or form.get("format") == "date-time":
        rest = {key: value for key, value in node.items() if key not in form}
        return {**rest, "anyOf": [form, {"$ref": "#/$defs/Reference"}]}
    return {key: _with_references(value) for key, value in node.items()}


def _groups(
    model: dict[str, Any], definitions: dict[str, Any], *, prefix: str, heading: str = "At the top"
) -> Iterator[str]:
    """Yield the paragraphs about a group, then those about the groups inside it."""
    required = set(model.get("required", ()))
    rows, inner = [], []
    for name, node in model["properties"].items():
        in_list = node.get("type") == "array"
        forms = [node["items"]] if in_list else _variants(node)
        reference = next((form["$ref"] for form in forms if "$ref" in form), None)
        if reference is not None:
            inner.append((definitions[reference.rpartition("/")[2]], f"{prefix}{name}{'[]' if in_list else ''}"))
            continue
        default = "required" if name in required else _default(node.get("default"), node)
        rows.append((f"`{name}`", _type(node), default, _bounds(node), node["description"]))
    yield f"## `{prefix.removesuffix('.')}`" if prefix else f"## {heading}"
    yield model["description"]
    if rows:
        yield table(("Setting", "Type", "Default", "Bounds", "Meaning"), rows)
    if inner:
        yield "Groups inside: " + ", ".join(f"`{path}`" for _, path in inner) + "."
    for group, path in inner:
        yield from _groups(group, definitions, prefix=f"{path}.")


def _variants(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the types of a value without `null`, which means the same as leaving the setting out."""
    return [variant for variant in node.get("anyOf", [node]) if variant.get("type") != "null"]


def _type(node: dict[str, Any]) -> str:
    names = []
    for variant in _variants(node):
        words = variant.get("enum", [variant["const"]] if "const" in variant else [])
        if words:
            names.append(" | ".join(f"`{word}`" for word in words))
            continue
        match variant["type"], variant.get("format"):
            case "array", _:
                names.append(f"list of {_type(variant['items'])}")
            case "object", _ if not _mapped(variant):
                names.append("group")
            case "object", _:
                names.append(f"map of {_type(_mapped(variant))}")
            case "string", "password":
                names.append("secret text")
            case "string", "path":
                names.append("file")
            case "string", "date-time":
                names.append("time")
            case name, _:
                names.append({"string": "text", "integer": "whole number", "boolean": "boolean"}.get(name, name))
    return " | ".join(names) if len(names) < 3 else ", ".join(names)


def _mapped(variant: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a map's values; its keys may have a pattern."""
    forms: dict[str, dict[str, Any]] = variant.get("patternProperties", {})
    return next(iter(forms.values()), variant.get("additionalProperties", {}))


def _default(value: Any, node: dict[str, Any]) -> str:
    if value is None:
        return {"object": "`{}`", "array": "`[]`"}.get(node.get("type", ""), "none")
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    return f"`{number if isinstance(number, str) else json.dumps(number)}`"


def _bounds(node: dict[str, Any]) -> str:
    parts = []
    for variant in _variants(node):
        items = variant.get("items", _mapped(variant) if "patternProperties" in variant else variant)
        parts += [
            f"{word} {items[key]:,}"
            for key, word in (("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"))
            if key in items
        ]
        if "pattern" in items:
            parts.append(f"`{items['pattern']}`")
        if items.get("minLength") == 1 and "maxLength" not in items:
            parts.append("not empty")
    return ", ".join(parts)
