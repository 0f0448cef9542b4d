"""Patterns of raw SQL: which functions take one, and which patterns have a bounded cost."""

import pytest

from octane_analytics.api.raw_sql import functions, patterns

ONE_SEARCH = ["match", "extract", "replaceRegexpOne"]
REPEATED = ["replaceRegexpAll", "extractAll", "countMatches", "splitByRegexp", "regexp_replace"]


@pytest.mark.parametrize("name", ONE_SEARCH + REPEATED)
@pytest.mark.parametrize(
    "pattern",
    [
        "",
        r"\s+",
        "^https?://",
        "[0-9a-f]{8}-[0-9a-f]{4}",
        "(utm_[a-z]+)=([^&|*]*)",
        r"^([^/]+)/(?:[^?#]*)\?(.*)$",
        "(?i)error [0-9]+",
        "cat|dog",
        "(ab){3}",
        r"\(x\)+\|y",
        "[]|]+x",
        "[^]|]+x",
        "[[:alpha:]|]*",
        r"\p{Greek}+",
    ],
)
def test_pattern_of_bounded_cost_is_allowed(name: str, pattern: str) -> None:
    assert patterns.objection(name, pattern) is None


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize(
    "pattern",
    [
        "a*?b|a",
        "a(b+c)?",
        "(?:a+b)*",
        "a(.*b){0,1}",
        "a{1,}b|a",
        "(?s).*b",
        "(?P<x>a*)b|a",
        r"\\|a+",
        "[\\]]|a+",
    ],
)
def test_repeated_search_with_choice_is_refused(name: str, pattern: str) -> None:
    assert "new search" in str(patterns.objection(name, pattern))
    assert all(patterns.objection(other, pattern) is None for other in ONE_SEARCH)


@pytest.mark.parametrize("name", REPEATED)
@pytest.mark.parametrize(
    "pattern", [r"\b", r"\ba\b", "^", "$", "^a?", "^??{2,}", r"\b*$+", "a^b", "^*a", "^a|b", "(^a)"]
)
def test_repeated_search_for_assertions_is_refused(name: str, pattern: str) -> None:
    """Each of the searches for `\\b` in 200 KB reads to the end: 46 s for all of them."""
    assert "must match a character" in str(patterns.objection(name, pattern))


@pytest.mark.parametrize("name", ONE_SEARCH + REPEATED)
def test_unclear_long_or_computed_pattern_is_refused(name: str) -> None:
    assert "unfinished" in str(patterns.objection(name, "[a"))
    assert "unfinished" in str(patterns.objection(name, r"\Q[\E|a*b"))
    assert "unfinished" in str(patterns.objection(name, "a\\"))
    assert "more than 256 bytes" in str(patterns.objection(name, "é" * 129))
    assert "repeats a group" in str(patterns.objection(name, "(a|aa){1,500}b"))
    assert "literal" in str(patterns.objection(name, None))


def test_case_folding_takes_shorter_patterns() -> None:
    assert patterns.objection("like", "%" * 256) is None
    for name in ("ilike", "positionCaseInsensitiveUTF8", "multiSearchAnyCaseInsensitiveUTF8"):
        assert patterns.objection(name, "x" * 64) is None
        assert "more than 64 bytes" in str(patterns.objection(name, "x" * 65))


def test_json_path_without_wildcard_is_allowed() -> None:
    assert patterns.objection("JSON_VALUE", "$.a.b[0]") is None
    for path in ("$[*]", "$.*", "$[0 to 5]"):
        assert "JSONExtract" in str(patterns.objection("JSON_VALUE", path))


def test_every_allowed_function_with_a_pattern_is_known() -> None:
    listed = functions.load().ordinary
    searching = {
        name
        for name in listed
        if any(part in name for part in ("match", "like", "regexp", "extractall", "extractgroups"))
        or (
            name.startswith(("position", "multisearch", "countsubstrings"))
            and "insensitive" in name
        )
    }
    without_pattern = {
        "mismatches",  # names that hold the word only
        "matchphrase",
        "regexpquotemeta",
        "tokensforlikepattern",
    }
    known = {name for name in searching if patterns.place(name) is not None}
    assert searching - known == without_pattern & searching
