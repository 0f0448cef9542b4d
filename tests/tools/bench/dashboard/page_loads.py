"""Loads and refreshes of the dashboard in a real Chromium: how long they take, and what they request."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.support.browser import Browser, browser

# Runs before the page's own scripts: notes when the last panel was filled, and the timer of the refresh.
_OBSERVER = """
window.bench = {completeAt: 0, refresh: null, refreshSeconds: 0};
(() => {
  const isBusy = () => !document.querySelector("h1") || Boolean(document.querySelector("[aria-busy]"));
  let wasBusy = true;
  new MutationObserver(() => {
    const isNowBusy = isBusy();
    if (wasBusy && !isNowBusy) bench.completeAt = performance.now();
    wasBusy = isNowBusy;
  }).observe(document, {subtree: true, childList: true, attributeFilter: ["aria-busy"]});
  const setTimer = window.setTimeout;
  window.setTimeout = (callback, delay, ...rest) => {
    if (delay >= 10_000) [bench.refresh, bench.refreshSeconds] = [callback, delay / 1000];
    return setTimer(callback, delay, ...rest);
  };
})();
"""
_TIMES = """
const paint = performance.getEntriesByName("first-contentful-paint")[0];
const asked = performance.getEntriesByType("resource").filter((each) => each.name.includes("/report"));
asked.sort((one, other) => other.duration - one.duration);
return {
  complete: bench.completeAt,
  paint: paint ? paint.startTime : 0,
  slowest: asked.slice(0, 3).map((each) => [each.duration, each.name]),
};
"""
_LOAD_SECONDS = 120.0
_FILES = ("/dashboard", "/favicon.ico")


@dataclass(frozen=True)
class PageRequest:
    method: str
    path: str
    """With its query."""
    body: str = ""

    @property
    def is_live(self) -> bool:
        return self.path.startswith("/live/")


@dataclass(frozen=True)
class PageLoad:
    """One load; times are since the navigation."""

    complete_ms: float
    paint_ms: float
    requests: tuple[PageRequest, ...]
    """Without the page's files."""
    slowest: tuple[tuple[float, str], ...]
    """Milliseconds and path of the requests that took longest."""


class DashboardPage:
    """A window of Chromium with the dashboard."""

    def __init__(self, window: Browser) -> None:
        self._window = window

    def load(self, path: str) -> PageLoad:
        """Open the path with an empty browser cache; block until every panel is filled."""
        self._window.driver.get("about:blank")
        self._window.driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        self._requests()
        self._window.open(path, _LOAD_SECONDS)
        self._window.wait(lambda: not self._window.all(".live-dot.off"))
        times = self._window.script(_TIMES)
        return PageLoad(
            times["complete"],
            times["paint"],
            tuple(self._requests()),
            tuple((duration, _path(name)) for duration, name in times["slowest"]),
        )

    def refresh(self) -> tuple[float, list[PageRequest]]:
        """Refresh the page now; return the seconds between its refreshes and what it requested."""
        self._requests()
        seconds = float(self._window.script("return bench.refreshSeconds"))
        self._window.script("bench.refresh()")
        self._window.wait_settled(_LOAD_SECONDS)
        return seconds, self._requests()

    def _requests(self) -> list[PageRequest]:
        """Return the requests since the last call, without those of files."""
        found = []
        for entry in self._window.driver.get_log("performance"):  # type: ignore[no-untyped-call]
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                request = message["params"]["request"]
                path = _path(request["url"])
                if request["url"].startswith(self._window.base) and not path.startswith(_FILES):
                    found.append(PageRequest(request["method"], path, request.get("postData", "")))
        return found


@contextmanager
def opened_page(base: str) -> Iterator[DashboardPage]:
    """Context of a window on the service at that address."""
    with browser() as window:
        window.base = base
        window.size(1320, 1000)
        with observed(window) as page:
            yield page


@contextmanager
def observed(window: Browser) -> Iterator[DashboardPage]:
    """Context in which the pages of the window are measured."""
    added = window.driver.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument", {"source": _OBSERVER}
    )
    try:
        yield DashboardPage(window)
    finally:
        window.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)


def _path(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}" if parts.query else parts.path
