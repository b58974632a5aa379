"""What can go wrong with the platform, as one model: given at start, by script, or at run time.

A `Chance` says when a fault strikes: the next n times, or at a rate. Chances apply to POST requests only, one fault per
request, in the order of the fields here, so that a `GET /lists` at start does not use up the fault that a test has set
for a batch. Everything that is not a chance is a condition: it applies to each request while it is set.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from connector.config.problems import Problem, SettingsError
from connector.simulator.reading import Model, read_yaml, validated

Rate = Annotated[float, Field(ge=0, le=1)]
FailureStatus = Annotated[int, Field(ge=300, le=599)]
BodyForm = Literal["json", "html", "empty"]


def _rate_as_chance(value: object) -> object:
    """Read a number as a rate: `lose_reply: 0.05`."""
    return {"rate": value} if isinstance(value, int | float) and not isinstance(value, bool) else value


def _number_as_range(value: object) -> object:
    """Read a number as a range without width: `latency_ms: 50`."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value, value
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be a number, or a list of minimum and maximum: [20, 80]")
    return value


class Chance(Model):
    """When a fault strikes: the next `next` requests that it can strike, and after them at `rate`."""

    next: int = Field(default=0, ge=0, description="How many of the next requests are affected.")
    rate: Rate = Field(default=0.0, description="Share of the requests that are affected, from 0 to 1.")


_Odds = Annotated[Chance, BeforeValidator(_rate_as_chance), WithJsonSchema({"type": "chance"})]
NEVER = Chance()


class Outage(Model):
    """The platform is away, for `secs` or until the faults are changed."""

    how: Literal["refuse", "close"] = Field(
        default="close",
        description="`refuse`: the port is closed, including the control API. `close`: a connection is dropped as soon "
        "as its request line is read; the control API stays reachable.",
    )
    secs: float | None = Field(default=None, gt=0, description="When it ends by itself.")


class Poison(Model):
    """A record that makes every request that carries it fail as a whole."""

    text: str = Field(min_length=1, description="Part of the record's text (see `record_codes`).")
    status: FailureStatus = Field(default=500, description="Status of the answer.")
    body: BodyForm = Field(default="json", description="`html`: what a firewall in front of the platform would send.")


class RecordCode(Model):
    """Records that fail one by one with a code, for good or only the first times."""

    text: str = Field(
        min_length=1, description="Part of a message's `body`; for other records, part of the record's JSON."
    )
    code: str = Field(min_length=1, description="Its `code` in `errors`, such as `provider_error`.")
    error: str = Field(default="Failed as the simulator was told to", description="Its text there.")
    times: int | None = Field(default=None, ge=1, description="How often one record fails; unset: always.")


