"""Events of a ledger as SQL: sessions out of `numbers_mt()`, with the shapes of `sandbox.generator`.

Every draw is a hash of the seed and the session, so that any range of sessions gives the same rows on
any number of threads. Sessions are numbered by their start: a range of them is a slice of time, as
workers insert it. Does not depend on a table.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from octane_analytics.sandbox import generator

EVENTS_PER_SESSION = 53.5
"""Mean, measured."""
EVENTS_PER_USER = 400
"""A user has some seven sessions in the whole range, so that users return on other days."""
_MIN_USERS = 50
_MARGIN_DAYS = 0.25
"""Sessions begin as much before and after the range; events outside of it are dropped."""
_SWING = 0.6
"""Amplitude of the day: four times as many events in its busiest hour as in its quietest."""
_PEAK_DAYS = 0.29
"""Moves the busiest hour from noon to 19:00 UTC."""


@dataclass(frozen=True)
class Ledger:
    """Immutable description of the events: the same values give the same rows."""

    events: int
    """Approximate number of events."""
    until: datetime
    """End of the range, aware."""
    days: int = 90
    seed: int = 1

    @property
    def begin(self) -> datetime:
        return self.until - timedelta(days=self.days)

    @property
    def sessions(self) -> int:
        share = (self.days + 2 * _MARGIN_DAYS) / self.days
        return max(round(self.events / EVENTS_PER_SESSION * share), 1)

    @property
    def users(self) -> int:
        return max(self.events // EVENTS_PER_USER, _MIN_USERS)


def select_events(ledger: Ledger, first: int, end: int) -> str:
    """Return a SELECT of the table's columns with the events of the sessions `[first, end)`."""
    names = {
        "first": f"{first}",
        "count": f"{end - first}",
        "users": f"{ledger.users}",
        "identity": f"{ledger.seed % 2**48:012x}",
        "apps": _array(generator._APPS),
        "live_apps": _array(sorted(generator._LIVE_APPS)),
        "versions": _array(generator._VERSIONS),
        "networks": _array(generator._NETWORKS),
        "devices": _array(generator._DEVICES),
        "queries": _array(generator._QUERIES),
        "fruitless": _array(generator._FRUITLESS_QUERIES),
        "errors": _array(generator._ERRORS),
        "bitrates": _array(map(str, generator._BITRATES_KBPS)),
        "contents": f"{generator._CONTENTS}",
        "streams": f"{generator._STREAMS}",
        "videos": f"{generator._MAX_VIDEOS}",
        "period": f"{generator.HEARTBEAT_SECONDS}",
        "begin": f"{int(ledger.begin.timestamp())}",
        "until": f"{int(ledger.until.timestamp())}",
        "first_day": f"{ledger.begin.timestamp() / 86_400 - _MARGIN_DAYS - _PEAK_DAYS:.6f}",
        "step": f"{(ledger.days + 2 * _MARGIN_DAYS) / ledger.sessions:.15f}",
        "peak": f"{_PEAK_DAYS}",
        "swing": f"{_SWING / math.tau:.9f}",
        "seed": f"{ledger.seed}",
    }
    picked = re.sub(
        r"PICK\(\$(\w+), ([^()]+)\)", r"$\1[1 + toUInt32(DRAW(\2) * length($\1))]", _SQL
    )
    # 53 random bits, so that the quotient is below 1.
    drawn = re.sub(
        r"DRAW\(([^()]+)\)",
        r"(bitShiftRight(sipHash64($seed, s, \1), 11) / 9007199254740992)",
        picked,
    )
    # In one pass, because a value may contain what looks like a name.
    return re.sub(r"\$([a-z_]+)", lambda match: names[match[1]], drawn)


def _array(values: Iterable[str]) -> str:
    escaped = (value.replace("\\", "\\\\").replace("'", "\\'") for value in values)
    return "[" + ", ".join(f"'{value}'" for value in escaped) + "]"


_KINDS = (
    *("session_start", "search", "search_click", "video_start", "video_buffering", "video_seek"),
    *("video_error", "video_heartbeat", "video_end"),
)
"""Event names; an event is encoded as slot * 1024 + tick * 16 + number of its name, from 1."""

