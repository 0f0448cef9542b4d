"""Picture of the dashboard for the README: `python -m tests.tools.dashboard_picture URL FILE`.

URL is a page of a running service, such as `http://127.0.0.1:8001/dashboard?range=24h`.
"""

import argparse
import base64
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.browser import browser

_WIDTH, _HEIGHT = 1280, 1080
MAX_BYTES = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=_WIDTH)
    parser.add_argument("--height", type=int, default=_HEIGHT)
    options = parser.parse_args()
    url = urlsplit(options.url)
    with browser() as window:
        window.base = f"{url.scheme}://{url.netloc}"
        window.size(options.width, options.height)
        window.prefer(
            prefers_color_scheme="dark" if options.dark else "light",
            prefers_reduced_motion="reduce",
        )
        window.open(options.url.removeprefix(window.base))
        window.wait(lambda: window.all("canvas"))
        window.wait(lambda: window.all(".live-dot:not(.off)"))
        shot = window.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    picture = base64.b64decode(shot["data"])
    if len(picture) > MAX_BYTES:
        raise SystemExit(f"{len(picture):,} bytes: choose a smaller --height")
    options.file.write_bytes(picture)


if __name__ == "__main__":
    main()
