"""Expansion of the texts about buckets in templates."""

import pytest

from octane_analytics.api.reports import bucket_texts


@pytest.mark.parametrize("name", ["number", "rollup_number", "start", "fill", "whole_hours"])
def test_text_is_expanded_on_its_line(name: str) -> None:
    expanded = bucket_texts.expand(f"SELECT 1\n{{{name}:Bucket}}\n")
    assert expanded.count("\n") == 2
    assert ":Bucket}" not in expanded
    assert "{bucket_seconds:UInt32}" in expanded


def test_unknown_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\{width:Bucket\} is unknown; buckets: number, "):
        bucket_texts.expand("{width:Bucket}")
