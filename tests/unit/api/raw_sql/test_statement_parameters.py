import pytest

from octane_analytics.api.raw_sql.statement_parameters import MAX_PARAMETERS, validate
from octane_analytics.errors import QueryError


def test_values_are_converted_for_the_driver() -> None:
    given = {"text": "a'b\n", "n": 3, "x": 0.5, "yes": True, "many": ["a", 1, False, ["b"]]}
    assert validate(given) == {
        "text": "a'b\n",
        "n": 3,
        "x": 0.5,
        "yes": "true",
        "many": ["a", 1, "false", ["b"]],
    }
    assert validate(None) == {}


@pytest.mark.parametrize(
    "given",
    [
        {"a": None},
        {"a": {"b": 1}},
        {"a": [{"b": 1}]},
        {"a": [[[[[[1]]]]]]},
        {"a b": 1},
        {"": 1},
        {"a=1, b": 1},
        {"ä": 1},
        {f"p{n}": n for n in range(MAX_PARAMETERS + 1)},
    ],
)
def test_invalid_values_are_rejected(given: dict[str, object]) -> None:
    with pytest.raises(QueryError) as raised:
        validate(given)
    assert raised.value.status == 422
