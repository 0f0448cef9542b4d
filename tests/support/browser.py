"""Chromium of the machine, driven by Selenium, and what a test asks of a page."""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

AXE = Path(__file__).resolve().parents[1] / "vendor" / "axe.min.js"
WAIT_SECONDS = 30.0
_OPTIONS = (
    *(
        "--hide-scrollbars",
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--lang=en-US",
    ),
    # Chromium's own requests (updates, variations) are not the page's.
    *("--disable-background-networking", "--disable-component-update", "--no-first-run"),
)
_SETTLED = "return !!document.querySelector('h1') && !document.querySelector('[aria-busy]')"
_AXE = """
const [rules, done] = arguments;
const options = {resultTypes: ["violations"], ...(rules.length ? {runOnly: rules} : {})};
axe.run(document, options).then((found) => done(
    found.violations.map(({id, impact, nodes}) => [id, impact, nodes.map((each) => each.html)])))
"""


def require_chromium() -> tuple[str, str]:
    """Return the paths of Chromium and of its driver; skip the test without them, except in CI."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found and os.environ.get("CI") != "true":
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    assert found[0], "no Chromium: apt-get install chromium"
    assert found[1], "no chromedriver: apt-get install chromium-driver"
    return found[0], found[1]


class Browser:
    """One window. `base` is the address of the service."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.base = ""

    def open(self, path: str, seconds: float = WAIT_SECONDS) -> None:
        """Load the path and wait until its numbers are there."""
        self.driver.get(self.base + path)
        self.wait_settled(seconds)

    def wait(self, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """Return the first true value of the condition; an element may be replaced meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if value := condition():
                    return value
            except StaleElementReferenceException:
                pass
            assert time.monotonic() < deadline, f"nothing within {seconds} s:\n{self.text()}"
            time.sleep(0.05)

    def wait_settled(self, seconds: float = WAIT_SECONDS) -> None:
        self.wait(lambda: self.script(_SETTLED), seconds)

    def script(self, text: str, *arguments: object) -> Any:
        return self.driver.execute_script(text, *arguments)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "body") -> str:
        return self.one(selector).text

    def choose(self, label: str, value: str) -> None:
        """Choose a value of the <select> with that accessible name, and wait for the numbers."""
        self.script(
            "arguments[0].value = arguments[1];"
            "arguments[0].dispatchEvent(new Event('change', {bubbles: true}))",
            self.one(f"select[aria-label='{label}']"),
            value,
        )
        self.wait_settled()

    def panel(self, title: str) -> WebElement:
        return self.one(f"section[aria-label='{title}']")

    def card(self, label: str) -> str:
        """Return the value of a card."""
        for card in self.all(".card"):
            if card.find_element(By.CSS_SELECTOR, ".label").text == label:
                return card.find_element(By.CSS_SELECTOR, ".value").text
        raise AssertionError(f"no card {label}")

    def size(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, **features: str) -> None:
        """Emulate media features such as prefers_color_scheme="dark"; none restores the defaults."""
        listed = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": listed})

    def console(self) -> list[str]:
        """Return and clear the console's messages: errors, and violations of the policy."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [each["message"] for each in entries if each["level"] != "DEBUG"]

    def hosts(self) -> set[str]:
        """Return and clear the hosts that the page has requested."""
        found = set()
        for entry in self.driver.get_log("performance"):  # type: ignore[no-untyped-call]
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                if url.scheme not in ("data", "blob", "about"):
                    found.add(f"{url.scheme}://{url.netloc}")
        return found

    def accessibility_faults(self, *rules: str) -> list[Any]:
        """Return axe-core's findings of the impacts serious and critical, of these rules or of all."""
        if not self.script("return 'axe' in window"):
            self.script(AXE.read_text())
        found = self.driver.execute_async_script(_AXE, rules)
        return [each for each in found if each[1] in ("serious", "critical")]


@contextmanager
def browser() -> Iterator[Browser]:
    binary, driver_path = require_chromium()
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in _OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(driver_path))
    try:
        driver.set_script_timeout(WAIT_SECONDS)
        driver.set_page_load_timeout(WAIT_SECONDS)
        yield Browser(driver)
    finally:
        with contextlib.suppress(WebDriverException):  # it has ended already
            driver.quit()
