"""What a simulator is started with: address, accounts, faults, and a switch wherever the documentation is ambiguous."""

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from connector.config.hosts import check_listening_host
from connector.config.model import PhoneNumber
from connector.simulator.faults import Faults, ScriptStep
from connector.simulator.reading import Model, read_yaml, validated

BASE_PATH: Final = "/api/v2"
CONTROL_PATH: Final = "/_simulator"

_FAULTS_OF_RECORDS: Final = frozenset({"poison", "record_codes", "billing_code", "unnamed_error"})


def _number_as_list(value: object) -> object:
    """Read a number as a list in good standing."""
    return {"phone_number": value} if isinstance(value, str) else value


class SendingList(Model):
    """A list of the account: the number that messages come from."""

    phone_number: PhoneNumber
    status: Literal["active", "paused", "suspended", "deleted"] = Field(
        default="active", description="A deleted list is not found by sends; the others take messages."
    )
    webhook_verified: bool = Field(default=True, description="False: sends fail with `webhook_not_configured`.")


class Switches(Model):
    """How to read the documentation where it is silent or disagrees with itself."""

    list_number: Literal["message", "top_level", "both"] = Field(
        default="both", description="Where bulk sends may carry it; with `both` the message's own takes precedence."
    )
    success_status: Literal[200, 201] = Field(default=200, description="Status of replies that accepted a request.")
    all_failed_status: int | None = Field(
        default=None, ge=200, le=499, description="Status of a bulk reply without any success; unset: as success."
    )
    key_codes: Literal["detailed", "unauthorized"] = Field(
        default="detailed", description="401 with `missing_api_key` and `invalid_api_key`, or `unauthorized` for both."
    )
    index_base: Literal[0, 1] = Field(default=0, description="The `index` of the first record in `errors`.")
    errors_cap: int | None = Field(default=None, ge=0, description="Maximum entries in `errors`; unset: all.")
    history_errors_cap: int = Field(default=100, ge=0, description="The same for history, where it is documented.")
    duplicate_window_secs: float | None = Field(
        default=None,
        gt=0,
        le=86_400,
        description="The same text to the same number from the same list is suppressed for this long; unset: never.",
    )
    duplicate_reply: Literal["queued", "error"] = Field(
        default="queued", description="A suppressed message is counted as queued, or fails with `duplicate_message`."
    )
    skipped_counts_as_success: bool = Field(
        default=False, description="Whether `success_count` of history includes `duplicates_skipped`."
    )
    oversized_contact: Literal["record", "request"] = Field(
        default="record", description="A contact above 4,000 bytes fails alone, or fails its whole bulk request."
    )
    partial_queueing: float = Field(
        default=0.0, ge=0, le=1, description="Share of a batch that is accepted before an injected or poisoned 5xx."
    )
    max_body_bytes: int = Field(default=5_000_000, ge=1, le=64_000_000, description="413 above it.")


def _check_identity(definition: str) -> str:
    if not all(definition.split("+")):
        raise ValueError("must be paths into a record with + between, such as body or to+body, or * for all of it")
    return definition


class SimulatorSettings(Model):
    """Everything a simulator is started with."""

    host: Annotated[str, AfterValidator(check_listening_host)] = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535, description="0: a free one.")
    tls_cert_file: Path | None = Field(default=None, description="PEM; with the key's file, the server speaks TLS.")
    tls_key_file: Path | None = None
    api_keys: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        default=(), repr=False, description="Keys it knows; empty: any key will do."
    )
    lists: tuple[Annotated[SendingList, BeforeValidator(_number_as_list)], ...] | None = Field(
        default=None, description="The account's lists; unset: any valid number is one of them."
    )
    fast: bool = Field(
        default=False, description="Only count the records of bulk requests; neither check nor remember them."
    )
    switches: Switches = Switches()
    identify: Annotated[str, AfterValidator(_check_identity)] = Field(
        default="body", description="What makes a message itself in the ledger; see `identity.extractor`."
    )
    faults: Faults = Faults()
    script: tuple[ScriptStep, ...] = ()
    script_from: Literal["first_request", "start"] = "first_request"
    seed: int = 0
    idle_connection_secs: float = Field(default=60.0, gt=0, description="Idle connections are closed after it.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("a certificate and its key go together: give both files")
        if self.fast:
            for faults in (self.faults, *(step.faults for step in self.script)):
                refuse_faults_that_fast_lacks(faults)
        return self


def refuse_faults_that_fast_lacks(faults: Faults) -> None:
    """Raise ValueError if a fast simulator gets faults that examine records."""
    lacking = sorted(faults.model_fields_set & _FAULTS_OF_RECORDS)
    if lacking:
        raise ValueError(f"a fast simulator does not look at records: {', '.join(lacking)}")


def load_switches(path: Path) -> Switches:
    """Read a YAML or JSON file of switches.

    Raises `SettingsError` that names the place of every problem.
    """
    return validated(Switches, read_yaml(path), source=path)
