"""Why a latent is canonical, or which test it fails."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from saebench_canon.latents.canonical_line import why
from saebench_canon.questions.canonical import COLUMNS, Compared, Listed

AGAINST = Compared(("b", "c"), ("x", "y", "z"), ("s",))


def listed(against: Compared = AGAINST, **changed: Any) -> Listed:
    row: dict[str, Any] = dict.fromkeys(COLUMNS, 0)
    row |= {"sae": "a", "latent": 5, "twin_of": -1, "found_in": 2, "above": 1, "canonical": True}
    row |= {"sum_of_own": False, **changed}
    return Listed(pd.DataFrame([row]), against, tests_own=True)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        (
            {},
            "canonical: 2 of 2 other seeds find it; 1 of 3 wider SAEs have it; 0 of 1 narrower "
            "ones do; no sum of others",
        ),
        ({"twin_of": 3, "canonical": False}, "not canonical: a duplicate of latent 3"),
        (
            {"sum_of_larger": 2, "sum_of_own": True, "canonical": False},
            "not canonical: 2 of 2 other seeds find it; 1 of 3 wider SAEs have it; 0 of 1 "
            "narrower ones do; a sum of its own SAE's other latents; a sum of latents of 2 of the "
            "3 wider SAEs",
        ),
        (
            {"sum_of_larger": 1},
            "canonical: 2 of 2 other seeds find it; 1 of 3 wider SAEs have it; 0 of 1 narrower "
            "ones do; a sum of latents of 1 of the 3 wider SAEs, fewer than half",
        ),
    ],
)
def test_each_test_is_told(changed: dict[str, Any], sentence: str) -> None:
    assert why(listed(**changed), 5) == sentence


def test_what_could_not_be_tested_is_not_told() -> None:
    found = listed(Compared((), ("x",), ()))
    assert why(found, 5) == "canonical: 1 of 1 wider SAEs have it; no sum of others"


def test_a_latent_that_is_not_listed_has_no_sentence() -> None:
    assert why(listed(), 6) is None
