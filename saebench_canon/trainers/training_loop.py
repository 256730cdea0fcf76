"""Training one SAE: shuffled batches, the step loop, the threshold, the saved folder.

`train` can be replaced by any function that takes an SAE and batches through the same steps.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sae_lens import TrainingSAE, TrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from saebench_canon import progress
from saebench_canon.errors import CanonError
from saebench_canon.kernels.adam import Adam
from saebench_canon.plugin.activations import Acts
from saebench_canon.plugin.trainer import Trained
from saebench_canon.trainers.gradients import Select, set_gradients
from saebench_canon.trainers.settings import Revival, Schedule

Gradients = Callable[[TrainingSAE[Any], Tensor, int], Tensor]

BETAS = (0.9, 0.999)
CLIP = 1.0  # largest norm of the gradient, as in SAELens
THRESHOLD_BATCHES = 50
HELD_OUT_BATCHES = 8  # least number of batches held out for the threshold
MOST_HELD_OUT = 0.2  # largest share of the tokens held out to reach that number
OUR_NAMES = {"standard": "relu"}  # by SAELens' name
CHUNK = 65_536  # tokens read at once for the mean


class Batches:
    """Activations scaled to a mean squared norm of d, in a fresh order each epoch.

    With `holdout` above 0 the last tokens of the first shuffle are never trained on: that share of
    all tokens, or `HELD_OUT_BATCHES` batches if these are more, but then at most `MOST_HELD_OUT`.
    """

    def __init__(self, x: Tensor, size: int, *, seed: int, holdout: float = 0.0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._x = x
        order = torch.randperm(len(x), generator=self._generator)
        if not 0 <= holdout < 1:
            raise CanonError(
                f"the share of held-out tokens must be from 0 to below 1, got {holdout}"
            )
        count = math.ceil(holdout * len(x))
        if holdout > 0:
            spare = min(int(MOST_HELD_OUT * len(x)), len(x) - size)
            count = max(count, min(HELD_OUT_BATCHES * size, spare))
        cut = len(x) - count
        self._train, self._held_out = order[:cut], order[cut:]
        self._size = size
        if len(self._train) < size:
            raise CanonError(
                f"a batch has {size} tokens, but the data has only {len(self._train)} to train on",
                hint="Use more data or a smaller batch_size.",
            )
        self.mean, self.factor = _moments(x)

    @property
    def tokens(self) -> int:
        """The number of tokens in an epoch."""
        return len(self._train)

    def training(self) -> Iterator[Tensor]:
        """Endless batches; each epoch drops the tokens that do not fill a batch."""
        yield from self._draw(self._train, self._size)

    def held_out(self) -> Iterator[Tensor]:
        """Endless batches of the held-out tokens, or of the training tokens if none is held out."""
        if len(self._held_out) == 0:
            yield from self.training()
        yield from self._draw(self._held_out, min(self._size, len(self._held_out)))

    def _draw(self, tokens: Tensor, size: int) -> Iterator[Tensor]:
        while True:
            order = tokens[torch.randperm(len(tokens), generator=self._generator)]
            for start in range(0, len(order) - size + 1, size):
                batch = self._x.index_select(0, order[start : start + size])
                batch *= self.factor
                yield batch


class ClosedForm:
    """Gradients of reconstruction, sparsity and revival; counts how long latents are silent."""

    def __init__(
        self,
        *,
        select: Select | None = None,
        l1: Callable[[int], float] = lambda step: 0.0,
        widths: tuple[int, ...] = (),
        revival: Revival | None = None,
    ) -> None:
        self._select = select
        self._l1 = l1
        self._widths = widths
        self._revival = revival
        self._silent: Tensor | None = None  # tokens since each latent fired

    def __call__(self, sae: TrainingSAE[Any], x: Tensor, step: int) -> Tensor:
        """Set the SAE's gradients for the batch and return the loss."""
        if self._silent is None:
            self._silent = torch.zeros(sae.cfg.d_sae, device=x.device)
        dead = None if self._revival is None else self._silent >= self._revival.dead_after
        result = set_gradients(
            sae,
            x,
            select=self._select,
            l1=self._l1(step),
            widths=self._widths,
            revival=self._revival,
            dead=dead,
        )
        self._silent.add_(len(x)).masked_fill_(result.fired, 0)
        return result.loss


