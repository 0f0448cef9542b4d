"""The benchmark of answers: all ways answer the same rows."""

import contextlib
import json
from typing import Any

import pytest

from octane_analytics.sandbox.clickhouse import EmbeddedClickHouse
from tests.tools.bench.answers import SHAPES, WAYS, answers


@pytest.mark.parametrize("shape", SHAPES)
def test_every_way_answers_the_same_rows(clickhouse_engine: EmbeddedClickHouse, shape: str) -> None:
    sql = f"{SHAPES[shape]} FROM numbers(100)"
    found = {way: rows(clickhouse_engine, way, sql) for way in WAYS}
    assert len(found["native"]) == 100
    assert found["raw"] == found["kept"] == found["native"]


def rows(engine: EmbeddedClickHouse, way: str, sql: str) -> list[Any]:
    port = engine.tcp_port if way == "native" else engine.http_port
    chunks: list[bytes] = []
    with contextlib.closing(answers(way, port)) as source:
        source.answer(sql, "ndjson", 1000, chunks.append)
    return [json.loads(line) for line in b"".join(chunks).splitlines()]
