"""Pages of several workers are merged: counts are added, other values name their worker."""

from typing import Any

import pytest

from connector.console.joining import WorkerAnswer, joined_health, joined_readiness, joined_resumed, joined_streams
from connector.telemetry.metrics import WorkerSeen, render_workers


def _stream(**over: Any) -> dict[str, Any]:
    numbers = (
        "records_read", "queued", "skipped", "in_doubt", "open_doubt", "resent", "missing", "vanished", "passed_over",
        "in_flight_records", "in_flight_requests", "waiting_batches", "ready_batches", "open_records", "held_bytes",
        "requests", "ticks", "ticks_aborted", "producers_replaced", "consumers_replaced", "concurrency_limit",
        "waiting_for_key",
    )  # fmt: skip
    return {
        **dict.fromkeys(numbers, 1),
        "name": "sends", "state": "running", "operation": "send", "dead_letters": {}, "requests_by_row": {},
        "batches_closed": {}, "lag": 0, "holds": [], "hold": None, "standstills": [], "partitions": {}, "error": None,
        "paused_secs": 0.0, "pace": None, "redrives": [], "concurrency_moved": "grow", "gate": "closed", "failures": [],
        "largest_batch": None, "oldest_unsettled_secs": 0.0, "progress_at": 7.0, **over,
    }  # fmt: skip


def _answers(*streams: dict[str, Any]) -> list[WorkerAnswer]:
    return [WorkerAnswer(n, "running", 200, {"streams": [stream]}) for n, stream in enumerate(streams)]


def _hold(since: float) -> dict[str, Any]:
    return {"reason": "outage", "since": since}


def test_paces_of_workers_are_shares_of_one_and_their_lists_name_the_worker() -> None:
    def pace(share: float, waiting: int, secs: float) -> dict[str, Any]:
        lists = [{"list": "+1***4567", "waiting_records": waiting, "backlog_secs": secs}]
        return {"share": share, "waiting_records": waiting, "backlog_secs": secs, "lists_waiting": 1, "lists": lists}

    answers = [
        WorkerAnswer(0, "running", 200, {"streams": [_stream(pace=pace(0.25, 10, 4.0))]}),
        WorkerAnswer(1, "running", 200, {"streams": [_stream(pace=pace(0.75, 30, 9.0))]}),
    ]

    [joined] = joined_streams(answers)

    told = joined["pace"]
    assert (told["share"], told["waiting_records"], told["backlog_secs"]) == (1.0, 40, 9.0)
    assert [(found["worker"], found["backlog_secs"]) for found in told["lists"]] == [(1, 9.0), (0, 4.0)]
    assert joined_streams([WorkerAnswer(0, "running", 200, {"streams": [_stream()]})])[0]["pace"] is None


def test_counts_are_sums_and_what_belongs_to_a_worker_names_it() -> None:
    one = _stream(queued=3, dead_letters={"invalid_phone": 2}, lag=5, partitions={"t:0": {"read": 4}}, paused_secs=2.0)
    two = _stream(queued=4, dead_letters={"invalid_phone": 1, "in_doubt": 7}, lag=6, partitions={"t:1": {"read": 9}})

    (joined,) = joined_streams(_answers(one, two))

    assert joined.keys() == one.keys(), "the shape is that of one process"
    assert (joined["queued"], joined["requests"], joined["lag"], joined["paused_secs"]) == (7, 2, 11, 2.0)
    assert joined["dead_letters"] == {"invalid_phone": 3, "in_doubt": 7}
    assert joined["partitions"] == {"t:0": {"read": 4, "worker": 0}, "t:1": {"read": 9, "worker": 1}}


def test_the_oldest_record_and_the_newest_progress_of_all_workers_are_reported() -> None:
    one = _stream(oldest_unsettled_secs=3.0, progress_at=100.0, open_doubt=4)
    two = _stream(oldest_unsettled_secs=9.0, progress_at=50.0, open_doubt=1)

    (joined,) = joined_streams(_answers(one, two))

    assert (joined["oldest_unsettled_secs"], joined["progress_at"], joined["open_doubt"]) == (9.0, 100.0, 5)


@pytest.mark.parametrize(("limits", "joined"), [((None, None), None), ((64, None), 64), ((64, 8), 8)])
def test_of_what_batches_may_hold_the_least_is_reported(
    limits: tuple[int | None, int | None], joined: int | None
) -> None:
    [found] = joined_streams(_answers(*(_stream(largest_batch=limit) for limit in limits)))

    assert found["largest_batch"] == joined


def test_the_state_that_most_needs_to_be_seen_is_reported_and_holds_name_their_worker() -> None:
    one = _stream(state="on_hold", hold=_hold(9.0), holds=[_hold(9.0)], lag=None)
    two = _stream(state="on_hold", hold=_hold(8.0), holds=[_hold(8.0)], concurrency_moved="trouble")
    three = _stream(state="failed", error="a bug")

    (joined,) = joined_streams(_answers(one, two, three))

    assert (joined["state"], joined["error"], joined["concurrency_moved"]) == ("failed", "worker 2: a bug", "differs")
    assert joined["hold"] == {"reason": "outage", "since": 8.0, "worker": 1}
    assert [hold["worker"] for hold in joined["holds"]] == [1, 0]
    assert joined["lag"] is None, "a sum of which a part is not known is not known"


def test_a_worker_that_does_not_answer_is_left_out_of_sums() -> None:
    (joined,) = joined_streams([*_answers(_stream(queued=3)), WorkerAnswer(1, "restarting")])

    assert joined["queued"] == 3


