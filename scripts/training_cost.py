"""What a training step costs beside SAELens' own and a dense one in PyTorch, as ratios of one run.

All contenders see the same batches from the same start and take turns, a few steps each, so that
whatever else runs on the machine slows them alike; a ratio is one of medians.

    python scripts/training_cost.py                  # steps of all settings, two threads
    python scripts/training_cost.py --threads 1
    python scripts/training_cost.py --explained      # explained variance after as many steps
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from sae_lens import BatchTopKTrainingSAEConfig, TopKTrainingSAEConfig, TrainingSAE
from sae_lens.saes.sae import TrainStepInput
from torch import Tensor

from saebench_canon.kernels.adam import Adam
from saebench_canon.kernels.meta_sae import Fit
from saebench_canon.kernels.meta_training import Training
from saebench_canon.trainers import gradients
from saebench_canon.trainers import training_loop as loop
from saebench_canon.trainers.settings import Revival, Schedule

Step = Callable[[Tensor], object]  # one step of training on a batch [n, d]

META = Training(width=2304, k=4, steps=0, batch=4096, lr=1e-3)
META_ROWS, META_D = 12288, 768
SAE_D, SAE_K, SAE_BATCH, SAE_LR = 128, 8, 1024, 1e-2
WIDTHS = 64, 128, 256, 512
DEAD_AFTER = 100_000  # tokens


def planted(n: int, d: int, atoms: int, k: int, *, offset: float = 0.0) -> Tensor:
    """Noisy sums of k of so many random directions, with weights from .5 to 1.5."""
    g = torch.Generator().manual_seed(0)
    table = torch.nn.functional.normalize(torch.randn(atoms, d, generator=g), dim=1)
    picks = torch.randint(0, atoms, (n, k), generator=g)
    weights = 0.5 + torch.rand(n, k, generator=g)
    sums = torch.nn.functional.embedding_bag(picks, table, mode="sum", per_sample_weights=weights)
    return sums + 0.3 * torch.randn(n, d, generator=g) / d**0.5 + offset


def decoder_rows() -> Tensor:
    """What a meta-SAE is trained on: planted rows at unit norm [n, d]."""
    return torch.nn.functional.normalize(planted(META_ROWS, META_D, 2304, 4), dim=1)


def batches(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Batches of random permutations, the same for every contender."""
    g = torch.Generator().manual_seed(1)
    while True:
        order = torch.randperm(len(rows), generator=g)
        for start in range(0, len(rows) - size + 1, size):
            yield rows.index_select(0, order[start : start + size])


class OurMeta:
    """A step of `kernels.meta_sae`."""

    def __init__(self, how: Training, rows: Tensor) -> None:
        self._fit = Fit(rows[None], how, torch.Generator().manual_seed(0))

    def __call__(self, x: Tensor) -> object:
        return self._fit.step(x[None])

    def weights(self) -> tuple[Tensor, ...]:
        """Encoder [d, m], its bias, decoder [m, d], bias."""
        bias = self._fit.b_dec[0]
        return self._fit.W_enc.T, torch.zeros(len(self._fit.W_enc)), self._fit.W_dec, bias


class DenseMeta:
    """The same mathematics by autograd: a flat top n·k, dense products, Adam of torch."""

    def __init__(self, how: Training, rows: Tensor, **adam: bool) -> None:
        self._how, self._steps = how, 0
        first = Fit(rows[None], how, torch.Generator().manual_seed(0))
        self.encoder = torch.nn.Parameter(first.W_enc.T.contiguous())
        self.decoder = torch.nn.Parameter(first.W_dec.clone())
        self.bias = torch.nn.Parameter(first.b_dec[0].clone())
        own = [self.encoder, self.decoder, self.bias]
        self._adam = torch.optim.Adam(own, lr=how.lr, betas=how.betas, **adam)
        self._silent = torch.zeros(how.width, dtype=torch.int64)

    def __call__(self, x: Tensor) -> object:
        how, n = self._how, len(x)
        self._steps += 1
        self._adam.zero_grad()
        z = (x - self.bias) @ self.encoder
        top = z.relu().flatten().topk(how.k * n, sorted=False)
        codes = torch.zeros_like(z).flatten().scatter(0, top.indices, top.values).view_as(z)
        error = codes @ self.decoder + self.bias - x
        loss = error.pow(2).sum() / n
        with torch.no_grad():
            self._silent += 1
            self._silent[(codes > 0).any(dim=0)] = 0
            dead = self._silent >= how.dead_after
        if self._steps > how.dead_after and dead.any():
            unselected = z[:, dead].relu()
            if unselected.shape[1] > how.aux_k:
                top = unselected.topk(how.aux_k, dim=1, sorted=False)
                unselected = torch.zeros_like(unselected).scatter(1, top.indices, top.values)
            rest = unselected @ self.decoder[dead] + error.detach()
            loss = loss + how.aux_weight * rest.pow(2).sum() / n
        loss.backward()
        with torch.no_grad():
            gradient = self.decoder.grad
            assert gradient is not None
            gradient -= (gradient * self.decoder).sum(dim=1, keepdim=True) * self.decoder
            self._adam.step()
            self.decoder /= self.decoder.norm(dim=1, keepdim=True)
        return loss

    def weights(self) -> tuple[Tensor, ...]:
        """Encoder [d, m], its bias, decoder [m, d], bias."""
        zero = torch.zeros(self._how.width)
        return self.encoder.detach(), zero, self.decoder.detach(), self.bias.detach()


