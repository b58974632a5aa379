"""The console in a real browser: what an operator sees and does, from a hold at night to the redrive afterwards."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from connector.demo.finding import BrokerHandle
from connector.demo.topics import Topics
from connector.simulator import Faults, SimulatorSettings, SimulatorThread
from connector.simulator.faults import RecordCode
from tests.console.browsing import Browser, chromium
from tests.kit.patience import tell
from tests.kit.world import KEY, Worker, World

TOKEN: Final = "a-token-of-the-tests-0123456789"
PHONE: Final = "+15550000007"
SOON_SECS: Final = 5.0
"""By then the console says what holds."""


@dataclass
class Place:
    """A connector at work, and a browser that looks at its console."""

    world: World
    worker: Worker
    browser: Browser

    def settled(self, count: int) -> dict[str, Any]:
        """Wait until so many records have a result."""
        return self.worker.wait_for(
            lambda s: s["queued"] + sum(s["dead_letters"].values()) >= count, f"{count} records settled"
        )

    def log_in(self) -> None:
        """Give the token where it is asked for."""
        self.browser.wait(lambda: self.browser.text("h1, .headline"), "the page")
        if "Viewing needs no login" in self.browser.text():
            self.browser.find("#token").send_keys(TOKEN)
            self.browser.find("main form button").click()


@pytest.fixture(scope="module")
def place(broker: BrokerHandle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    driver = chromium()
    try:
        with SimulatorThread(SimulatorSettings(api_keys=(KEY,))) as platform:
            topics = Topics(broker.bootstrap_servers)
            world = World(broker.bootstrap_servers, topics, platform, tmp_path_factory.mktemp("w"))
            try:
                (world.folder / "token").write_text(TOKEN)
                settings = world.settings(
                    {"web": {"token": "${file:token}"}},
                    stream={"create_topics": {"enabled": True, "replication_factor": 1}},
                )
                worker = world.start(settings)
                worker.wait_for(
                    lambda s: s["state"] == "running" and len(s["partitions"]) == 4, "a worker with partitions"
                )
                browser = Browser(driver, f"http://127.0.0.1:{worker.port}")
                browser.size(1280, 900)
                yield Place(world, worker, browser)
            finally:
                world.close()
    finally:
        driver.quit()


def test_a_night_with_the_console(place: Place) -> None:
    """Figures move, a key is revoked and put right, somebody pauses, dead letters are sent again: nothing is lost."""
    _figures_move(place)
    _the_key_is_revoked_and_put_right(place)
    _somebody_pauses_and_resumes(place)
    _dead_letters_are_sent_again(place)

    assert place.browser.complaints() == []
    log = place.worker.log.read_text()
    assert "console action" in log
    assert "redrive confirmed" in log
    assert TOKEN not in log
    entries = place.world.platform.entries("send")
    assert len(entries) == 3_640
    assert {entry.accepted for entry in entries} == {1}, "nobody is texted twice"


def _figures_move(place: Place) -> None:
    """Without the page being loaded again."""
    world, browser = place.world, place.browser
    browser.go("")
    browser.script("window.kept = true")
    world.produce_sends(3_000, tag="first")
    place.settled(3_000)
    browser.wait_for("3,000 queued")
    browser.wait(lambda: browser.script("return document.querySelectorAll('figure canvas').length") == 4, "four charts")
    empty = _painted(browser)
    browser.wait(lambda: _painted(browser) > empty, "a curve of records read")

    assert browser.script("return window.kept") is True


def _the_key_is_revoked_and_put_right(place: Place) -> None:
    """Console, `/status` and log say the same, soon; then flow resumes by itself."""
    world, browser, platform = place.world, place.browser, place.world.platform
    platform.set_faults(Faults(status_override=401))
    world.produce_sends(500, tag="second")
    revoked_at = time.monotonic()
    browser.wait_for("On hold", "#headline")
    browser.wait_for("unauthorized", "#troubles")

    tell("the console", time.monotonic() - revoked_at, SOON_SECS)
    assert "Replace the key" in browser.text("#troubles")
    assert place.worker.status()["hold"]["reason"] == "unauthorized"
    assert "unauthorized" in place.worker.log.read_text()
    browser.shoot("hold")
    browser.prefer("dark")
    browser.shoot("hold-dark")
    browser.prefer("light")

    platform.set_faults(Faults())
    browser.wait(lambda: "On hold" not in browser.text("#headline"), "the end of the hold")
    browser.wait_for("3,500 queued")
    browser.shoot("flow")

    assert browser.text("#troubles") == ""


def _somebody_pauses_and_resumes(place: Place) -> None:
    """Do it with the token, and read what it does, who did it and why."""
    browser = place.browser
    browser.press("Pause")
    place.log_in()
    browser.wait_for("What is in flight finishes")
    browser.find("#note").send_keys("the template is being mended")
    browser.press("Pause ")
    browser.wait_for("paused by the console, from 127.0.0.1: the template is being mended", "#troubles")
    place.world.produce_sends(100, tag="third")
    browser.shoot("paused")

    assert place.worker.status()["queued"] == 3_500
    browser.press("Resume")
    browser.wait_for("This ends holds that wait for a person")
    browser.press("Resume ")
    browser.wait_for("3,600 queued")


def _dead_letters_are_sent_again(place: Place) -> None:
    """Look at what was refused for a while, masked, and send it again once that is confirmed."""
    world, browser, platform = place.world, place.browser, place.world.platform
    platform.set_faults(Faults(record_codes=(RecordCode(text="fourth", code="not_sendable"),)))
    world.produce_sends(40, tag="fourth")
    place.settled(3_640)
    platform.set_faults(Faults())
    browser.press("Dead letters")
    browser.wait_for("Since the workers started")
    browser.wait(lambda: "not_sendable" in _reloaded(browser, "dead-letters"), "what failed")
    browser.press("not_sendable")
    browser.wait_for("40 in ")
    browser.shoot("dead-letters")

    assert PHONE not in browser.text("body")

    # One of them: masked, revealed, and sent again by itself.
    browser.press(f"{world.dead_letters}:")
    browser.wait_for("Reveal numbers and texts")
    assert '"body": "***"' in browser.text()
    browser.press("Reveal numbers and texts")
    browser.wait_for('"body": "fourth')
    assert "dead letter revealed" in place.worker.log.read_text()
    browser.press("Redrive this one")
    browser.wait_for("This writes 1 records")
    browser.press("Send 1 again")
    browser.wait_for("1 sent again")
    place.worker.wait_for(lambda s: s["queued"] == 3_601, "the one is queued")

    # All others: the one is left, since the platform has it.
    browser.go(f"dead-letters?stream={world.name}&reason=not_sendable")
    browser.press("See what would be done")
    browser.wait_for("Nothing has been written yet")
    assert "1 left" in browser.text()
    browser.shoot("redrive")
    browser.press("Send 39 again")
    browser.wait_for("39 sent again")
    place.worker.wait_for(lambda s: s["queued"] == 3_640, "what was sent again is queued")
    browser.go("dead-letters")
    browser.press("Group")
    browser.wait_for("None of the dead letters is in doubt")


def _reloaded(browser: Browser, path: str) -> str:
    """Load a page, and return what it says."""
    browser.go(path)
    return browser.text()


def _painted(browser: Browser) -> float:
    """Return how many pixels the first chart has painted."""
    return float(
        browser.script(
            "const c = document.querySelector('figure canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "let n = 0; for (let i = 3; i < d.length; i += 4) if (d[i]) n++; return n;"
        )
    )


def test_pages_fit_a_phone_and_can_be_used_by_keyboard_in_the_dark(place: Place) -> None:
    """At 360 pixels no page is wider than the screen; Tab reaches a skip link first, and every focus is seen."""
    world, browser = place.world, place.browser
    browser.size(360, 740)
    browser.prefer("dark")
    browser.go("dead-letters")
    place.log_in()
    stream = f"streams/{world.name}"
    try:
        for path in ("", stream, f"{stream}/confirm/pause", f"{stream}/confirm/resume", "dead-letters", "login"):
            browser.go(path)
            browser.wait(lambda: browser.text("h1, .headline"), "the page")
            wide = browser.script("return document.documentElement.scrollWidth")
            shot = browser.shoot(f"phone-{path.replace('/', '-').replace(world.name, 'stream') or 'overview'}")
            dark = browser.script("return getComputedStyle(document.body).backgroundColor")

            assert wide <= 360, f"{path or 'the overview'} is {wide} pixels wide, see {shot}"
            assert sum(map(int, dark.removeprefix("rgb(").removesuffix(")").split(","))) < 200, dark

        browser.go(stream)
        seen = []
        for _ in range(12):
            browser.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", "key": "Tab", "code": "Tab"})
            browser.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", "key": "Tab", "code": "Tab"})
            seen.append(
                browser.script(
                    "const e = document.activeElement; const s = getComputedStyle(e);"
                    "return [e.textContent.trim(), s.outlineStyle, e.getBoundingClientRect().left >= 0]"
                )
            )
        assert seen[0][0] == "Skip to the content"
        assert {"Streams", "Dead letters", "Pause", "Resume"} <= {text for text, _, _ in seen}
        assert all(outline != "none" and there for _, outline, there in seen), seen
        assert browser.complaints() == []
    finally:
        browser.size(1280, 900)
        browser.prefer("light")


def test_who_logs_in_by_the_link_and_who_logs_out_sees_the_overview(place: Place) -> None:
    browser = place.browser
    browser.go("dead-letters")
    place.log_in()
    browser.wait_for("Count and list")

    browser.press("Log out")
    browser.wait_for("Log in", ".who")
    browser.press("Log in")
    browser.wait_for("Viewing needs no login")
    place.log_in()

    browser.wait_for("Log out", ".who")
    browser.wait_for("records collecting")