_SQL = r"""
SELECT
    toDateTime(toUInt32(at)) AS timestamp,
    app AS app_id,
    KINDS[kind] AS event_name,
    user AS user_id,
    concat(
        '{"event_id":"$identity', leftPad(lower(hex(s * 1024 + slot * 2 + is_second)), 10, '0'), '",',
        multiIf(
            kind = 8, concat(video, '"watch_time":', toString(
                if(lucks[tick] < 0.07, round($period - buffer_ms / 1000, 3), $period)), ','),
            kind = 5, concat(video, '"buffer_duration_ms":', toString(buffer_ms), ','),
            kind = 6, concat(video, '"from_seconds":', toString((tick - 1) * $period),
                ',"to_seconds":', toString(toUInt32(DRAW(v, tick, 22) * 3600)), ','),
            kind = 7, concat(video, '"code":"', PICK($errors, v, tick, 23), '","fatal":',
                if(tick = fatal, 'true', 'false'), ','),
            kind = 4, concat(video, '"startup_ms":',
                toString(120 + toUInt32(pow(DRAW(v, 24), 3) * 4000)),
                ',"bitrate_kbps":', PICK($bitrates, v, 25), ','),
            kind = 9, concat(video, '"watched_seconds":', toString(played * $period), '.0,"completed":',
                if(DRAW(v, 26) < 0.4, 'true', 'false'), ','),
            kind = 2, concat('"query":"', query, '","results_count":', toString(results), ','),
            kind = 3, concat('"query":"', query, '",', video, '"position":',
                toString(1 + toUInt32(pow(DRAW(v, 27), 3) * least(results, 20))), ','),
            concat('"device":"', PICK($devices, 28), '",')
        ),
        tail
    ) AS properties
FROM
(
    SELECT
        *,
        event % 16 AS kind,
        intDiv(event, 16) % 64 AS tick,
        intDiv(event, 1024) AS slot,
        kind IN (3, 8) AS is_second,
        start + slot * $period + DRAW(slot, 20) * ($period - 2) + is_second AS at,
        50 + toUInt32(pow(DRAW(v, tick, 21), 4) * 9000) AS buffer_ms
    FROM
    (
        SELECT
            s, app, user, tail, start, v, video, query, results, lucks, fatal, played,
            arrayJoin(arrayConcat(
                if(v = 1, [toUInt32(1)], []),
                if(is_searched, [toUInt32(offset * 1024 + 2)], []),
                if(is_clicked, [toUInt32(offset * 1024 + 3)], []),
                if(is_watched, arrayConcat(
                    [toUInt32((offset + 1) * 1024 + 4)],
                    arrayMap(
                        k -> toUInt32((offset + 1 + k) * 1024 + k * 16
                            + multiIf(lucks[k] < 0.07, 5, lucks[k] < 0.11, 6, 7)),
                        arrayFilter(k -> lucks[k] < 0.118, range(1, played + if(fatal > 0, 2, 1)))
                    ),
                    arrayMap(k -> toUInt32((offset + 1 + k) * 1024 + k * 16 + 8), range(1, played + 1)),
                    if(fatal > 0, [], [toUInt32((offset + 2 + played) * 1024 + 9)])
                ), [])
            )) AS event
        FROM
        (
            SELECT
                s, app, user, tail, start, v, offset,
                if(
                    has($live_apps, app),
                    concat('"stream_id":"st-', leftPad(
                        toString(998000 + toUInt32(pow($streams, DRAW(v, 10)))), 6, '0'), '",'),
                    concat('"content_id":"c-', leftPad(
                        toString(toUInt32(pow($contents, DRAW(v, 10)))), 5, '0'), '",')
                ) AS video,
                DRAW(v, 11) < 0.35 AS is_searched,
                DRAW(v, 12) > 0.12 AS is_found,
                if(is_found, PICK($queries, v, 13), PICK($fruitless, v, 13)) AS query,
                if(is_found, 1 + toUInt32(pow(DRAW(v, 14), 2) * 200), 0) AS results,
                is_searched AND is_found AND DRAW(v, 15) >= 0.3 AS is_clicked,
                NOT is_searched OR is_clicked AS is_watched,
                arrayMap(k -> DRAW(v, k, 16), range(1, planned + 1)) AS lucks,
                arrayFirstIndex(x -> x >= 0.114 AND x < 0.118, lucks) AS fatal,
                toUInt32(if(fatal > 0, toUInt64(fatal - 1), planned)) AS played
            FROM
            (
                SELECT
                    number AS s,
                    PICK($apps, 1) AS app,
                    concat('user_', leftPad(lower(hex(toUInt32(
                        toUInt64(DRAW(2) * $users) * 2654435761 % 4294967296))), 8, '0')) AS user,
                    concat(
                        '"session_id":"s-',
                        leftPad(lower(hex(toUInt64(DRAW(3) * 1099511627776))), 10, '0'),
                        '","network_type":"', PICK($networks, 4),
                        '","client_version":"', PICK($versions, 5), '"}'
                    ) AS tail,
                    -- Sessions are even in `y`; its days are bent so that noon is busiest, then shifted.
                    $first_day + (s + DRAW(6)) * $step AS y,
                    (y + $swing * sin(2 * pi() * (y - floor(y))) + $peak) * 86400 AS start,
                    arrayMap(
                        n -> 1 + toUInt32(pow(DRAW(n, 7), 2) * 40),
                        range(1, 2 + toUInt32(DRAW(8) * $videos))
                    ) AS lengths,
                    arrayMap(
                        (sum, length) -> sum - length - 2,
                        arrayCumSum(n -> n + 3, lengths),
                        lengths
                    ) AS offsets
                FROM numbers_mt($first, $count)
            )
            ARRAY JOIN offsets AS offset, lengths AS planned, arrayEnumerate(lengths) AS v
        )
    )
)
WHERE at >= $begin AND at < $until
""".replace("KINDS", _array(_KINDS))
