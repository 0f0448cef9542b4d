"""How long after it was produced an event can be read, at a steady rate.

Each event carries when it was handed to the producer. An insert is a part (merges are stopped), and a
part's rows could be read when the part was first seen, at most one look later than they could be.
"""

import contextlib
import json
import math
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from octane_analytics.clickhouse.client import ClickHouse
from tests.bench.backlog import Backlog
from tests.bench.contenders import CONTENDERS, Job
from tests.bench.measure import rows
from tests.bench.place import Place

_LOOK_SECONDS = 0.02
_WARM_SECONDS = 3.0
_TICK_SECONDS = 0.01
_DEADLINE_SECONDS = 120.0
_QUANTILES = (0.5, 0.95, 0.99, 1.0)
_EVENT = (
    b'{"app_id":"openstream","event_name":"video_heartbeat","user_id":"user_%08x",'
    b'"timestamp":"%s.000Z","properties":{"produced_at":%.6f,"stream_id":"st-998006","watch_time":15,'
    b'"session_id":"s-18072e8f9c","network_type":"wifi","client_version":"1.3.0-beta"}}'
)


@click.command()
@click.option(
    "--rate",
    "rates",
    multiple=True,
    type=int,
    default=(1_000, 10_000, 50_000),
    show_default=True,
    help="Events a second; may be given several times.",
)
@click.option("--seconds", default=20, show_default=True, help="How long at each rate.")
@click.option("--procs", default=1, show_default=True, help="Worker processes.")
@click.option("--partitions", default=8, show_default=True, help="Partitions of the topic.")
@click.option("--batch-size", default=1_000, show_default=True, help="BATCH_SIZE.")
@click.option("--flush-interval", default=1, show_default=True, help="FLUSH_INTERVAL.")
@click.option(
    "--contender",
    "contenders",
    multiple=True,
    type=click.Choice([name for name in CONTENDERS if name != "naive"]),
    default=("exactly-once",),
    show_default=True,
    help="Who is to be measured.",
)
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures here."
)
def latency(
    rates: Sequence[int],
    seconds: int,
    procs: int,
    partitions: int,
    batch_size: int,
    flush_interval: int,
    contenders: Sequence[str],
    json_file: Path | None,
) -> None:
    """From an event's production to the moment it can be read, at steady rates."""
    table = Table("contender", "events/s", "sent/s", "p50 s", "p95 s", "p99 s", "max s", "parts")
    figures = []
    for rate in rates:
        for name in contenders:
            backlog = Backlog(0, partitions)
            with Place([backlog]) as place:
                found = _measure(
                    place, backlog.topic, name, rate, seconds, procs, batch_size, flush_interval
                )
            figures.append({"contender": name, "rate": rate, **found})
            table.add_row(name, f"{rate:,}", f"{found['sent']:,.0f}", *_shown(found))
    if json_file is not None:
        json_file.write_text(json.dumps(figures, indent=1))
    Console(width=120).print(table)


def _shown(found: dict[str, float]) -> list[str]:
    return [*(f"{found[f'p{quantile:g}']:.3f}" for quantile in _QUANTILES), f"{found['parts']:.0f}"]


def _measure(
    place: Place,
    topic: str,
    name: str,
    rate: int,
    seconds: int,
    procs: int,
    batch_size: int,
    flush_seconds: int,
) -> dict[str, float]:
    producer = Producer(
        {"bootstrap.servers": place.bootstrap_servers, "linger.ms": 5, "compression.type": "lz4"}
    )
    with place.table("bench_latency") as clickhouse:
        clickhouse.execute(f"SYSTEM STOP MERGES {clickhouse.table}")
        job = Job(
            "bench_latency",
            *(place.bootstrap_servers, topic, clickhouse, place.engine.host, place.engine.tcp_port),
            *(batch_size, procs),
            may_grow=True,
            flush_seconds=flush_seconds,
        )
        with CONTENDERS[name](job), _watching(place) as seen_at:
            deadline = time.monotonic() + _DEADLINE_SECONDS
            sent = _warm_up(producer, topic, clickhouse, deadline)
            begin = time.time()
            measured = _produce(producer, topic, rate, seconds)
            took = time.time() - begin
            producer.flush(30)
            while rows(clickhouse) < sent + measured:
                if time.monotonic() > deadline + seconds:
                    raise click.ClickException(f"{name}: not all events arrived in time")
                time.sleep(0.2)
            time.sleep(5 * _LOOK_SECONDS)
        found = _latencies(clickhouse, seen_at, begin)
    return {"sent": measured / took, **found}


def _warm_up(producer: Producer, topic: str, clickhouse: ClickHouse, deadline: float) -> int:
    """Until what is sent arrives: a group has formed. Answers how many were sent."""
    sent = 0
    while not rows(clickhouse):
        if time.monotonic() > deadline:
            raise click.ClickException("nothing arrives")
        sent += _produce(producer, topic, 100, 0.5)
    return sent + _produce(producer, topic, 1_000, _WARM_SECONDS)


def _produce(producer: Producer, topic: str, rate: int, seconds: float) -> int:
    """Sends evenly, tick by tick; what the machine could not send in time is sent late, not left out."""
    begin, sent, total = time.time(), 0, int(rate * seconds)
    while sent < total:
        now = time.time()
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)).encode()
        due = min(total, math.ceil((now - begin) * rate))
        for number in range(sent, due):
            # Each event's own time: as many loops as events, so it is asked for every hundredth.
            if number % 100 == 0:
                now = time.time()
            producer.produce(topic, _EVENT % (number, second, now))
        sent = due
        producer.poll(0)
        time.sleep(_TICK_SECONDS)
    return sent


@contextlib.contextmanager
def _watching(place: Place) -> Iterator[dict[str, float]]:
    """When each part of the table was first seen, by its name; by a thread, with its own connection."""
    seen_at: dict[str, float] = {}
    stop = threading.Event()

    def look() -> None:
        with place.table("bench_latency") as clickhouse:
            while not stop.wait(_LOOK_SECONDS):
                found = clickhouse.select(
                    "SELECT name FROM system.parts WHERE active AND table = 'bench_latency'"
                ).rows
                now = time.time()
                for (name,) in found:
                    seen_at.setdefault(name, now)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen_at
    finally:
        stop.set()
        thread.join()


def _latencies(clickhouse: ClickHouse, seen_at: dict[str, float], begin: float) -> dict[str, float]:
    """Of the events produced since `begin`."""
    quantiles = ", ".join(f"{quantile:g}" for quantile in _QUANTILES)
    produced = "JSONExtractFloat(properties, 'produced_at')"
    seen = "transform(_part, {names:Array(String)}, {seconds:Array(Float64)}, toFloat64(0))"
    ((values, parts),) = clickhouse.select(
        f"SELECT quantilesExact({quantiles})({seen} - {produced}), uniqExact(_part) "
        f"FROM {clickhouse.table} WHERE {produced} >= {{begin:Float64}}",
        {"names": list(seen_at), "seconds": list(seen_at.values()), "begin": begin},
    ).rows
    told = {
        f"p{quantile:g}": float(value) for quantile, value in zip(_QUANTILES, values, strict=True)
    }
    return {**told, "parts": float(parts)}
