"""Small SAEs and activations with planted directions, on which a metric is measured quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize

from saebench_canon.data.activations_file import ActivationFile
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.metric import Metric
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.saes.fold import fold
from saebench_canon.saes.formats.in_memory import InMemory
from saebench_canon.suite.cases import Case
from saebench_canon.suite.specs import SaeSpec

D, FEATURES, TOKENS, DOCUMENTS = 16, 32, 480, 24
SMALL, LARGE, DEAD = 40, 64, 6


def directions() -> Tensor:
    """The planted directions [32, 16]."""
    draws = torch.randn(FEATURES, D, generator=torch.Generator().manual_seed(0))
    return normalize(draws, dim=1)


def activations() -> Tensor:
    """Sums of a few planted directions, [480, 16]."""
    generator = torch.Generator().manual_seed(1)
    active = (torch.rand(TOKENS, FEATURES, generator=generator) < 0.08).float()
    sizes = 1 + torch.rand(TOKENS, FEATURES, generator=generator)
    return (active * sizes) @ directions() + 0.1


def planted_sae(width: int, seed: int) -> CanonicalSAE:
    """An SAE of the planted directions and random ones, with noise added, in random order."""
    generator = torch.Generator().manual_seed(100 * width + seed)
    others = torch.randn(width - FEATURES, D, generator=generator)
    rows = torch.cat([directions(), normalize(others, dim=1)])
    rows = rows + 0.1 * torch.randn(width, D, generator=generator)
    rows = rows[torch.randperm(width, generator=generator)]
    bias = -0.4 - 0.4 * torch.rand(width, generator=generator)
    return fold(W_enc=normalize(rows, dim=1).T, W_dec=rows, b_dec=torch.full((D,), 0.1), b_enc=bias)


def _coder(sae: CanonicalSAE) -> LinearEncoder:
    assert isinstance(sae.coder, LinearEncoder)
    return sae.coder


def permuted(sae: CanonicalSAE) -> CanonicalSAE:
    """The same SAE with its latents in another order."""
    order = torch.randperm(sae.width, generator=torch.Generator().manual_seed(2))
    coder = _coder(sae)
    permuted_coder = replace(coder, weights=coder.weights[:, order], bias=coder.bias[order])
    return CanonicalSAE(sae.W_dec[order], sae.b_dec, permuted_coder)


def with_dead(sae: CanonicalSAE) -> CanonicalSAE:
    """The same SAE with latents appended that are never active."""
    draws = torch.randn(DEAD, sae.d, generator=torch.Generator().manual_seed(3))
    coder = _coder(sae)
    weights = torch.cat([coder.weights, torch.zeros(sae.d, DEAD)], dim=1)
    bias = torch.cat([coder.bias, torch.full((DEAD,), -1.0)])
    rows = torch.cat([sae.W_dec, normalize(draws, dim=1)])
    return CanonicalSAE(rows, sae.b_dec, replace(coder, weights=weights, bias=bias))


@dataclass(frozen=True)
class World:
    """The SAEs that are a metric's subject, and their peers."""

    subject: tuple[CanonicalSAE, ...]
    peers: tuple[CanonicalSAE, ...]

    def case(
        self, metric: Metric, settings: dict[str, object], seed: int, file: Path | None
    ) -> Case:
        """The case of the metric on this subject."""
        data = None
        if file is not None:
            data = DataSpec("planted", "planted activations", ActivationFile(file))
        return Case(
            metric=metric,
            label=metric.name,
            over="each",
            subject=_specs(self.subject, "sae", data),
            peers=_specs(self.peers, "peer", data),
            data=data,
            settings={**metric.settings, **settings},
            seed=seed,
            title=metric.name,
        )


def world(of: str) -> World:
    """The SAEs that a metric of an SAE, a pair or a group is measured on."""
    widths = {"sae": [SMALL], "pair": [SMALL, LARGE], "group": [SMALL, SMALL, SMALL]}[of]
    subject = tuple(planted_sae(width, seed) for seed, width in enumerate(widths))
    return World(subject, tuple(planted_sae(widths[-1], seed) for seed in (7, 8)))


def write_activations(folder: Path) -> Path:
    """Write the activations into a file that a data table can name."""
    folder.mkdir(parents=True, exist_ok=True)
    doc = torch.arange(TOKENS) * DOCUMENTS // TOKENS
    save_file({"acts": activations(), "doc": doc}, folder / "acts.safetensors")
    return folder / "acts.safetensors"


def _specs(saes: Sequence[CanonicalSAE], name: str, data: DataSpec | None) -> tuple[SaeSpec, ...]:
    return tuple(
        SaeSpec(
            f"{name}{index}", {"width": sae.width, "seed": index}, data.name if data else None,
            InMemory(sae, f"{name}{index}"), "float32", "a planted SAE",
        )
        for index, sae in enumerate(saes)
    )  # fmt: skip
