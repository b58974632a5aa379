"""Replies that say something else than what happened: the document of a bulk reply, distorted."""

from dataclasses import replace
from typing import Any, Final, Literal, assert_never

from connector.simulator.answers import Answer
from connector.simulator.endpoints import Operation

Lie = Literal["wrong_counts", "repeated_index", "out_of_range_index", "wrong_to"]

_OTHER_ECHO: Final = {"to": "+15005550000", "phone_number": "+15005550000", "id": "of-another-record"}
_CODE: Final = {"code": "internal_error", "error": "Internal server error"}


def told(lie: Lie, operation: Operation, answer: Answer, *, index_base: int) -> Answer:
    """Return the answer to a bulk request with the lie in it.

    But for `wrong_counts`, the counts still add up to the records of the request (as long as it has two), so that only
    the entries of `errors` give the lie away.
    """
    records = answer.records or 0
    document: dict[str, Any] = dict(answer.document)
    echo = {} if operation.echo is None else {operation.echo: answer.first_echo}
    entry = {"index": index_base, **echo, **_CODE}
    match lie:
        case "wrong_counts":
            document[operation.good] += 1
        case "repeated_index":
            document |= _failed(operation, records, [entry, entry])
        case "out_of_range_index":
            document |= _failed(operation, records, [{**entry, "index": index_base + records}])
        case "wrong_to":
            other = {} if operation.echo is None else {operation.echo: _OTHER_ECHO[operation.echo]}
            document |= _failed(operation, records, [{**entry, **other}])
        case _:
            assert_never(lie)
    return replace(answer, document=document)


def _failed(operation: Operation, records: int, errors: list[dict[str, object]]) -> dict[str, object]:
    return {operation.good: max(0, records - len(errors)), "error_count": len(errors), "errors": errors}
