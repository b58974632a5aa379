"""Rates are made of counts: smooth as numbers, second by second in the charts, and never below zero."""

import asyncio
from typing import Any

import pytest

from connector.console.sampling import KEPT, SERIES, SMOOTH, Sampler, Track
from tests.console.making import status, stream


def _points(track: Track, series: str) -> list[float | None]:
    return [row[SERIES.index(series)] for row in track.points]


def test_rates_are_what_was_added_in_a_second() -> None:
    track = Track()
    for second in range(4):
        counts = {"records_read": second * 500, "queued": second * 400, "dead_letters": {"a": second * 2}}
        track.add(100.0 + second, stream(**counts), at=100.0 + second)

    rates = track.rates()

    assert rates is not None
    assert (rates["read"], rates["queued"], rates["dead"], rates["settled"]) == (500.0, 400.0, 2.0, 402.0)
    assert _points(track, "read") == [None, 500.0, 500.0, 500.0]


def test_the_number_is_a_mean_and_the_chart_is_not() -> None:
    track = Track()
    for second, read in enumerate([0, 0, 0, 0, 0, 0, 600]):
        track.add(100.0 + second, stream(records_read=read), at=100.0 + second)

    rates = track.rates()

    assert rates is not None
    assert rates["read"] == pytest.approx(600 / SMOOTH)
    assert _points(track, "read")[-1] == 600.0


def test_a_count_that_falls_makes_no_rate() -> None:
    """A worker that begins anew counts from 0."""
    track = Track()
    for second, read in enumerate([1_000, 2_000, 50]):
        track.add(100.0 + second, stream(records_read=read), at=100.0 + second)

    assert _points(track, "read") == [None, 1_000.0, 0.0]
    assert all(rate >= 0 for rate in (track.rates() or {}).values())


def test_two_looks_in_a_moment_are_one() -> None:
    track = Track()
    track.add(100.0, stream(records_read=0), at=100.0)
    track.add(100.05, stream(records_read=1_000), at=100.05)
    track.add(101.0, stream(records_read=1_000), at=101.0)

    assert _points(track, "read") == [None, 1_000.0]


def test_what_was_seen_long_ago_makes_no_rate_and_no_line() -> None:
    """Whoever loads the page after minutes asks what flows now, and not what did between two looks."""
    track = Track()
    for at, read in ((100.0, 0), (101.0, 500), (300.0, 90_000)):
        track.add(at, stream(records_read=read), at=at)
    long_after = track.rates()

    track.add(301.0, stream(records_read=90_010), at=301.0)

    rates = track.rates()
    assert (long_after, rates and rates["read"]) == (None, 10.0)
    assert _points(track, "at") == [300.0, 301.0]


def test_what_is_kept_is_bounded() -> None:
    track = Track()
    for second in range(2 * KEPT):
        track.add(float(second), stream(), at=float(second))

    assert len(track.points) == KEPT
    assert len(track.counts) == SMOOTH + 1


def test_a_clock_that_is_set_back_keeps_nobody_from_seeing_how_things_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are made of time that passes, and only the charts of the time of day."""
    passed = 50.0
    set_back = False
    monkeypatch.setattr("time.monotonic", lambda: passed)
    monkeypatch.setattr("time.time", lambda: passed + (0 if set_back else 3_600))
    read = 0

    async def ask() -> dict[str, Any]:
        return status(stream(records_read=read))

    async def look(sampler: Sampler) -> tuple[int, float]:
        snapshot = await sampler.latest()
        rates = snapshot.rates["campaign-sends"]
        return snapshot.status["streams"][0]["records_read"], 0.0 if rates is None else rates["read"]

    async def main() -> list[tuple[int, float]]:
        nonlocal passed, read, set_back
        sampler = Sampler(ask)
        seen = [await look(sampler)]
        for _ in range(3):
            passed, read, set_back = passed + 2, read + 1_000, True
            seen.append(await look(sampler))
        return seen

    assert asyncio.run(main()) == [(0, 0.0), (1_000, 500.0), (2_000, 500.0), (3_000, 500.0)]


def test_a_stream_that_has_gone_is_forgotten_and_a_failing_look_is_survived() -> None:
    answers: list[Any] = [status(stream(), stream(name="b")), OSError("away"), status(stream())]

    async def ask() -> dict[str, Any]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    async def main() -> None:
        sampler = Sampler(ask)
        async with sampler.watching():
            first = await sampler.after(0)
            assert first is not None
            assert set(sampler.tracks) == {"campaign-sends", "b"}
            second = await sampler.after(first.number)
            assert second is not None
            assert set(sampler.tracks) == {"campaign-sends"}
        await sampler.close()
        assert await sampler.after(0) is None

    asyncio.run(main())
