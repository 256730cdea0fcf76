"""The built-in trainers: SAELens' training classes, their settings and defaults.

Activations are scaled to a mean squared norm of d, and the factor is folded into the saved SAE.
The same lr, l1 and l0 therefore suit other models. Warm-ups and `decay` are shares of the steps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.plugin.trainer import Trained, trainer
from saebench_canon.trainers.settings import BatchTopK, Jump, Revival, Schedule, TopK

if TYPE_CHECKING:
    from saebench_canon.plugin.activations import Acts


@trainer(version=1)
def relu(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    schedule: Schedule = Schedule(),
    l1: float = 1.0,
    l1_warm_up: float = 0.05,
) -> Trained:
    """ReLU with `‖x−x̂‖² + l1 Σ f_i ‖w_i‖`."""
    from sae_lens import StandardTrainingSAEConfig

    from saebench_canon.trainers import training_loop as loop

    norm = schedule.decoder_norm
    return loop.run(
        StandardTrainingSAEConfig(acts.d, width, decoder_init_norm=norm, l1_coefficient=l1),
        acts,
        folder,
        schedule,
        seed=seed,
        gradients=loop.ClosedForm(l1=lambda step: l1 * schedule.risen(step, l1_warm_up)),
    )


@trainer(version=1)
def topk(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    schedule: Schedule = Schedule(),
    select: TopK = TopK(),
    revival: Revival = Revival(),
) -> Trained:
    """The k largest codes of each token; dead latents learn from the remaining error."""
    from saebench_canon.trainers import gradients
    from saebench_canon.trainers import training_loop as loop

    return loop.run(
        topk_config(acts, width, schedule, select),
        acts,
        folder,
        schedule,
        seed=seed,
        gradients=loop.ClosedForm(select=gradients.LargestOfToken(select.k), revival=revival),
    )


def topk_config(acts: Acts, width: int, schedule: Schedule, select: TopK) -> Any:
    """SAELens' configuration of a TopK SAE; raises CanonError for a k above the width."""
    from sae_lens import TopKTrainingSAEConfig

    select.check(width)
    norm = schedule.decoder_norm
    return TopKTrainingSAEConfig(acts.d, width, k=select.k, decoder_init_norm=norm)


@trainer(version=1)
def batchtopk(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    schedule: Schedule = Schedule(),
    select: BatchTopK = BatchTopK(),
    revival: Revival = Revival(),
) -> Trained:
    """The n·k largest codes of a batch of n; one threshold at inference, from tokens held out."""
    from sae_lens import BatchTopKTrainingSAEConfig

    from saebench_canon.trainers import gradients
    from saebench_canon.trainers import training_loop as loop

    select.check(width)
    return loop.run(
        BatchTopKTrainingSAEConfig(
            acts.d, width, k=select.k, decoder_init_norm=schedule.decoder_norm
        ),
        acts,
        folder,
        schedule,
        seed=seed,
        holdout=select.threshold_share,
        gradients=loop.ClosedForm(select=gradients.LargestOfBatch(select.k), revival=revival),
    )


@trainer(version=1)
def matryoshka(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    schedule: Schedule = Schedule(),
    select: BatchTopK = BatchTopK(),
    levels: int = 4,
    revival: Revival = Revival(),
) -> Trained:
    """BatchTopK whose first width/2, width/4, … latents must also reconstruct by themselves."""
    from sae_lens import MatryoshkaBatchTopKTrainingSAEConfig

    from saebench_canon.trainers import gradients
    from saebench_canon.trainers import training_loop as loop

    select.check(width)
    if levels < 1 or width % 2 ** (levels - 1):
        raise CanonError(f"a width of {width} cannot be halved for {levels} levels")
    widths = tuple(width >> level for level in reversed(range(levels)))
    config = MatryoshkaBatchTopKTrainingSAEConfig(
        acts.d,
        width,
        k=select.k,
        matryoshka_widths=list(widths),
        decoder_init_norm=schedule.decoder_norm,
    )
    return loop.run(
        config,
        acts,
        folder,
        schedule,
        seed=seed,
        holdout=select.threshold_share,
        gradients=loop.ClosedForm(
            select=gradients.LargestOfBatch(select.k), widths=widths, revival=revival
        ),
    )


@trainer(version=1)
def jumprelu(
    acts: Acts,
    folder: Path,
    *,
    width: int,
    seed: int,
    schedule: Schedule = Schedule(),
    l0: float = 1.0,
    l0_warm_up: float = 0.1,
    jump: Jump = Jump(),
) -> Trained:
    """A learnt threshold for each latent with `‖x−x̂‖² + l0 ‖f‖₀`."""
    from sae_lens import JumpReLUTrainingSAEConfig

    from saebench_canon.trainers import training_loop as loop

    config = JumpReLUTrainingSAEConfig(
        acts.d,
        width,
        decoder_init_norm=schedule.decoder_norm,
        jumprelu_bandwidth=jump.bandwidth,
        jumprelu_init_threshold=jump.threshold,
        l0_coefficient=l0,
    )
    return loop.run(
        config,
        acts,
        folder,
        schedule,
        seed=seed,
        gradients=loop.Autograd(lambda step: {"l0": l0 * schedule.risen(step, l0_warm_up)}),
    )


TRAINERS: tuple[Any, ...] = (relu, topk, batchtopk, matryoshka, jumprelu)
