"""Tokens whose activations dwarf all others.

These are mostly attention sinks (Xiao et al. 2023, arXiv 2309.17453).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from saebench_canon.kernels.positions import NAMES, groups_of

FAR = 10.0  # times the median norm
CHUNK = 65_536  # tokens
LARGE = 0.1  # share of the centred energy from which scores are about these tokens


@dataclass(frozen=True)
class Far:
    """Tokens with norms far above those of others."""

    position: str  # of the window, such as "1 to 3"; "" for single tokens anywhere
    tokens: int
    times: float  # the median of their norms in units of the least median of a group of positions
    share: float  # of the centred energy Σ ‖x − x̄‖² over all tokens


@dataclass(frozen=True)
class Sinks:
    """Positions of which most tokens have far norms, and single tokens far out for theirs."""

    far: tuple[Far, ...] = ()

    def sentences(self) -> Iterator[tuple[bool, str]]:
        """Whether they carry much of the energy, and a sentence, for each kind of far tokens."""
        for far in self.far:
            where = f"at position {far.position} of a window" if far.position else "here and there"
            yield (
                far.share >= LARGE,
                (
                    f"{far.tokens:,} tokens {where} have norms {far.times:.3g} times the usual and "
                    f"carry {far.share:.1%} of the centred energy"
                    + (" (`skip` in the data table leaves positions out)" if far.position else "")
                ),
            )


def find_sinks(x: Tensor, positions: Tensor | None) -> Sinks:
    """The far tokens of activations [n, d], whose positions in their windows are known or not."""
    norms, energy = _norms_and_energy(x)
    group = torch.zeros(len(x), dtype=torch.int64) if positions is None else groups_of(positions)
    medians = {int(g): float(norms[group == g].median()) for g in set(group.tolist())}
    least = min(medians.values())
    single = torch.zeros(len(x), dtype=torch.bool)
    masks: list[tuple[str, Tensor]] = []
    for number, median in medians.items():
        if median > FAR * least:
            masks.append((NAMES[number], group == number))
        else:
            single |= (group == number) & (norms > FAR * median)
    masks += [("", single)] if bool(single.any()) else []
    total = float(energy.sum())
    return Sinks(
        tuple(
            Far(
                position,
                int(mask.sum()),
                float(norms[mask].median()) / least if least > 0 else math.inf,
                float(energy[mask].sum()) / total if total > 0 else 0.0,
            )
            for position, mask in masks
        )
    )


def _norms_and_energy(x: Tensor) -> tuple[Tensor, Tensor]:
    """‖x‖ and ‖x − x̄‖² of each token, [n] float64."""
    parts = range(0, len(x), CHUNK)
    mean = sum((x[at : at + CHUNK].double().sum(dim=0) for at in parts), torch.zeros(())) / len(x)
    norms = [x[at : at + CHUNK].double().norm(dim=1) for at in parts]
    energy = [(x[at : at + CHUNK].double() - mean).square().sum(dim=1) for at in parts]
    return torch.cat(norms), torch.cat(energy)


def save_sinks(sinks: Sinks, folder: Path) -> None:
    """Write them as JSON."""
    text = json.dumps([asdict(far) for far in sinks.far])
    (folder / "sinks.json").write_text(text, encoding="utf-8")


def load_sinks(folder: Path) -> Sinks:
    """Read what `save_sinks` has written."""
    stored = json.loads((folder / "sinks.json").read_text(encoding="utf-8"))
    return Sinks(tuple(Far(**far) for far in stored))