class Faults(Model):
    """All faults of the simulator; the default is a healthy platform."""

    latency_ms: Annotated[
        tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]],
        BeforeValidator(_number_as_range),
        WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]}),
    ] = Field(
        default=(0.0, 0.0), description="Time from the whole request to its reply: a number, or minimum and maximum."
    )
    only_paths: tuple[str, ...] = Field(
        default=(), description="Endpoints that the faults affect, such as `/send/bulk`; empty: all of them."
    )

    outage: Outage | None = None
    revoked_keys: tuple[str, ...] = Field(default=(), description="Keys that are unknown (401), known before or not.")
    account_suspended: bool = Field(default=False, description="403 for each request, without a code.")
    billing_code: Literal["no_billing_config", "no_payment_method", "payment_failed", "suspended"] | None = Field(
        default=None, description="402 for contacts with `use_validation`."
    )
    body_limit_bytes: int | None = Field(default=None, ge=1, description="413 above it, if below the platform's own.")
    errors_cap: int | None = Field(
        default=None, ge=0, description="Maximum entries in `errors`; `error_count` still counts all."
    )
    poison: tuple[Poison, ...] = ()
    record_codes: tuple[RecordCode, ...] = ()

    status_override: FailureStatus | None = Field(default=None, description="Status of every answer.")
    error_rate: dict[FailureStatus, Rate] = Field(
        default={}, description="Share of the requests answered with each status; together at most 1."
    )
    failure_body: BodyForm = Field(default="json", description="Body of the two above.")
    retry_after_secs: float | None = Field(default=None, ge=0, description="Sent with 429 and 503.")
    retry_after_form: Literal["seconds", "date"] = Field(default="seconds", description="How it is written.")

    drop_request: _Odds = Field(default=NEVER, description="Read in full, nothing accepted, closed without an answer.")
    lose_reply: _Odds = Field(default=NEVER, description="Accepted, then closed without an answer.")
    stall: _Odds = Field(default=NEVER, description="Read in full, never answered, never closed.")
    stall_above_bytes: int | None = Field(
        default=None, ge=0, description="All requests with larger bodies are stalled."
    )
    stall_takes_records: bool = Field(default=False, description="Whether a stalled request is accepted.")
    cut_body: _Odds = Field(default=NEVER, description="Accepted, closed in the middle of the reply's body.")
    slow_body: _Odds = Field(
        default=NEVER, description="Accepted, the reply's body is sent slowly, over `slow_body_secs`."
    )
    slow_body_secs: float = Field(default=1.0, gt=0, description="How long that takes.")
    close_with: Literal["fin", "rst"] = Field(default="fin", description="How faults close a connection.")
    close_idle_after_secs: float | None = Field(
        default=None, gt=0, description="Connections without a request are closed after this, if sooner than usual."
    )

    broken_json: _Odds = Field(default=NEVER, description="Accepted; the reply's JSON ends too early.")
    empty_body: _Odds = Field(default=NEVER, description="Accepted; the reply has no body.")
    html_body: _Odds = Field(default=NEVER, description="Accepted; the reply is an HTML page, with a success status.")
    wrong_counts: _Odds = Field(default=NEVER, description="Accepted; the counts add up to one record more than sent.")
    repeated_index: _Odds = Field(default=NEVER, description="Accepted; `errors` names the first record twice.")
    out_of_range_index: _Odds = Field(default=NEVER, description="Accepted; `errors` names a record that was not sent.")
    wrong_to: _Odds = Field(default=NEVER, description="Accepted; an entry of `errors` has another record's number.")
    unnamed_error: _Odds = Field(
        default=NEVER, description="The first good record is rejected and counted, but not named in `errors`."
    )
    huge_reply_bytes: int | None = Field(
        default=None, ge=1, le=1_000_000_000, description="Success replies are padded to this size."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        least, most = self.latency_ms
        if least > most:
            raise ValueError("latency_ms: the least latency is above the most")
        if sum(self.error_rate.values()) > 1:
            raise ValueError("error_rate: the rates add up to more than 1")
        if any(not path.startswith("/") for path in self.only_paths):
            raise ValueError("only_paths: a path starts with a slash and leaves the base path out")
        return self

    def overlaid(self, other: "Faults") -> "Faults":
        """Return these faults with those that the other one names in place of its own."""
        return self.model_copy(update={name: getattr(other, name) for name in other.model_fields_set})

    def touches(self, path: str) -> bool:
        """Tell whether these faults concern the endpoint (its path without the base path)."""
        return not self.only_paths or path in self.only_paths


HEALTHY = Faults()


class ScriptStep(Model):
    """Faults for a time: laid over the standing ones from `at_secs` until `until_secs` (unset: for good)."""

    at_secs: float = Field(ge=0)
    until_secs: float | None = Field(default=None, gt=0)
    faults: Faults

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.until_secs is not None and self.until_secs <= self.at_secs:
            raise ValueError("until_secs is not after at_secs")
        if self.faults.outage is not None and self.faults.outage.secs is not None:
            raise ValueError("faults.outage.secs: a step ends its outage with until_secs")
        return self


class _Script(Model):
    steps: tuple[ScriptStep, ...]


def parse_faults(document: object, *, source: Path | str = "faults") -> Faults:
    """Read faults from a decoded document.

    Raises `SettingsError` that names the place of every problem.
    """
    return validated(Faults, document, source=source)


def patch_faults(faults: Faults, document: object) -> Faults:
    """Return the faults with the named fields replaced; null puts a field back to its default.

    Raises `SettingsError` that names the place of every problem.
    """
    if isinstance(document, Mapping):
        defaults = dict(HEALTHY)
        document = {name: defaults.get(name) if value is None else value for name, value in document.items()}
    return faults.overlaid(parse_faults(document))


def load_faults(path: Path) -> Faults:
    """Read a YAML or JSON file of faults.

    Raises `SettingsError` that names the place of every problem.
    """
    return parse_faults(read_yaml(path), source=path)


def load_script(path: Path) -> tuple[ScriptStep, ...]:
    """Read a YAML or JSON file that holds a list of steps.

    Raises `SettingsError` that names the place of every problem.
    """
    document = read_yaml(path)
    if not isinstance(document, list):
        raise SettingsError(path, [Problem("", "must be a list of steps: at_secs, until_secs, faults")])
    return validated(_Script, {"steps": document}, source=path).steps
