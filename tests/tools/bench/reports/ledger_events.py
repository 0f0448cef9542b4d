"""Events of a ledger as SQL: sessions out of `numbers_mt()`, with the shapes of `sandbox.generator`.

Names, properties, their sizes and counts per session are those of the generator; only times differ: a
session's heartbeats are 15 seconds apart, and whole seconds.

Every draw is a hash of the seed and the session, so that any range of sessions gives the same rows on
any number of threads. Sessions are numbered by their start: a range of them is a slice of time, as
workers insert it. Does not depend on a table.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from octane_analytics.sandbox import generator

EVENTS_PER_SESSION = 47.2
"""Mean, measured."""
EVENTS_PER_USER = 400
"""A user has some eight sessions in the whole range, so that users return on other days."""
_MIN_USERS = 50
_MARGIN_DAYS = 0.25
"""Sessions begin as much before and after the range; events outside of it are dropped."""
_SWING = 0.6
"""Amplitude of the day: four times as many events in its busiest hour as in its quietest."""
_SESSION_FACTOR, _SESSION_IDS = 2_654_435_761, 2**40
"""Number of a session times an odd factor: ids that differ and do not ascend."""
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
    def step_days(self) -> float:
        """Mean time between the starts of two sessions."""
        return (self.days + 2 * _MARGIN_DAYS) / self.sessions

    @property
    def last_session_id(self) -> str:
        """`session_id` of a session some half a day before the end, for a report about one."""
        number = int((self.days + _MARGIN_DAYS - 0.5) / self.step_days)
        return f"s-{number * _SESSION_FACTOR % _SESSION_IDS:010x}"

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
        "session_factor": f"{_SESSION_FACTOR}",
        "session_ids": f"{_SESSION_IDS}",
        "apps": _array(generator._APPS),
        "live_apps": _array(sorted(generator._LIVE_APPS)),
        "versions": _array(generator._VERSIONS),
        "networks": _array(generator._NETWORKS),
        "devices": _array(generator._DEVICES),
        "players": _array(generator._PLAYER_VERSIONS),
        "cdns": _array(generator._CDNS),
        "slow_cdn": f"'{generator._CDNS[-1]}'",
        "queries": _array(generator._QUERIES),
        "fruitless": _array(generator._FRUITLESS_QUERIES),
        "errors": _array(generator._ERRORS),
        "bitrates": f"CAST({list(generator._BITRATES_KBPS)}, 'Array(UInt32)')",
        "contents": f"{generator._CONTENTS}",
        "streams": f"{generator._STREAMS}",
        "videos": f"{generator._MAX_VIDEOS}",
        "period": f"{generator.HEARTBEAT_SECONDS}",
        "live_period": f"{generator._LIVE_PERIOD_SECONDS}",
        "live_seconds": f"{generator._LIVE_SECONDS}",
        "begin": f"{int(ledger.begin.timestamp())}",
        "until": f"{int(ledger.until.timestamp())}",
        "first_day": f"{ledger.begin.timestamp() / 86_400 - _MARGIN_DAYS - _PEAK_DAYS:.6f}",
        "step": f"{ledger.step_days:.15f}",
        "peak": f"{_PEAK_DAYS}",
        "swing": f"{_SWING / math.tau:.9f}",
        "seed": f"{ledger.seed}",
    }
    # In one pass, because a value may contain what looks like a name.
    return re.sub(r"\$([a-z_]+)", lambda match: names[match[1]], _STATEMENT)


def _expanded(sql: str) -> str:
    """Return the statement with the calls of macros replaced, the innermost first."""
    while calls := list(re.finditer(r"\b(DRAW|PICK|SHARE|BUFFER_MS|AT|EVENT)\(", sql)):
        call = calls[-1]
        arguments, end = _arguments(sql, call.end())
        sql = sql[: call.start()] + _MACROS[call[1]](*arguments) + sql[end:]
    return sql


def _arguments(sql: str, start: int) -> tuple[list[str], int]:
    """Return the arguments of a call, and the index after its closing parenthesis."""
    depth, arguments = 0, [""]
    for index in range(start, len(sql)):
        letter = sql[index]
        if letter == ")" and not depth:
            return [each.strip() for each in arguments], index + 1
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            arguments.append("")
        else:
            arguments[-1] += letter
    raise ValueError("call without its end")


_MACROS: dict[str, Callable[..., str]] = {
    # 53 random bits, so that the quotient is below 1.
    "DRAW": lambda *of: (
        f"(bitShiftRight(sipHash64($seed, s, {', '.join(of)}), 11) / 9007199254740992)"
    ),
    "PICK": lambda values, share: f"{values}[1 + toUInt32(({share}) * length({values}))]",
    "SHARE": lambda x, low, high: f"(({x} - {low}) / ({high} - {low}))",
    "BUFFER_MS": lambda luck: f"(50 + toUInt32(pow({luck} / 0.07, 4) * 9000))",
    "AT": lambda event: (
        f"(start + intDiv({event}.1, 16) * $period + DRAW(intDiv({event}.1, 16), 20) * ($period - 2) "
        f"+ ({event}.1 % 16 IN (3, 5, 10, 12)))"
    ),
    "EVENT": lambda slot, kind, position, rate, value, other: (
        f"(toUInt32(({slot}) * 16 + {kind}), toFloat64({position}), toUInt32({rate}), "
        f"toFloat64({value}), toFloat64({other}))"
    ),
}


def _array(values: Iterable[str]) -> str:
    escaped = (value.replace("\\", "\\\\").replace("'", "\\'") for value in values)
    return "[" + ", ".join(f"'{value}'" for value in escaped) + "]"


_KINDS = (
    *("session_start", "search", "search_click", "video_request", "video_start", "video_buffering"),
    *("video_seek", "video_error", "video_quality_change", "video_heartbeat", "video_end"),
    "video_error",
)
"""Event names; an event is encoded as slot * 16 + number of its name, from 1. The last one is an error
before the start."""

_SQL = r"""
SELECT
    toDateTime(toUInt32(at)) AS timestamp,
    app AS app_id,
    KINDS[kind] AS event_name,
    user AS user_id,
    concat(
        '{"event_id":"$identity', leftPad(lower(hex(s * 1024 + slot * 2 + is_second)), 10, '0'), '",',
        multiIf(
            kind = 1, '',
            kind = 2, concat('"query":"', query, '","results_count":', toString(toUInt32(value)), ','),
            kind = 3, concat('"query":"', query, '",', video, '"position":',
                toString(toUInt32(position)), ','),
            concat(
                view,
                if(kind IN (4, 12), '', concat('"bitrate_kbps":', toString(rate), ',')),
                '"position":',
                if(kind IN (4, 5, 12), toString(toUInt32(position)), toDecimalString(position, 1)),
                multiIf(
                    kind = 10, concat(',"watch_time":', toString(round(value, 3)), ','),
                    kind = 6, concat(',"buffer_duration_ms":', toString(BUFFER_MS(value)), ','),
                    kind = 7, concat(',"from_seconds":', toString(toUInt32(round(other))),
                        ',"to_seconds":', toString(toUInt32(round(SHARE(value, 0.07, 0.11) * length))),
                        ','),
                    kind = 8, concat(',"code":"', PICK($errors,
                        if(value < 0.114, SHARE(value, 0.11, 0.114), SHARE(value, 0.114, 0.118))),
                        '","fatal":', if(value < 0.114, 'true', 'false'), ','),
                    kind = 9, concat(',"from_bitrate_kbps":', toString(toUInt32(other)), ','),
                    kind = 5, concat(',"startup_ms":', toString(toUInt32(value)), ','),
                    kind = 11, concat(',"watched_seconds":', toDecimalString(value, 1),
                        ',"completed":', if(other = 1, 'true', 'false'), ','),
                    kind = 12, concat(',"code":"', PICK($errors, value), '","fatal":true,'),
                    ','
                )
            )
        ),
        tail
    ) AS properties
