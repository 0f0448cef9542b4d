"""Functions that must be missing in the built-in allow-list."""

import pytest

from octane_analytics.api.raw_sql.functions import load


@pytest.mark.parametrize(
    "name",
    [
        *(
            f"polygons{operation}{plane}"
            for operation in (
                "Intersection",
                "Union",
                "SymDifference",
                "Within",
                "Intersect",
                "Equals",
            )
            for plane in ("Cartesian", "Spherical")
            if (operation, plane) != ("Equals", "Spherical")
        ),
        "polygonsDistanceCartesian",
        "geometryIntersectSpherical",
        "arrayLevenshteinDistance",
        "arrayLevenshteinDistanceWeighted",
        "arraySimilarity",
        "editDistance",
        "levenshteinDistance",
        "editDistanceUTF8",
        "levenshteinDistanceUTF8",
        "kolmogorovSmirnovTest",
        "mannWhitneyUTest",
        "mannWhitneyUTestIf",
        "kolmogorovSmirnovTestArray",
        "seriesDecomposeSTL",
        "h3kRing",
    ],
)
def test_function_that_exceeds_limits_is_not_allowed(name: str) -> None:
    assert not load().allow(name)
    assert load([name]).allow(name)
