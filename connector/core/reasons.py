"""The one catalogue of the reasons of dead letters: what each means, and what to do.

Reasons are values of the header `trackly.reason` and of the label `reason`, so their number is bounded. Some are found
before anything is posted, some are the platform's own codes for a record (`RECORD_CODES`), some follow from an answer
or its absence. The reference page is generated from here; tests compare it with the code that assigns reasons.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Reason(NamedTuple):
    """What is wrong with a record, and what to do.

    `here`: the connector itself finds it before posting; the platform may report it as well.
    """

    means: str
    do: str
    here: bool = False


_FILL_IN: Final = (
    "have the producer fill it in, or set it with `mapping.fields`; a redrive with `--patch` fixes existing dead "
    "letters"
)
_AS_JSON: Final = "fix the producer, or set `format` to what the topic contains"
_FOR_THE_PLATFORM: Final = "ask the platform's support, with `trackly.text` and `trackly.batch_id`"
_LATER: Final = "send it again later; a rule in `dead_letters.redrive` does so automatically"
_NUMBER: Final = "numbers are `+`, the country code and up to 15 digits in all: fix the producer, or `mapping.fields`"


def _missing(field: str, *, empty: bool = True) -> Reason:
    return Reason(f"`{field}` is absent or {'empty' if empty else 'null'}", _FILL_IN, here=True)


REASONS: Final[Mapping[str, Reason]] = {
    "contact_not_found": Reason(
        "the platform has no such contact", "create the contact first (`operation: contacts`), then send again"
    ),
    "contact_too_large": Reason(
        "a contact has more than 4,000 bytes", "leave out fields, with `mapping` or in the producer", here=True
    ),
    "content_type_unknown": Reason(
        "the data of a CloudEvent has a content type that the stream's `format` does not decode",
        "set `format.data` to the format of the data",
        here=True,
    ),
    "expired": Reason(
        "older than `delivery.max_age_secs`",
        "if it is still wanted, send it again: it then counts as new; otherwise find out why records wait so long",
        here=True,
    ),
    "in_doubt": Reason(
        "nobody knows whether the platform accepted it, and `delivery.in_doubt` says not to post it again",
        "`dead-letters in-doubt` settles it by evidence; `--include in_doubt` sends it again, perhaps twice",
    ),
    "internal_error": Reason(
        "the platform failed on this record, until `retry.max_attempts` was reached",
        _LATER,
    ),
    "invalid_attribution_type": Reason(
        "the platform does not accept this `attribution_type`", "it must be `sale`, `click` or `send`: fix the producer"
    ),
    "invalid_list_number": Reason("`list_number` is not an E.164 number", _NUMBER, here=True),
    "invalid_phone": Reason("the recipient's number is not an E.164 number", _NUMBER, here=True),
    "invalid_revenue": Reason("`revenue` is below 0, or not a number", "fix the producer", here=True),
    "invalid_timestamp": Reason("the platform does not accept this `timestamp`", "use ISO 8601 format"),
    "journeys_not_allowed": Reason(
        "`use_journeys` is true and the stream's `contacts.journeys` is not",
        "set `contacts.journeys: true` if texts may follow, otherwise leave the field out",
        here=True,
    ),
    "list_not_found": Reason(
        "the account has no list with this number",
        "set the list up on the platform, or fix `list_number`; then send again",
    ),
    "mapping_failed": Reason(
        "a field of `mapping`, or `when`, could not be computed, and the text names which; or a `transform` returned "
        "something that is not JSON",
        "`explain` shows it; give the expression a default, or fix the event or the function",
        here=True,
    ),
    "message_not_found": Reason(
        "the platform never issued this `message_id`", "check that the id is from the platform's answer or event"
    ),
    "missing_attribution_type": _missing("attribution_type", empty=False),
    "missing_body": _missing("body"),
    "missing_id": _missing("id", empty=False),
    "missing_list_number": Reason(
        "neither the event nor the stream has a list number",
        "set the stream's `list_number`, or put one in the event",
        here=True,
    ),
    "missing_message_id": _missing("message_id"),
    "missing_offer_id": _missing("offer_id", empty=False),
    "missing_phone_number": _missing("phone_number"),
    "missing_revenue": _missing("revenue", empty=False),
    "missing_timestamp": _missing("timestamp"),
    "missing_to": _missing("to"),
    "missing_to_number": _missing("to_number"),
    "not_a_cloudevent": Reason(
        "not a CloudEvent of version 1.0: a required attribute is missing, or one is not valid",
        "fix the producer; the text names the attribute",
        here=True,
    ),
    "not_an_object": Reason("JSON, but not an object", _AS_JSON, here=True),
    "not_decodable": Reason(
        "the bytes do not match the schema or the format",
        "check that the producer writes the format set in `format`",
        here=True,
    ),
    "not_framed": Reason(
        "the value does not begin with a schema id, and no header has one",
        "use a serializer with the registry in the producer, or set `format: json`",
        here=True,
    ),
    "not_json": Reason("not JSON, or nested too deeply", _AS_JSON, here=True),
    "not_sendable": Reason(
        "the platform does not send to this number; `trackly.text` says why",
        "nothing: remove the number from your lists",
    ),
    "not_utf8": Reason("bytes that are not UTF-8", _AS_JSON, here=True),
    "offer_not_found": Reason("the platform has no such offer", "create the offer, or fix `offer_id`; then send again"),
    "payload_too_large": Reason(
        "the platform rejected it for its size, alone in a request",
        "make the event smaller, with `mapping` or in the producer",
    ),
    "provider_error": Reason(
        "the carrier failed, until `retry.max_attempts` was reached",
        _LATER,
    ),
    "record_too_large": Reason(
        "is too large even for a request by itself",
        "make the event smaller, or raise `batch.max_bytes` if that is below 5,000,000",
        here=True,
    ),
    "refused": Reason(
        "the platform gave it an undocumented code, in `trackly.code`, or counted it as failed without a reason",
        _FOR_THE_PLATFORM,
    ),
    "rejected": Reason(
        "the platform, or a firewall in front of it (status 403), rejected it, alone in a request, without an error "
        "code for the record",
        "see `trackly.text`; then " + _FOR_THE_PLATFORM,
    ),
    "save_error": Reason(
        "the platform could not save it, until `retry.max_attempts` was reached",
        _LATER,
    ),
    "schema_not_found": Reason(
        "the schema registry does not know the id",
        "check that `schema_registry.url` is the registry that the producer uses; then send again",
        here=True,
    ),
    "schema_unusable": Reason(
        "the schema has another format, is too large or invalid, or refers to what the registry does not have",
        "fix the schema in the registry, or set `format` to the schema's kind",
        here=True,
    ),
    "schema_violated": Reason(
        "the value does not conform to its JSON Schema",
        "fix the producer, or set `format.validation: false`",
        here=True,
    ),
    "server_error": Reason(
        "it failed with a 5xx, alone in a request, while others passed, until `retry.max_attempts` was reached",
        "send it again later; if it keeps failing, " + _FOR_THE_PLATFORM,
    ),
    "too_many_segments": Reason(
        "the text takes more segments than `mapping.max_segments`",
        "shorten it with the filter `truncate_segments`, or raise the limit",
        here=True,
    ),
    "transform_failed": Reason(
        "the stream's `transform` says so", "the text comes from that function: see there", here=True
    ),
    "unexpected_message": Reason(
        "a Protobuf message other than `format.message`", "name that message, or leave `format.message` out", here=True
    ),
    "unknown_field": Reason(
        "has an undocumented field, and the stream has `unknown_fields: reject`",
        "leave the field out, or set `unknown_fields: pass`",
        here=True,
    ),
    "validation_failed": Reason("the platform finds the record wrong; `trackly.text` says what", "fix the producer"),
    "webhook_not_configured": Reason(
        "the list is not set up for this operation", "set the list up on the platform; then send again"
    ),
    "wrong_type": Reason(
        "a field has a type or value that the API does not accept; the text names it",
        "fix the producer, or set the field with `mapping.fields`",
        here=True,
    ),
}