def test_ready_is_only_who_has_every_worker_ready() -> None:
    ready = WorkerAnswer(0, "running", 200, {"ready": True, "streams": {}})
    joining = WorkerAnswer(1, "running", 503, {"ready": False, "streams": {"sends": "running, not in its group"}})

    assert joined_readiness([ready, ready]) == (True, {"ready": True, "streams": {}, "workers": {}})
    red, why = joined_readiness([ready, joining, WorkerAnswer(2, "restarting")])
    assert not red
    assert why["streams"] == {"sends": "worker 1: running, not in its group"}
    assert why["workers"] == {"2": "restarting"}


def test_health_is_red_with_one_worker_that_is_red_or_silent_and_not_for_one_that_is_started_again() -> None:
    alive = WorkerAnswer(0, "running", 200, {"status": "alive"})
    stalled = WorkerAnswer(1, "running", 503, {"status": "stalled", "standstills": [{"stream": "sends"}]})

    assert joined_health([alive, WorkerAnswer(1, "restarting"), WorkerAnswer(2, "starting")]) == (
        True,
        {"status": "alive"},
    )
    assert joined_health([alive, stalled]) == (
        False,
        {"status": "stalled", "standstills": [{"stream": "sends", "worker": 1}], "silent_workers": []},
    )
    assert joined_health([alive, WorkerAnswer(1, "silent")])[1]["silent_workers"] == [1]


def _told(ordinal: int, status: int = 200, **over: Any) -> WorkerAnswer:
    body = {"stream": "sends", "ended": [], "probed": [], "undecided": [], "not_held": [], **over}
    return WorkerAnswer(ordinal, "running", status, body)


def test_a_partition_is_not_held_when_no_worker_holds_it() -> None:
    status, body = joined_resumed(
        [_told(0, not_held=["t:1", "t:9"], ended=[{"reason": "r"}]), _told(1, not_held=["t:9"])]
    )

    assert (status, body["not_held"], body["ended"]) == (200, ["t:9"], [{"reason": "r", "worker": 0}])


def test_what_one_worker_needs_is_required_for_all() -> None:
    assert joined_resumed([_told(0), _told(1, 409, undecided=[{"reason": "in_doubt"}])])[0] == 409


def test_a_refusal_of_all_is_reported_once_and_that_of_one_with_its_name() -> None:
    wrong = [WorkerAnswer(n, "running", 401, {"problem": "the token is wrong"}) for n in range(2)]
    draining = WorkerAnswer(1, "running", 409, {"problem": "the stream is draining"})

    assert joined_resumed(wrong) == (401, {"problem": "the token is wrong"})
    status, body = joined_resumed([_told(0, ended=[{"reason": "r"}]), draining])
    assert (status, body["problem"]) == (409, "worker 1: the stream is draining")
    assert body["ended"] == [{"reason": "r", "worker": 0}], "what was done is told all the same"
    status, body = joined_resumed([_told(0), WorkerAnswer(1, "restarting")])
    assert (status, body["problem"]) == (503, "worker 1 was not told, it is restarting; say it again")


def test_metrics_of_workers_are_in_one_family_each_with_a_label_for_the_worker() -> None:
    text = (
        "# HELP trackly_queued_total Taken.\n# TYPE trackly_queued_total counter\n"
        'trackly_queued_total{stream="sends"} %s\n'
    )

    page = render_workers({0: text % "3.0", 1: text % "4.0"}, [WorkerSeen(0, True, 0), WorkerSeen(1, False, 2)])

    lines = page.decode().splitlines()
    assert lines.count("# TYPE trackly_queued_total counter") == 1
    assert 'trackly_queued_total{stream="sends",worker="0"} 3.0' in lines
    assert 'trackly_queued_total{stream="sends",worker="1"} 4.0' in lines
    assert 'trackly_worker_up{worker="1"} 0.0' in lines
    assert 'trackly_worker_restarts_total{worker="1"} 2.0' in lines


def test_the_gate_is_the_worst_one_and_failures_are_the_last_of_all() -> None:
    def failure(at: float) -> dict[str, Any]:
        return {"at": at, "reason": "invalid_phone"}

    one = _stream(gate="half_open", failures=[failure(30.0 - n) for n in range(20)])
    two = _stream(gate="closed", failures=[failure(29.5)])

    (joined,) = joined_streams(_answers(one, two))

    assert joined["gate"] == "half_open"
    assert [(found["at"], found["worker"]) for found in joined["failures"][:3]] == [(30.0, 0), (29.5, 1), (29.0, 0)]
    assert len(joined["failures"]) == 20


def test_what_was_joined_can_be_joined_again() -> None:
    """A worker is then named within its member."""
    (joined,) = joined_streams(_answers(_stream(holds=[_hold(1.0)]), _stream(holds=[_hold(2.0)])))

    (again,) = joined_streams([WorkerAnswer("here", "running", 200, {"streams": [joined]})])

    assert [hold["worker"] for hold in again["holds"]] == ["here/0", "here/1"]


def test_a_pause_is_reported_of_each_worker() -> None:
    body = {"stream": "sends", "ended": [], "probed": [], "undecided": [], "not_held": []}
    answers = [
        WorkerAnswer(n, "running", 200, {**body, "paused": [{"reason": "paused", "partition": None}]}) for n in range(2)
    ]

    status, told = joined_resumed(answers)

    assert status == 200
    assert [paused["worker"] for paused in told["paused"]] == [0, 1]
