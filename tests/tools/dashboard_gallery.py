"""Pictures of all pages to look at: `python -m tests.tools.dashboard_gallery BASE DIRECTORY`.

BASE is the address of a running service, such as `http://127.0.0.1:8001`. Each page and state is taken
whole, in light, in dark and at the width of a phone.
"""

import argparse
import base64
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.support.browser import Browser, browser

_LOOKS = {"light": (1280, "light"), "dark": (1280, "dark"), "phone": (390, "light")}
_HEIGHT = 900
_REFRESH = "document.dispatchEvent(new Event('visibilitychange'))"


def pages(base: str) -> dict[str, str]:
    """Return the path of each page by name, with identifiers that the service has."""
    content = _first(base, "top_content", "content_id")
    query = _first(base, "search_analytics", "query")
    session = _first(base, "top_values", "value", property="session_id", event_name="video_error")
    return {
        "overview": "/dashboard",
        "overview-24h": "/dashboard?range=24h&metric=views",
        "overview-90d": "/dashboard?range=90d&compare=none",
        "overview-filter": "/dashboard?app=openstream&filter=device:eq:tv&metric=stalled",
        "content": "/dashboard?view=content",
        "content-growing": "/dashboard?view=content&by=growing",
        "content-one": f"/dashboard?view=content&id={content}",
        "search": "/dashboard?view=search",
        "search-one": f"/dashboard?view=search&id={query}",
        "quality": "/dashboard?view=quality",
        "quality-startup": "/dashboard?view=quality&metric=startup&by=device&range=24h",
        "session": "/dashboard?view=session",
        "session-one": f"/dashboard?view=session&id={session}",
        "status": "/status",
        "docs": "/docs#playback_over_time",
        "empty": "/dashboard?range=custom&from=2020-01-01&to=2020-01-02",
    }


def _first(base: str, report: str, column: str, **params: str) -> str:
    answer = httpx.get(f"{base}/report/{report}", params={"from": "-7d", "limit": 1, **params})
    return str(answer.raise_for_status().json()["rows"][0][column])


def _open(window: Browser, path: str) -> None:
    if path.startswith("/docs"):
        window.driver.get("about:blank")
        window.driver.get(window.base + path)
        window.wait(lambda: window.all("form button[type='submit']"))[0].click()
        window.wait(lambda: window.all("#result table"))
    else:
        window.open(path)


def _break(window: Browser, urls: list[str]) -> None:
    window.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": urls})


def _show_error(window: Browser) -> None:
    window.driver.execute_cdp_cmd("Network.enable", {})
    _break(window, ["*/report/*"])
    window.open("/dashboard")


def _show_stale(window: Browser) -> None:
    window.open("/dashboard")
    window.driver.execute_cdp_cmd("Network.enable", {})
    _break(window, ["*/report*"])
    window.script(_REFRESH)
    window.wait(lambda: "Not updated since" in window.text("#notice"))


def _show_unreachable(window: Browser) -> None:
    window.driver.execute_cdp_cmd("Network.enable", {})
    _break(window, ["*/caller"])
    window.driver.get(f"{window.base}/dashboard")
    window.wait(lambda: window.all(".failure"))


_STATES: dict[str, Callable[[Browser], None]] = {
    "error": _show_error,
    "stale": _show_stale,
    "unreachable": _show_unreachable,
}


def _show_sign_in(window: Browser) -> None:
    window.driver.get(f"{window.base}/dashboard")
    window.wait(lambda: window.all("#token"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("base")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--guarded", help="address of a service with tokens, for the sign-in page")
    parser.add_argument("--only", help="take the pages whose names begin with this")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    shown: dict[str, tuple[str, Callable[[Browser], None]]] = {
        name: (options.base, lambda window, path=path: _open(window, path))  # type: ignore[misc]
        for name, path in pages(options.base).items()
    }
    shown |= {name: (options.base, show) for name, show in _STATES.items()}
    if options.guarded:
        shown["sign-in"] = (options.guarded, _show_sign_in)
    with browser() as window:
        for name, (base, show) in shown.items():
            if not name.startswith(options.only or ""):
                continue
            for look, (width, scheme) in _LOOKS.items():
                window.base = base
                window.size(width, _HEIGHT)
                window.prefer(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
                show(window)
                _save(window, options.directory / f"{name}-{look}.png")
                _break(window, [])


def _save(window: Browser, file: Path) -> None:
    window.script(
        "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    shot = window.driver.execute_cdp_cmd(
        "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True}
    )
    file.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()
