"""A real browser for the tests of the console: Debian's Chromium without a window, driven by Selenium."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.deploy.conftest import ROOT
from tests.kit.patience import PATIENCE_SECS
from tests.kit.programs import program

ARTEFACTS: Final = Path(os.environ.get("TEST_ARTEFACTS", ROOT / "build" / "test-artefacts"))
"""Where screenshots are kept, for whoever wants to see what a test saw."""


_SHOWN: Final = """
const shown = [...document.querySelectorAll(arguments[0])].filter((found) => found.checkVisibility());
return shown.map((found) => found.innerText).join(" ");
"""
_GONE: Final = "does not belong to the document"


def chromium() -> Chrome:
    """Start a browser, or leave the test out where there is none."""
    browser, driver = program("chromium"), program("chromedriver")
    options = ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options, ChromeService(driver))


class Browser:
    """A browser at one address."""

    def __init__(self, driver: Chrome, address: str) -> None:
        self.driver = driver
        self.address = address

    def go(self, path: str) -> None:
        """Load a page."""
        self.driver.get(f"{self.address}/{path}")

    def size(self, width: int, height: int) -> None:
        """Have pages see a screen of this size, narrower than a window may be."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme: str) -> None:
        """Prefer a light or a dark scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def find(self, css: str) -> WebElement:
        """Return the first element."""
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def text(self, css: str = "main") -> str:
        """Return what an element says, as far as it is shown; empty while it is not there."""
        # In one step inside the page, which may replace its parts between any two questions of Selenium's.
        return str(self.driver.execute_script(_SHOWN, css))

    def press(self, words: str) -> None:
        """Press the button, or follow the link, that says this."""
        path = f"//button[contains(normalize-space(), '{words}')] | //a[contains(normalize-space(), '{words}')]"
        while True:
            try:
                return self.driver.find_element(By.XPATH, path).click()
            except WebDriverException as error:
                # The page replaced it between the two steps, so nothing was pressed.
                if not (isinstance(error, StaleElementReferenceException) or _GONE in str(error)):
                    raise

    def script(self, source: str) -> Any:
        """Return what a script comes to."""
        return self.driver.execute_script(source)

    def wait(self, wanted: Callable[[], object], what: str) -> float:
        """Wait until something is so, and return how long it took."""
        began = time.monotonic()
        while not wanted():
            if time.monotonic() - began > PATIENCE_SECS:
                self.shoot("not-seen")
                raise AssertionError(f"not seen: {what}; the page says:\n{self.text('body')}")
            time.sleep(0.05)
        return time.monotonic() - began

    def wait_for(self, words: str, css: str = "main") -> float:
        """Wait until an element says this, and return how long it took."""
        return self.wait(lambda: words in self.text(css), f"{words!r} in {css}")

    def shoot(self, name: str) -> Path:
        """Keep a picture of the whole page."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        path = ARTEFACTS / f"console-{name}.png"
        whole = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
        import base64  # noqa: PLC0415

        path.write_bytes(base64.b64decode(whole["data"]))
        return path

    def complaints(self) -> list[str]:
        """Return what the browser complains about: scripts that fail, and what the policy forbids."""
        try:
            entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call] # Selenium's own
            return [str(entry["message"]) for entry in entries if entry["level"] == "SEVERE"]
        except WebDriverException as error:
            return [str(error)]
