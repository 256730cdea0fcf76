"""SAELens' synthetic model, as SynthSAEBench uses it, at a size that suits a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.world import BLOCK, Block, Drawing, Place, World

if TYPE_CHECKING:
    from torch import Tensor

DEPTH, BRANCHING = 3, 4
TREE = 1 + 4 + 16 + 64  # features of a tree
RARE, FREQUENT, EXPONENT = 5e-4, 0.4, 0.5  # firing probabilities before the hierarchy, Zipf
RANK, CORRELATION = 25, 0.1
MEANS = (5.0, 4.0)  # of codes: from the first feature to the last
STEPS = 100  # of making directions orthogonal


@dataclass(frozen=True)
class SynthSaeBench(World):
    """SAELens' synthetic model: trees of exclusive children, correlated, nearly orthogonal.

    Drawn by `sae_lens.synthetic`: Zipf's firing probabilities from .4 to .0005, trees of depth 3
    with 4 exclusive children a parent, correlations of rank 25, codes about 4 to 5 that vary by
    `spread`, directions that are made as orthogonal as there is room for. Its own benchmark has
    16,384 features of 768 dimensions.
    """

    named: ClassVar[str] = "synth-sae-bench"
    without: ClassVar[tuple[str, ...]] = ("l0", "zipf", "topics")

    features: int = 680
    d: int = 96
    spread: float = 0.5
    noise: float = 0.0

    def opened(self, data: DataSpec) -> Drawing:
        """The model, made from the seed."""
        return _Synthetic(self)


@dataclass(frozen=True)
class _Synthetic:
    """SAELens' model of a world."""

    world: SynthSaeBench

    @cached_property
    def _model(self) -> Any:
        import torch
        from sae_lens import synthetic as lens

        world = self.world
        roots = max(1, world.features // TREE)
        config = lens.SyntheticModelConfig(
            num_features=world.features,
            hidden_dim=world.d,
            firing_probability=lens.ZipfianFiringProbabilityConfig(
                exponent=EXPONENT, max_prob=FREQUENT, min_prob=RARE
            ),
            hierarchy=lens.HierarchyConfig(
                total_root_nodes=roots,
                branching_factor=BRANCHING,
                max_depth=DEPTH,
                mutually_exclusive_portion=1.0,
                compensate_probabilities=True,
            ),
            orthogonalization=lens.OrthogonalizationConfig(num_steps=STEPS),
            correlation=lens.LowRankCorrelationConfig(rank=RANK, correlation_scale=CORRELATION),
            std_firing_magnitudes=world.spread,
            mean_firing_magnitudes=lens.LinearMagnitudeConfig(*MEANS),
            bias=False,
            seed=world.seed,
        )
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), _quiet():
            torch.manual_seed(world.seed)
            return lens.SyntheticModel(config)

    def rows(self) -> Tensor:
        """The model's feature vectors."""
        from saebench_canon.kernels.cosine import unit

        return unit(self._model.feature_dict.feature_vectors.detach()).float()

    def parents(self) -> Tensor:
        """Each feature's parent in its tree."""
        import torch

        parents = torch.full((self.world.features,), -1)

        def visit(node: Any) -> None:
            for child in node.children:
                parents[child.feature_index] = node.feature_index
                visit(child)

        for root in self._model.hierarchy.roots:
            visit(root)
        return parents

    def names(self) -> Sequence[str]:
        """Numbers."""
        return self.world.names()

    def available(self, purpose: str) -> int | None:
        """Any number of tokens."""
        return None

    def blocks(self, tokens: int, purpose: str) -> Iterator[Block]:
        """Blocks of the model's samples, each from a seed of its own."""
        import torch

        from saebench_canon.kernels.codes import Codes

        rows, length = self.rows(), self.world.document
        for number, start in enumerate(range(0, tokens, BLOCK)):
            chance = self.world.generator(purpose, number)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(chance.initial_seed())
                codes = self._model.activation_generator.sample(BLOCK)
            x = codes @ rows
            if self.world.noise:
                x = x + self.world.noise * torch.randn(x.shape, generator=chance)
            count = min(BLOCK, tokens - start)
            at = torch.arange(start, start + count)
            yield Block(
                x[:count], Codes.from_dense(codes[:count]), Place(at // length, at % length)
            )


def _quiet() -> Any:
    """Hide the library's progress bar."""
    from contextlib import redirect_stderr
    from io import StringIO

    return redirect_stderr(StringIO())
