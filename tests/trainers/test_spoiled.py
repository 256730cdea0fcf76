"""SAEs that are bad on purpose are bad in the way that they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from planted import planted_acts
from safetensors.torch import load_file
from torch import Tensor

from saebench_canon.errors import CanonError
from saebench_canon.plugin.activations import Acts
from saebench_canon.trainers.architectures import topk
from saebench_canon.trainers.spoiled import spoiled

ACTS = Acts(planted_acts(2000), torch.arange(2000) // 100)
SETTINGS: dict[str, Any] = {"width": 24, "tokens": 2_000, "batch_size": 100, "k": 2}


def trained(trainer: Any, folder: Path, seed: int = 0, **settings: Any) -> dict[str, Tensor]:
    trainer.train(ACTS, folder, seed=seed, **SETTINGS, **settings)
    return load_file(folder / "sae_weights.safetensors")


def test_a_share_of_the_latents_are_copies(tmp_path: Path) -> None:
    plain = trained(topk, tmp_path / "plain")
    weights = trained(spoiled, tmp_path / "spoiled", fault="duplicated", share=0.25)
    rows = torch.nn.functional.normalize(weights["W_dec"], dim=1)
    twins = ((rows @ rows.T).fill_diagonal_(0) > 0.99999).any(dim=1)
    assert int(twins.sum()) == 12
    changed = (weights["W_dec"] != plain["W_dec"]).any(dim=1)
    assert int(changed.sum()) == 6
    assert bool(twins[changed].all())


def test_pairs_become_their_sums(tmp_path: Path) -> None:
    plain = trained(topk, tmp_path / "plain")
    weights = trained(spoiled, tmp_path / "spoiled", fault="merged", share=0.25)
    changed = (weights["W_dec"] != plain["W_dec"]).any(dim=1).nonzero()[:, 0]
    dead = (weights["W_dec"] == 0).all(dim=1)
    assert len(changed) == 6
    assert int(dead.sum()) == 3
    before = torch.nn.functional.normalize(plain["W_dec"][changed], dim=1)
    for latent in changed[~dead[changed]].tolist():
        sums = torch.nn.functional.normalize(before[:, None] + before[None], dim=2)
        row = torch.nn.functional.normalize(weights["W_dec"][latent], dim=0)
        assert bool(((sums @ row) > 0.99999).any())


def test_twins_share_their_start_and_not_their_tokens(tmp_path: Path) -> None:
    at = {
        (trainer.name, seed): trained(trainer, tmp_path / f"{trainer.name}{seed}", seed, **settings)
        for trainer, settings in ((topk, {}), (spoiled, {"fault": "twin"}))
        for seed in (0, 1)
    }

    def alike(first: tuple[str, int], second: tuple[str, int]) -> float:
        rows = [torch.nn.functional.normalize(at[one]["W_dec"], dim=1) for one in (first, second)]
        return float((rows[0] * rows[1]).sum(dim=1).mean())

    assert alike(("topk", 0), ("spoiled", 0)) == pytest.approx(1)
    assert 0.8 < alike(("topk", 0), ("spoiled", 1)) < 0.9999
    assert alike(("topk", 0), ("topk", 1)) < 0.5


def test_a_share_above_a_half_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CanonError, match=r"share must be above 0 and at most .5, got 0.7"):
        trained(spoiled, tmp_path, share=0.7)