class Lens:
    """SAELens' training class: its forward pass and loss, its trainer's clipping, torch's Adam."""

    def __init__(
        self, sae: TrainingSAE[Any], *, lr: float, dead_after: int, clip: bool = True, **adam: bool
    ) -> None:
        self.sae, self._dead_after, self._clip = sae, dead_after, clip
        self._adam = torch.optim.Adam(sae.parameters(), lr=lr, **adam)
        self._silent = torch.zeros(sae.cfg.d_sae)

    def at(self, lr: float) -> None:
        """Take steps at this learning rate from now on."""
        for group in self._adam.param_groups:
            group["lr"] = lr

    def __call__(self, x: Tensor) -> object:
        self._adam.zero_grad()
        dead = self._silent >= self._dead_after
        out = self.sae.training_forward_pass(TrainStepInput(x, {}, dead, 0, False))
        out.loss.backward()
        with torch.no_grad():
            self._silent += len(x)
            self._silent[(out.feature_acts > 0).any(dim=0)] = 0
        if self._clip:
            torch.nn.utils.clip_grad_norm_(self.sae.parameters(), loop.CLIP)
        self._adam.step()
        return out.loss

    def weights(self) -> tuple[Tensor, ...]:
        """Encoder [d, m], its bias, decoder [m, d], bias."""
        own = self.sae.W_enc, self.sae.b_enc, self.sae.W_dec, self.sae.b_dec
        return tuple(each.detach() for each in own)


class DenseSae(Lens):
    """TopK or BatchTopK by autograd in plain torch, with the auxiliary loss of our trainers."""

    def __call__(self, x: Tensor) -> object:
        sae, k, n = self.sae, self.sae.cfg.k, len(x)
        self._adam.zero_grad()
        p = torch.addmm(sae.b_enc, x - sae.b_dec, sae.W_enc)
        with torch.no_grad():
            z = p * sae.W_dec.norm(dim=1)
            flat = sae.cfg.architecture() == "batchtopk"
            top = z.view(-1).topk(n * k, sorted=False) if flat else z.topk(k, dim=1, sorted=False)
            shape = z.view(-1) if flat else z
            kept = torch.zeros_like(shape).scatter_(-1, top.indices, 1).view_as(z)
        codes = p.relu() * kept
        error = codes @ sae.W_dec + sae.b_dec - x
        loss = error.pow(2).sum() / n
        dead = self._silent >= self._dead_after
        if dead.any():
            rest = p[:, dead].relu() @ sae.W_dec[dead] + error.detach()
            loss = loss + rest.pow(2).sum() / n / 32
        loss.backward()
        with torch.no_grad():
            self._silent += n
            self._silent[codes.sum(dim=0) > 0] = 0
        torch.nn.utils.clip_grad_norm_(sae.parameters(), loop.CLIP)
        self._adam.step()
        return loss


class OurSae:
    """A step of `trainers.loop`."""

    def __init__(self, sae: TrainingSAE[Any]) -> None:
        self.sae = sae
        sae.W_enc.data = sae.W_enc.data.T.contiguous().T
        k, flat = sae.cfg.k, sae.cfg.architecture() == "batchtopk"
        self._gradients = loop.ClosedForm(
            select=gradients.LargestOfBatch(k) if flat else gradients.LargestOfToken(k),
            revival=Revival(1 / 32, 512, DEAD_AFTER),
        )
        self._parameters = list(sae.parameters())
        self._adam = Adam([each.data for each in self._parameters], loop.BETAS)
        self._lr = SAE_LR

    def at(self, lr: float) -> None:
        """Take steps at this learning rate from now on."""
        self._lr = lr

    def __call__(self, x: Tensor) -> object:
        loss = self._gradients(self.sae, x, 0)
        found = [each.grad for each in self._parameters if each.grad is not None]
        loop.clip(found, loop.CLIP)
        self._adam.step(found, self._lr)
        return loss

    weights = Lens.weights


