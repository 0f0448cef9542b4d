"""The list of functions that ships with the package."""

import pytest

from octane_analytics.api.raw_sql.functions import load


@pytest.mark.parametrize(
    "name",
    [
        *(
            f"polygons{what}{plane}"
            for what in ("Intersection", "Union", "SymDifference", "Within", "Intersect", "Equals")
            for plane in ("Cartesian", "Spherical")
            if (what, plane) != ("Equals", "Spherical")
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
def test_function_that_ignores_limits_is_not_allowed(name: str) -> None:
    assert not load().allow(name)
    assert load([name]).allow(name)
