"""Behaviour reports and property distributions recomputed in plain Python."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from octane_analytics.events.event import Row
from tests.support.recount import Answer, RecountEvent, rounded


def _day(second: int, zone: str) -> date:
    return datetime.fromtimestamp(second, ZoneInfo(zone)).date()


def midnight(day: date, zone: str) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)).timestamp())


def _time(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).isoformat().replace("+00:00", "Z")


def days(start: int, end: int, zone: str) -> Iterator[date]:
    day = _day(start, zone)
    while day <= _day(end - 1, zone):
        yield day
        day += timedelta(days=1)


def events_by_day(events: Sequence[RecountEvent], start: int, end: int, zone: str) -> list[Answer]:
    groups = defaultdict(list)
    for event in events:
        groups[_day(event.second, zone)].append(event)
    return [
        {
            "bucket": _time(midnight(day, zone)),
            "events": len(groups[day]),
            "unique_users": len({event.user for event in groups[day]}),
        }
        for day in days(start, end, zone)
    ]


def active_users(rows: Iterable[Row], start: int, end: int, zone: str) -> list[Answer]:
    by_day = defaultdict(set)
    for row in rows:
        if row.timestamp < end:
            by_day[_day(row.timestamp, zone)].add(row.user_id)
    answers = []
    for day in days(start, end, zone):
        daily, weekly, monthly = (
            len(set().union(*(by_day[day - timedelta(days=ago)] for ago in range(count))))
            for count in (1, 7, 30)
        )
        answers.append(
            {
                "day": day.isoformat(),
                "daily_users": daily,
                "weekly_users": weekly,
                "monthly_users": monthly,
                "stickiness": rounded(daily / monthly, 4) if monthly else None,
            }
        )
    return answers


def retention(
    events: Sequence[RecountEvent],
    end: int,
    first: str | None,
    back: str | None,
    count: int,
    zone: str,
) -> list[Answer]:
    joined: dict[str, date] = {}
    returned = defaultdict(set)
    for event in events:
        day = _day(event.second, zone)
        if first in (None, event.name):
            joined[event.user] = min(joined.get(event.user, day), day)
        if back in (None, event.name):
            returned[event.user].add(day)
    answers: list[Answer] = []
    for cohort in sorted(set(joined.values())):
        users = [user for user, day in joined.items() if day == cohort]
        for number in range(count + 1):
            if midnight(cohort + timedelta(days=number + 1), zone) > end:
                break
            returned_users = sum(
                cohort + timedelta(days=number) in returned[user] for user in users
            )
            answers.append(
                {
                    "cohort": cohort.isoformat(),
                    "cohort_users": len(users),
                    "day_number": number,
                    "returned_users": returned_users,
                    "retention": rounded(returned_users / len(users), 4),
                    "sample": 1.0,
                }
            )
    return answers


def funnel(events: Sequence[RecountEvent], steps: Sequence[str], window: int) -> list[Answer]:
    by_user = defaultdict(list)
    for event in events:
        by_user[event.user].append((event.second, event.name))
    reached = [0] * len(steps)
    for events_of_user in by_user.values():
        depth = max(
            (
                _depth(events_of_user, steps, 1, second, second + window)
                for second, name in events_of_user
                if name == steps[0]
            ),
            default=0,
        )
        for step in range(depth):
            reached[step] += 1
    return [
        {
            "step": number + 1,
            "event_name": name,
            "users": reached[number],
            "of_first": rounded(reached[number] / reached[0], 4) if reached[0] else None,
            "of_previous": (
                rounded(reached[number] / reached[max(number - 1, 0)], 4)
                if reached[max(number - 1, 0)]
                else None
            ),
            "sample": 1.0,
        }
        for number, name in enumerate(steps)
    ]


def _depth(
    events: Sequence[tuple[int, str]], steps: Sequence[str], done: int, after: int, until: int
) -> int:
    """Return the steps one attempt reaches, `done` of which are complete, the last at second `after`."""
    if done == len(steps):
        return done
    following = [t for t, name in events if name == steps[done] and after < t <= until]
    if not following:
        return done
    # The earliest event leaves the most time for the following steps.
    return _depth(events, steps, done + 1, min(following), until)


def top_values(
    events: Sequence[RecountEvent], name: str, event_name: str | None = None
) -> list[Answer]:
    counts: Counter[str] = Counter()
    users = defaultdict(set)
    for event in events:
        value = event.properties.get(name)
        if value is not None and event_name in (None, event.name):
            text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            counts[text] += 1
            users[text].add(event.user)
    total = sum(counts.values())
    rows = [
        {
            "value": text,
            "events": count,
            "unique_users": len(users[text]),
            "share": rounded(count / total, 6),
            "sample": 1.0,
        }
        for text, count in counts.items()
    ]
    rows.sort(key=lambda row: (-counts[str(row["value"])], str(row["value"]).encode()))
    return rows


def percentiles(
    events: Sequence[RecountEvent], name: str, event_name: str | None, buckets: Sequence[int]
) -> list[Answer]:
    """Return one row per bucket; `buckets` are their first seconds."""
    groups: dict[int, list[float]] = {bucket: [] for bucket in buckets}
    for event in events:
        value = event.properties.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if event_name in (None, event.name):
            bucket = max(first for first in buckets if first <= event.second)
            groups[bucket].append(float(value))
    return [
        {
            "bucket": _time(bucket),
            "events": len(values),
            "minimum": min(values, default=None),
            **{
                f"p{level}": _low(sorted(values), level / 100) if values else None
                for level in (50, 90, 95, 99)
            },
            "maximum": max(values, default=None),
            "average": math.fsum(values) / len(values) if values else None,
            "sample": 1.0,
        }
        for bucket, values in groups.items()
    ]


def _low(values: Sequence[float], level: float) -> float:
    # As quantileExactLow: the lower median, otherwise the value at index level * count.
    if level == 0.5:
        return values[(len(values) - 1) // 2]
    return values[min(int(level * len(values)), len(values) - 1)]