def sae_of(kind: str, d: int, width: int, k: int) -> TrainingSAE[Any]:
    """SAELens' training SAE, the same start each time."""
    of = {"topk": TopKTrainingSAEConfig, "batchtopk": BatchTopKTrainingSAEConfig}[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = of(d_in=d, d_sae=width, k=k, decoder_init_norm=0.1, aux_loss_coefficient=1 / 32)
        return TrainingSAE.from_dict(config.to_dict())


def meta_contenders(rows: Tensor) -> dict[str, Any]:
    """Ours first, then what it is measured against."""
    first = Fit(rows[None], META, torch.Generator().manual_seed(0))

    def lens(**adam: bool) -> Lens:
        sae = sae_of("batchtopk", META_D, META.width, META.k)
        sae.W_enc.data.copy_(first.W_enc.T)
        sae.W_dec.data.copy_(first.W_dec)
        dead_after = META.dead_after * META.batch
        return Lens(sae, lr=META.lr, dead_after=dead_after, clip=False, **adam)

    return {
        "ours": OurMeta(META, rows),
        "dense, fused Adam": DenseMeta(META, rows, fused=True),
        "dense, foreach Adam": DenseMeta(META, rows, foreach=True),
        "SAELens, fused Adam": lens(fused=True),
        "SAELens, foreach Adam": lens(foreach=True),
    }


def sae_contenders(kind: str, width: int, tokens: Tensor) -> dict[str, Any]:
    """Ours first, then what it is measured against."""

    def start() -> TrainingSAE[Any]:
        sae = sae_of(kind, SAE_D, width, SAE_K)
        sae.b_dec.data.copy_(tokens.mean(dim=0))
        return sae

    own = {"lr": SAE_LR, "dead_after": DEAD_AFTER}
    return {
        "ours": OurSae(start()),
        "dense, fused Adam": DenseSae(start(), **own, fused=True),
        "dense, foreach Adam": DenseSae(start(), **own, foreach=True),
        "SAELens, fused Adam": Lens(start(), **own, fused=True),
        "SAELens, foreach Adam": Lens(start(), **own, foreach=True),
    }


def compare(
    contenders: Mapping[str, Step], rows: Tensor, size: int, *, rounds: int, steps: int
) -> dict[str, float]:
    """Median seconds of a step of each, in turns of so many steps."""
    draws = {name: batches(rows, size) for name in contenders}
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, step in contenders.items():
            for _ in range(steps):
                x = next(draws[name])
                before = time.perf_counter()
                step(x)
                if turn:  # the first warms up
                    spent[name].append(time.perf_counter() - before)
    return {name: statistics.median(each) for name, each in spent.items()}


@torch.no_grad()
def explained(weights: tuple[Tensor, ...], rows: Tensor, k: int, *, of_batch: bool) -> float:
    """Centred explained variance of rows by their largest k codes each, or n·k of all."""
    W_enc, b_enc, W_dec, b_dec = weights
    p = (rows - b_dec) @ W_enc + b_enc
    z = p * W_dec.norm(dim=1)
    low = z.flatten().topk(k * len(z)).values[-1] if of_batch else z.topk(k, dim=1).values[:, -1:]
    rebuilt = torch.where((z >= low) & (z > 0), p, 0) @ W_dec + b_dec
    spread = (rows - rows.mean(dim=0)).pow(2).sum()
    return float(1 - (rows - rebuilt).pow(2).sum() / spread)


def told(title: str, spent: Mapping[str, float]) -> None:
    """Print each contender's step, and how many of ours fit into the fastest of the others."""
    best = min(seconds for name, seconds in spent.items() if name != "ours")
    print(f"{title}: {best / spent['ours']:.2f} of our steps in one of the fastest other")
    for name, seconds in spent.items():
        print(f"    {name:24s}{1e3 * seconds:10.2f} ms")


def main() -> None:
    """Print the figures of docs/performance.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--explained", action="store_true", help="train, do not time")
    parser.add_argument("--steps", type=int, default=0, help="of training with --explained")
    parser.add_argument("--only", choices=["meta", "sae"])
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.filterwarnings("ignore")
    tokens = planted(65_536, SAE_D, 600, 8, offset=0.3)
    tokens *= (SAE_D / tokens.pow(2).sum(dim=1).mean()) ** 0.5
    rows = decoder_rows()
    settings: list[tuple[str, dict[str, Any], Tensor, int, int, bool, int]] = []
    if given.only != "sae":
        title = f"meta-SAE, d {META_D}, {META.width} latents, k {META.k}, batch {META.batch}"
        settings.append((title, meta_contenders(rows), rows, META.batch, META.k, True, 200))
    if given.only != "meta":
        for kind in ("topk", "batchtopk"):
            for width in WIDTHS:
                title, flat = f"{kind}, d {SAE_D}, {width} latents, k {SAE_K}", kind == "batchtopk"
                found = sae_contenders(kind, width, tokens)
                settings.append((title, found, tokens, SAE_BATCH, SAE_K, flat, 1000))
    for title, contenders, data, size, k, of_batch, steps in settings:
        if not given.explained:
            large = size == META.batch
            each = {"rounds": 7, "steps": 2} if large else {"rounds": 20, "steps": 10}
            told(title, compare(contenders, data, size, **each))
            continue
        print(f"{title}: explained variance after {given.steps or steps} steps")
        for name in ("ours", "dense, fused Adam", "SAELens, fused Adam"):
            draw, total = batches(data, size), given.steps or steps
            schedule = Schedule(total * size, size, SAE_LR, warm_up=0.02, decay=0.9)
            for step in range(total):
                if k == SAE_K:
                    contenders[name].at(schedule.rate(step))
                contenders[name](next(draw))
            score = explained(contenders[name].weights(), data, k, of_batch=of_batch)
            print(f"    {name:24s}{score:10.4f}", flush=True)


if __name__ == "__main__":
    main()
