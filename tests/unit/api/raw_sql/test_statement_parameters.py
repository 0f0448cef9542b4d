import pytest

from octane_analytics.api.raw_sql.statement_parameters import MAX_PARAMETERS, checked
from octane_analytics.errors import QueryError


def test_values_are_sent_as_the_driver_binds_them() -> None:
    given = {"text": "a'b\n", "n": 3, "x": 0.5, "yes": True, "many": ["a", 1, False, ["b"]]}
    assert checked(given) == {
        "text": "a'b\n",
        "n": 3,
        "x": 0.5,
        "yes": "true",
        "many": ["a", 1, "false", ["b"]],
    }
    assert checked(None) == {}


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
def test_other_values_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(QueryError) as raised:
        checked(given)
    assert raised.value.status == 422
