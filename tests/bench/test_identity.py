"""What makes two cases the same, and what does not: the golden id among them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from clone import GOLDEN
from planted import SUITE, planted_acts, write_acts, write_sae
from safetensors.torch import load_file, save_file

from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.plugin.fingerprint import fingerprint
from saebench_canon.plugin.registry import load_registry

TRAINED = """
[data.planted]
file = "acts.safetensors"
holdout = 0.2

[[sae]]
name = "topk-w{width}-s{seed}"
train = { arch = "topk", tokens = 2000, k = 4 }
data = "planted"
axes = { width = [16], seed = [0, 1] }

[[metric]]
name = "fidelity"
"""


def ids(path: Path, *settings: str, store: str = ".canon") -> dict[str, str]:
    """The id of every case by name."""
    plan = make_plan(path, load_registry(), Store(Path(store)), settings=settings)
    return {str(case): case_id for case, case_id in zip(plan.cases, plan.ids, strict=True)}


def test_the_fingerprint_is_golden() -> None:
    case = {"metric": "l0", "version": 1, "settings": {"threshold": 0.5}, "subject": ["a", "b"]}
    assert fingerprint(case) == "e043cc14d52ea406c167b625b002489b"
    assert fingerprint(dict(reversed(case.items()))) == fingerprint(case)
    assert fingerprint({"k": 1}) != fingerprint({"k": 1.0})


def test_ids_are_golden(suite: Path, tmp_path: Path) -> None:
    """Pinned: a change here makes every stored record unfindable, and must be meant.

    The files' numbers are exact in every arithmetic, so that their digests are the same anywhere.
    """
    write_acts(tmp_path / "acts.safetensors", (torch.arange(9600.0) % 7).reshape(600, 16) / 8)
    for path in (tmp_path / "saes").glob("*/sae_weights.safetensors"):
        weights = load_file(path)
        exact = {
            key: (torch.arange(float(weight.numel())) % 11 - 4).reshape(weight.shape) / 4
            for key, weight in weights.items()
        }
        exact["b_dec"] += int(path.parent.name.rpartition("-s")[2])
        save_file(exact, path)
    identifiers = ids(suite)
    assert len(set(identifiers.values())) == len(identifiers)
    golden = GOLDEN / "ids.json"
    assert identifiers == json.loads(golden.read_text())


def test_neither_names_nor_paths_nor_the_store_are_part_of_it(
    suite: Path, tmp_path: Path, write_suite: Callable[..., Path]
) -> None:
    before = set(ids(suite).values())
    shutil.move(tmp_path / "saes", tmp_path / "elsewhere")
    shutil.move(tmp_path / "acts.safetensors", tmp_path / "x.safetensors")
    text = SUITE.replace("file:saes/", "elsewhere/").replace("acts.safetensors", "x.safetensors")
    text = text.replace("relu-w", "mine-").replace("planted", "data").replace("small", "other")
    assert set(ids(write_suite(text), store="second").values()) == before


def test_key_order_of_a_config_is_no_part_of_it(suite: Path, tmp_path: Path) -> None:
    before = ids(suite)
    for path in (tmp_path / "saes").glob("*/cfg.json"):
        path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert ids(suite) == before


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ("data.planted.tokens=100", set()),
        (
            "metric.floor.settings.threshold=0.5",
            {"fidelity", "stitching", "meta_sae", "seed_matching", "comparison", "insertion",
             "geometry"},
        ),
        (
            "metric.meta_sae.seeds=[1]",
            {"fidelity", "stitching", "floor", "seed_matching", "comparison", "insertion",
             "geometry"},
        ),
        ('sae.dtype="float64"', set()),
        ("data.planted.holdout=0.5", set()),
    ],
)  # fmt: skip
def test_settings_change_what_depends_on_them(suite: Path, change: str, stays: set[str]) -> None:
    before, after = ids(suite), ids(suite, change)
    assert before.keys() == after.keys()
    kept = {name.split()[1] for name in before if before[name] == after[name]}
    changed = {name.split()[1] for name in before if before[name] != after[name]}
    assert (kept, kept & changed) == (stays, set())


def test_other_activations_are_other_cases(suite: Path, tmp_path: Path) -> None:
    before = ids(suite)
    write_acts(tmp_path / "acts.safetensors", planted_acts(seed=1))
    assert not set(before.values()) & set(ids(suite).values())


def test_other_weights_are_other_cases_of_that_sae_only(suite: Path, tmp_path: Path) -> None:
    before = ids(suite)
    write_sae(tmp_path / "saes" / "w24-s0", 24, seed=7)
    after = ids(suite)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if "relu-w24-s0" in name}


@pytest.mark.parametrize(
    "change",
    ["sae.train.k=5", "sae.train.lr=1e-4", "sae.train.tokens=3000", "data.planted.holdout=0.3"],
)
def test_all_that_shapes_a_training_is_part_of_it(
    suite: Path, write_suite: Callable[[str], Path], change: str
) -> None:
    path = write_suite(TRAINED)
    assert not set(ids(path).values()) & set(ids(path, change).values())


def test_seeds_train_different_saes(suite: Path, write_suite: Callable[[str], Path]) -> None:
    assert len(set(ids(write_suite(TRAINED)).values())) == 2