FROM
(
    SELECT
        s, app, user, tail, video, view, query, length,
        event.1 % 16 AS kind,
        intDiv(event.1, 16) AS slot,
        event.2 AS position,
        event.3 AS rate,
        event.4 AS value,
        event.5 AS other,
        kind IN (3, 5, 10, 12) AS is_second,
        AT(event) AS at
    FROM
    (
        SELECT
            s, app, user, tail, start, video, view, query, length,
            arrayFirstIndex(x -> x >= 0.11 AND x < 0.114, lucks) AS fatal,
            arrayFirstIndex(
                (place, second) -> place + second >= duration - 0.000001, places, seconds) AS end,
            fatal > 0 AND (end = 0 OR end >= fatal) AS is_fatal,
            toUInt32(multiIf(is_fatal, toUInt64(fatal - 1), end > 0, end, planned)) AS played,
            arrayMap(
                (place, second) -> least(place + second, duration), places, seconds) AS next_places,
            -- Not a WHERE around all this: it takes twenty times as long.
            -- Slices instead of if(): ClickHouse evaluates what only a branch needs lazily, again for
            -- each use of it, which takes twenty times as long.
            arrayFilter(event -> AT(event) >= $begin AND AT(event) < $until, arrayConcat(
                arraySlice([EVENT(0, 1, 0, 0, 0, 0)], 1, v = 1),
                arraySlice([EVENT(offset, 2, 0, 0, results, 0)], 1, is_searched),
                arraySlice([EVENT(offset, 3, clicked, 0, 0, 0)], 1, is_clicked),
                arraySlice([EVENT(offset + 1, 4, first_place, 0, 0, 0)], 1, is_watched),
                arraySlice([EVENT(offset + 1, 12, first_place, 0, SHARE(failure, 0, 0.015), 0)], 1,
                    is_watched AND failure < 0.015),
                arraySlice([EVENT(offset + 1, 5, first_place, first_rate, startup_ms, 0)], 1,
                    is_started),
                arrayFilter(event -> event.4 < 0.16, arraySlice(arrayMap(
                    (k, luck, place, before, rate, rate_before) -> EVENT(
                        offset + 1 + k,
                        multiIf(luck < 0.07, 6, luck < 0.11, 7, luck < 0.118, 8, 9),
                        place,
                        rate,
                        luck,
                        if(luck < 0.11, before, rate_before)),
                    arrayEnumerate(lucks), lucks, places,
                    arrayPushFront(arrayPopBack(next_places), toFloat64(first_place)),
                    rates, arrayPushFront(arrayPopBack(rates), first_rate)
                ), 1, is_started * (played + is_fatal))),
                arraySlice(arrayMap(
                    (k, place, rate, second) -> EVENT(offset + 1 + k, 10, place, rate, second, 0),
                    arrayEnumerate(lucks), next_places, rates, seconds
                ), 1, is_started * played),
                arraySlice([EVENT(offset + 2 + played, 11,
                    next_places[played], rates[played],
                    arraySum(arraySlice(seconds, 1, played)), end > 0)], 1, is_started AND NOT is_fatal)
            )) AS events
        FROM
        (
            SELECT
                *,
                -- The buffering of a tick, its seek and its new quality all follow from its luck.
                arrayMap(
                    x -> if(x < 0.07, $period - BUFFER_MS(x) / 1000, $period), lucks) AS advances,
                arrayCumSum(advances) AS sums,
                -- Positions at the start of each tick: a seek moves all after it.
                arrayFill(x -> x > -1000000, arrayMap(
                    (k, luck, sum, advance) -> multiIf(
                        NOT is_live AND luck >= 0.07 AND luck < 0.11,
                        SHARE(luck, 0.07, 0.11) * length - (sum - advance),
                        k = 1, toFloat64(first_place),
                        -1000000000.),
                    arrayEnumerate(lucks), lucks, sums, advances
                )) AS bases,
                arrayMap(
                    (base, sum, advance) -> least(base + sum - advance, duration),
                    bases, sums, advances) AS places,
                arrayMap(
                    (place, advance) -> least(advance, greatest(round(duration - place, 1), 0.1)),
                    places, advances) AS seconds,
                arrayFill(x -> x > 0, arrayMap(
                    (k, luck) -> multiIf(
                        luck >= 0.118 AND luck < 0.16, PICK($bitrates, SHARE(luck, 0.118, 0.16)),
                        k = 1, first_rate,
                        0),
                    arrayEnumerate(lucks), lucks
                )) AS rates
            FROM
            (
                SELECT
                    s, app, user, tail, start, v, offset, planned,
                    has($live_apps, app) AS is_live,
                    toUInt64(start) + offset * $period AS chosen_at,
                    multiIf(
                        NOT is_live, toUInt32(pow($contents, DRAW(v, 10))),
                        chosen_at % $live_period < $live_seconds AND DRAW(v, 30) < 0.7,
                        toUInt32(1 + intDiv(chosen_at, $live_period) % $streams),
                        toUInt32(pow($streams, DRAW(v, 10)))) AS number,
                    if(is_live,
                        concat('"stream_id":"st-', leftPad(toString(998000 + number), 6, '0'), '",'),
                        concat('"content_id":"c-', leftPad(toString(number), 5, '0'), '",')) AS video,
                    toUInt32(60 + floor(pow(
                        number * 2654435761 % 4294967296 / 4294967296, 2) * 1140)) AS full_length,
                    if(is_live, 3600, full_length) AS length,
                    if(is_live, 1000000000, full_length) AS duration,
                    PICK($cdns, DRAW(v, 31)) AS cdn,
                    concat(
                        video,
                        '"player_version":"', player,
                        '","view_id":"v-',
                        leftPad(lower(hex(toUInt64(DRAW(v, 32) * 281474976710656))), 12, '0'),
                        '","cdn":"', cdn, '",',
                        if(is_live, '', concat('"duration":', toString(full_length), ','))
                    ) AS view,
                    toUInt32(if(NOT is_live AND DRAW(v, 33) < 0.1, DRAW(v, 34) * full_length, 0))
                        AS first_place,
                    PICK($bitrates, DRAW(v, 25)) AS first_rate,
                    DRAW(v, 35) AS failure,
                    120 + toUInt32(pow(DRAW(v, 24), 3) * if(cdn = $slow_cdn, 12000, 4000))
                        AS startup_ms,
                    DRAW(v, 11) < 0.35 AS is_searched,
                    DRAW(v, 12) > 0.12 AS is_found,
                    if(is_found, PICK($queries, DRAW(v, 13)), PICK($fruitless, DRAW(v, 13))) AS query,
                    if(is_found, 1 + toUInt32(pow(DRAW(v, 14), 2) * 200), 0) AS results,
                    is_searched AND is_found AND DRAW(v, 15) >= 0.3 AS is_clicked,
                    1 + toUInt32(pow(DRAW(v, 27), 3) * least(results, 20)) AS clicked,
                    NOT is_searched OR is_clicked AS is_watched,
                    is_watched AND failure >= 0.04 AS is_started,
                    arrayMap(k -> DRAW(v, k, 16), range(1, planned + 1)) AS lucks
                FROM
                (
                    SELECT
                        number AS s,
                        if(start % $live_period < $live_seconds AND DRAW(9) < 0.5,
                            $live_apps[1], PICK($apps, DRAW(1))) AS app,
                        concat('user_', leftPad(lower(hex(toUInt32(
                            toUInt64(DRAW(2) * $users) * 2654435761 % 4294967296))), 8, '0')) AS user,
                        PICK($players, DRAW(29)) AS player,
                        concat(
                            '"session_id":"s-',
                            leftPad(lower(hex(s * $session_factor % $session_ids)), 10, '0'),
                            '","network_type":"', PICK($networks, DRAW(4)),
                            '","client_version":"', PICK($versions, DRAW(5)),
                            '","device":"', PICK($devices, DRAW(28)), '"}'
                        ) AS tail,
                        -- Sessions are even in `y`; its days are bent so that noon is busiest, then
                        -- shifted.
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
    ARRAY JOIN events AS event
)
""".replace("KINDS", _array(_KINDS))

_STATEMENT = _expanded(_SQL)
