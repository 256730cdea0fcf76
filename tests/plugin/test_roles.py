"""A metric is found by its roles: which it may have, and that a plugin's is used as ours are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from sealed import EMPTY, keep_made_up, made_up_id

from saebench_canon.bench.store import Store
from saebench_canon.cli.notebook import evaluate
from saebench_canon.errors import CanonError
from saebench_canon.latents.decomposition import Records
from saebench_canon.plugin.metric import Metric, Score, metric, with_role
from saebench_canon.plugin.registry import load_registry
from saebench_canon.plugin.role import ROLES
from saebench_canon.plugin.row import ListedCase


def paired(name: str = "mine", *roles: str, scores: tuple[str, ...] = ("value",)) -> Metric:
    declare = metric(
        of="pair", version=1, name=name, scores=[Score(score) for score in scores], roles=roles
    )
    return declare(lambda small, large: dict.fromkeys(scores, 1.0))


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("pth", "metric 'mine': unknown role 'pth'. Did you mean 'path'?"),
        (
            "reconstruction",
            "metric 'mine': the role 'reconstruction' needs of=\"sae\", not of=\"pair\"",
        ),
        ("sums", "metric 'mine': the role 'sums' needs a score 'composed_share'"),
    ],
)
def test_a_role_that_a_metric_cannot_have_is_refused(role: str, message: str) -> None:
    with pytest.raises(CanonError) as error:
        paired("mine", role)
    assert str(error.value).startswith(message)


def test_metrics_with_a_role_come_in_their_order() -> None:
    metrics = [paired("b", "path"), paired("none"), paired("a", "path")]
    assert [each.name for each in with_role("path", metrics)] == ["b", "a"]


def test_every_role_is_that_of_a_built_in_metric() -> None:
    metrics = load_registry().metrics.values()
    assert {role for each in metrics for role in each.roles} == set(ROLES)


def test_a_plugins_sums_stand_on_cards(tmp_path: Path) -> None:
    mine, store = paired("mine", "sums", scores=("composed_share",)), Store(tmp_path)
    table = pd.DataFrame({"latent": [4], "atom": [7], "weight": [0.5], "explained": [0.25]})
    case = {"id": made_up_id("mine", 0), "metric": "mine", "label": "mine", "subject": ["s", "l"],
            "over": "all-pairs:seed"}  # fmt: skip
    record = replace(EMPTY, metric="mine")
    keep_made_up(store, record, {"latents": table}, composed_share=0.125)
    records = Records([ListedCase.from_json(case)], store, [mine])
    assert records.sum_of("s", "l", 4).atoms == ((7, 0.5, 0.25),)
    assert records.floor("l") == 0.125
    with pytest.raises(CanonError, match="the suite has no other of s and l"):
        Records(
            [ListedCase.from_json(case)],
            store,
            [paired("other", "sums", scores=("composed_share",))],
        ).sum_of("s", "l", 4)


def test_a_table_of_an_older_version_says_which_to_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    case = {"id": made_up_id("mine", 0), "metric": "mine", "label": "mine", "subject": ["s", "l"],
            "over": ""}  # fmt: skip
    keep_made_up(store, replace(EMPTY, metric="mine"))
    declare = metric(of="pair", version=3, name="mine", scores=[Score("composed_share")],
                     roles=["sums"])  # fmt: skip
    records = Records(
        [ListedCase.from_json(case)], store, [declare(lambda small, large: {"composed_share": 1.0})]
    )
    with pytest.raises(CanonError, match=r"no table 'latents'; run mine version 3"):
        records.sum_of("s", "l", 4)


def test_a_notebook_measures_how_well_saes_reconstruct_unless_told_otherwise(suite: Path) -> None:
    frame = evaluate([str(suite.parent / "saes" / "w24-s0")])
    (name,) = (each.name for each in with_role("reconstruction", load_registry().metrics.values()))
    assert set(frame["metric"]) == {name}