@dataclass(frozen=True)
class Autograd:
    """Gradients of the loss of the SAE's SAELens class, with its coefficients at each step."""

    coefficients: Callable[[int], dict[str, float]]

    @torch.enable_grad()
    def __call__(self, sae: TrainingSAE[Any], x: Tensor, step: int) -> Tensor:
        """Set the SAE's gradients for the batch and return the loss."""
        sae.zero_grad()
        out = sae.training_forward_pass(
            TrainStepInput(
                sae_in=x,
                coefficients=self.coefficients(step),
                dead_neuron_mask=None,
                n_training_steps=step,
                is_logging_step=False,
            )
        )
        out.loss.backward()
        loss: Tensor = out.loss.detach()
        return loss


def train(
    sae: TrainingSAE[Any],
    batches: Iterator[Tensor],
    schedule: Schedule,
    gradients: Gradients,
    *,
    title: str,
) -> float:
    """Take the schedule's Adam steps on the SAE in place; returns the last loss."""
    parameters = list(sae.parameters())
    adam = Adam([parameter.data for parameter in parameters], BETAS)
    loss = torch.zeros(())
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Sparse"
        )  # torch warns that compressed rows are in beta
        for step in progress.track(range(schedule.steps), title, schedule.steps):
            loss = gradients(sae, next(batches), step)
            grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
            clip(grads, CLIP)
            adam.step(grads, schedule.rate(step))
    return float(loss)


def clip(gradients: Sequence[Tensor], largest: float) -> None:
    """Scale gradients in place so that their joint norm is at most the largest allowed."""
    norm = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).norm()
    if not float(norm) <= largest:
        for gradient in gradients:
            gradient *= largest / norm


@torch.no_grad()
def threshold(sae: TrainingSAE[Any], batches: Iterator[Tensor]) -> float:
    """Mean over fresh batches of the least positive code selected (Bussmann et al. 2024, eq. 8)."""
    least = []
    for _ in range(THRESHOLD_BATCHES):
        codes = sae.encode(next(batches))
        if (codes > 0).any():
            least.append(codes[codes > 0].min().double())
    if not least:
        raise CanonError("no latent is active after training, so there is no threshold")
    return float(torch.stack(least).mean())


def run(
    config: TrainingSAEConfig,
    acts: Acts,
    folder: Path,
    schedule: Schedule,
    *,
    seed: int,
    gradients: Gradients,
    holdout: float = 0.0,
    start: int | None = None,
    change: Callable[[TrainingSAE[Any]], None] | None = None,
) -> Trained:
    """Build an SAE of the configuration from the seed, train it on the activations and save it.

    `start` is the seed that it starts from, if not that of the order of tokens. `change` may alter
    it after the training.
    """
    batches = Batches(acts.x, schedule.batch_size, seed=seed, holdout=holdout)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed if start is None else start)
        sae = TrainingSAE.from_dict(config.to_dict()).to(acts.x.device)
    sae.b_dec.data.copy_(batches.mean * batches.factor)
    # the weights of one latent are adjacent in memory, like their gradient
    sae.W_enc.data = sae.W_enc.data.T.contiguous().T
    architecture = OUR_NAMES.get(config.architecture(), config.architecture())
    loss = train(
        sae,
        batches.training(),
        schedule,
        gradients,
        title=f"training {architecture} {config.d_sae}",
    )
    if not math.isfinite(loss) or not all(torch.isfinite(p).all() for p in sae.parameters()):
        raise CanonError(
            f"the training of {architecture} {config.d_sae} diverged", hint="Lower lr."
        )
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(threshold(sae, batches.held_out()))
    if change is not None:
        change(sae)
    sae.W_enc.data = sae.W_enc.data.contiguous()
    sae.fold_activation_norm_scaling_factor(batches.factor)
    tokens = schedule.steps * schedule.batch_size
    trained = Trained(
        tokens=tokens, epochs=tokens / batches.tokens, steps=schedule.steps, loss=loss
    )
    save(sae, folder, seed=seed, tokens=tokens, epochs=trained.epochs, last_loss=loss)
    return trained


def save(sae: TrainingSAE[Any], folder: Path, **metadata: Any) -> None:
    """Save the SAE for inference; the same SAE gives the same bytes."""
    for key, value in metadata.items():
        setattr(sae.cfg.metadata, key, value)
    sae.cfg.device = "cpu"
    _, path = sae.save_inference_model(folder)
    config: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _moments(x: Tensor) -> tuple[Tensor, float]:
    """The mean [d] of activations and the factor that makes their mean squared norm d."""
    total = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device)
    squares = 0.0
    for part in torch.split(x, CHUNK):
        wide = part.double()
        total += wide.sum(dim=0)
        squares += float(wide.pow(2).sum())
    if not math.isfinite(squares) or squares == 0:
        raise CanonError("the activations are all zero, or one of them is not finite")
    return (total / len(x)).float(), math.sqrt(x.shape[1] * len(x) / squares)
