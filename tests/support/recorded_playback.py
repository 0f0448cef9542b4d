"""A recorded session of a real player, as events of ours.

`tests/vendor/recorded_playback.csv` has what a web player reported in a hundred minutes of two episodes:
six starts, 892 stalls, one seek, pauses and the error that ended it. It comes from the repository
kerniee/start-hach (MIT licence), file mockDataServer.js; its identifiers are replaced by numbers.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from octane_analytics.events.event import Row

_FILE = Path(__file__).parents[1] / "vendor" / "recorded_playback.csv"
_KBPS = {"240": 400, "360": 800, "480": 1_200, "720": 2_500, "1080": 5_000}
"""Bit rate of each rendition: the player reported only its height."""
_LENGTH_SECONDS = 2_988.32
"""The highest position of the recording, which does not have the length of its episodes."""


def recorded_rows(begin: int, *, has_view_ids: bool) -> list[Row]:
    """Return the events in the order in which the player reported them; `begin` is in Unix seconds."""
    return [
        Row(begin + second, "octane-live", name, "viewer", json.dumps(properties).encode())
        for second, name, properties in _events(has_view_ids=has_view_ids)
    ]


def _events(*, has_view_ids: bool) -> Iterator[tuple[int, str, Mapping[str, object]]]:
    """Yield second, name and properties. The first stall after a start is its startup."""
    view, is_starting, heard_at = 0, False, 0
    with _FILE.open(newline="") as file:
        for line in csv.DictReader(file):
            second, action = int(line["second"]), line["action"]
            known: dict[str, object] = {
                "session_id": "recorded",
                "content_id": f"episode-{line['content']}",
                "position": int(line["position_ms"]) / 1000,
                "duration": _LENGTH_SECONDS,
                "device": "web",
            }
            if line["quality"] in _KBPS:
                known["bitrate_kbps"] = _KBPS[line["quality"]]
            if action == "start":
                view, is_starting, heard_at = view + 1, True, second
            if has_view_ids:
                known["view_id"] = f"view-{view}"
            if action == "start":
                yield second, "video_request", known
            elif action == "stop":
                yield second, "video_end", known
            elif action == "quality":
                yield second, "video_quality_change", known
            elif action == "error":
                yield second, "video_error", known | {"code": line["code"], "fatal": True}
            elif action == "buffer_stop" and is_starting:
                is_starting = False
                yield second, "video_start", known | {"startup_ms": int(line["stalled_ms"])}
            elif action == "buffer_stop":
                stalled = {"buffer_duration_ms": int(line["stalled_ms"])}
                yield second, "video_buffering", known | stalled
            elif action == "progress":
                yield second, "video_heartbeat", known | {"watch_time": second - heard_at}
                heard_at = second
            elif action in ("pause", "unpause", "rewind"):
                heard_at = second
                yield second, f"video_{action}", known
