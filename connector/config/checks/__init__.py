"""What must fit together: rules about several settings.

Time limits form chains (a request must end before the drain, the drain before the grace period), topics must not feed
themselves, and settings without effect are rejected, because their author expected one. Each rule shows its sum in the
message, and names the settings that it looked at: if one of those is wrong already, the rule is not reported.
"""

from collections.abc import Iterator
from typing import Final

from connector.config.checks import connections, events, limits, topics
from connector.config.problems import Fault
from connector.config.settings import Settings

RULES: Final = (
    "`trackly.timeouts.connect_secs` <= `trackly.timeouts.total_secs`",
    "`trackly.timeouts.total_secs` + 1 s for the last tick <= `streams[].delivery.drain_secs` < `shutdown.grace_secs`",
    "`streams[].delivery.drain_secs` < `kafka.max_poll_interval_secs`",
    "`streams[].delivery.drain_secs` + `streams[].batch.window_ms` < `health.stalled_secs`",
    "2 x `kafka.heartbeat_interval_secs` < `kafka.session_timeout_secs` <= `kafka.max_poll_interval_secs`",
    "`streams[].delivery.tick_interval_ms` < `kafka.session_timeout_secs` less two heartbeats (when a post must start)",
    "`trackly.idle_connection_secs` < `trackly.platform_idle_secs`",
    "`socket.timeout.ms`, if set for producers, <= `kafka.transaction_timeout_secs` less 100 ms",
    "`streams[].batch.window_ms` < `streams[].delivery.max_age_secs`, in bulk mode",
    "`streams[].batch.max_records` <= `delivery.max_in_flight_records` and `delivery.max_tick_records` of the stream",
    "`streams[].concurrency.min` <= `concurrency.max`; each wait <= its longest wait",
    "no code in both `streams[].retry.transient_codes` and `setting_codes`",
    "a stream reads `topics` or a `pattern`, and never its own outcomes or dead letters, which are two topics",
    "the dead-letter topic of a stream is not the outcome topic of another; an output may be another stream's input",
    "no stream reads or writes the redrive topic of another (`<name>.redrive`)",
    "`dead_letters.redrive`: unique names; known reasons, none twice or `in_doubt`; and `guarantee: exactly_once`",
    "names and groups of streams are unique",
    "`mode: single` is not for history; `list_number_placement: top_level` is for bulk sends only",
    "`list_number`, `history`, `revenue` and `contacts` only if the operation uses them; `revenue.imported` in bulk",
    "`pace` only with `operation: send`",
    "every expression and template of `mapping` compiles, and `transform` names an existing function",
    "a mapping uses `attributes` only if the stream, or an override of it, has `format: cloudevents`",
    "`mapping.list_number` only if the operation has a list, `mapping.max_segments` only with `operation: send`",
    "`mapping.fields`, merged with an override, sets all required fields of the operation",
    "constants in `mapping.fields` are valid; so are its names, if `unknown_fields` are rejected",
    "the lists that `mapping.list_number` names itself (`table`, `default`, `const`) are E.164 numbers",
    "a list is chosen by `mapping.list_number` or by a field `list_number`, after merging an override",
    "an entry of `overrides` names topics that the stream reads, by name or by pattern, and changes something",
    "sasl protocols need a mechanism, PLAIN and SCRAM a user and a password, OAUTHBEARER its properties",
    "a certificate needs its key, and vice versa; named files must be readable, and usable for TLS",
    "librdkafka, tried without a broker, accepts all properties and files",
    "`traces.enabled` needs the extra `otel`",
    "`traces.endpoint` with `traces.headers` is https, unless it stays on this machine or is allowed",
    "`avro`, `protobuf` and `json_schema` need `schema_registry` and an extra; settings of a format only with it",
    "`schema_registry`: a user and its password, or a token, over https unless it stays on this machine or is allowed",
    "`schema_registry.timeout_secs` < `kafka.max_poll_interval_secs`",
    "`trackly.base_url` is https, unless it stays on this machine or `trackly.allow_plain_http` is set",
)
"""The rules of this package for the reference page, in an operator's words."""


def conflicts(settings: Settings) -> Iterator[Fault]:
    """Yield everything in the settings that does not fit together. Also checks named files."""
    for rules in (limits, connections, topics, events):
        yield from rules.faults(settings)
