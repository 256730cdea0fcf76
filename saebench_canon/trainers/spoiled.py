"""SAEs that are bad on purpose, to try scores and answers on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from saebench_canon.errors import CanonError
from saebench_canon.plugin.trainer import Trained, trainer
from saebench_canon.trainers.settings import Revival, Schedule, TopK

if TYPE_CHECKING:
    from saebench_canon.plugin.activations import Acts

Fault = Literal["duplicated", "merged", "twin"]


@trainer(version=1)
def spoiled(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    schedule: Schedule = Schedule(),
    select: TopK = TopK(),
    revival: Revival = Revival(),
    fault: Fault = "duplicated",
    share: float = 0.25,
) -> Trained:
    """A TopK SAE that is bad on purpose: some latents duplicated or merged, or a twin.

    `fault` is "duplicated", "merged" or "twin", and `share` how many of the latents are changed
    (of twins, none).
    Latents are spoilt after the training. Duplicated ones are copies of others; merged ones become
    sums of two, of which the second then is dead. Every twin starts as seed 0 does, and sees its
    tokens in an order of its own.
    """
    from saebench_canon.trainers import gradients
    from saebench_canon.trainers import training_loop as loop
    from saebench_canon.trainers.architectures import topk_config

    if not 0 < share <= 0.5:
        raise CanonError(f"share must be above 0 and at most .5, got {share}")
    return loop.run(
        topk_config(acts, width, schedule, select),
        acts,
        folder,
        schedule,
        seed=seed,
        start=0 if fault == "twin" else seed,
        gradients=loop.ClosedForm(select=gradients.LargestOfToken(select.k), revival=revival),
        change=lambda sae: _spoil(sae, fault, max(1, round(share * width)), seed),
    )


def _spoil(sae: Any, fault: Fault, count: int, seed: int) -> None:
    """Change so many latents of a trained SAE in place."""
    import torch

    from saebench_canon.kernels.random_generators import generator

    order = torch.randperm(len(sae.W_dec), generator=generator(seed, "spoiled"))
    rows, weights, bias = sae.W_dec.data, sae.W_enc.data, sae.b_enc.data
    if fault == "duplicated":
        changed, others = order[:count], order[count : 2 * count]
        rows[changed], weights[:, changed], bias[changed] = (
            rows[others], weights[:, others], bias[others],
        )  # fmt: skip
    elif fault == "merged":
        pairs = max(1, count // 2)
        first, second = order[:pairs], order[pairs : 2 * pairs]
        unit = torch.nn.functional.normalize(rows, dim=1)
        rows[first] = (unit[first] + unit[second]) / 2**0.5 * rows[first].norm(dim=1, keepdim=True)
        weights[:, first] = (weights[:, first] + weights[:, second]) / 2**0.5
        bias[first] = (bias[first] + bias[second]) / 2**0.5
        rows[second], weights[:, second], bias[second] = 0.0, 0.0, 0.0
