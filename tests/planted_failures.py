"""SAEs of a hierarchy whose failures are planted by hand: composed, missing, duplicate …

Rows lie at .93 to the features, every latent misses a tenth of its tokens and fires on others.
`python tests/planted_failures.py` prints the confusion table of docs/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saebench_canon.data.worlds.firing import Hierarchy
from saebench_canon.kernels.codes import Codes
from saebench_canon.kernels.cosine import unit
from saebench_canon.metrics.truth.metric import truth
from saebench_canon.plugin.metric import Measurement
from saebench_canon.plugin.sae import CanonicalSAE, LinearEncoder
from saebench_canon.plugin.world import TrueFeatures

TOKENS = 8192
MISSES, FALSE = 0.1, 0.002  # share of its tokens that a latent misses, of others where it fires
KINDS = ("composed", "missing", "duplicate", "split", "absorbed")


@dataclass
class Planted:
    """Rows and dense codes of an SAE in the making, and what was done to which features."""

    features: TrueFeatures
    fires: Tensor  # [n, F]
    chance: torch.Generator
    rows: list[Tensor] = field(default_factory=list)
    codes: list[Tensor] = field(default_factory=list)
    fates: dict[int, str] = field(default_factory=dict)  # of features
    duplicates: int = 0

    def add(self, row: Tensor, codes: Tensor, *, cosine: float = 0.93) -> None:
        """A latent whose row lies at this cosine to the given one."""
        row = unit(row[None])[0]
        aside = torch.randn(len(row), generator=self.chance, dtype=torch.float64)
        aside = unit((aside - (aside @ row) * row)[None])[0]
        self.rows.append(cosine * row + (1 - cosine**2) ** 0.5 * aside)
        lot = torch.rand(len(codes), generator=self.chance)
        self.codes.append(torch.where(codes > 0, codes * (lot > MISSES), (lot < FALSE).float()))

    def sae(self) -> tuple[CanonicalSAE, Codes]:
        """The SAE, and its codes of the tokens."""
        rows = torch.stack(self.rows).float()
        order = torch.randperm(len(rows), generator=self.chance)
        codes = Codes.from_dense(torch.stack(self.codes, dim=1).float()[:, order])
        rows = unit(rows[order]).float()
        bias = torch.zeros(len(rows))
        encoder = LinearEncoder(rows.T.contiguous(), bias, "relu")
        return CanonicalSAE(rows, torch.zeros(rows.shape[1]), encoder), codes


def world(seed: int) -> tuple[TrueFeatures, Tensor]:
    """Twenty parents with two children each, and the codes of every token."""
    made = Hierarchy("hierarchy", d=96, features=60, children=2, l0=4.0, zipf=0.3, seed=seed)
    codes = torch.cat([block.codes.dense() for block in made.blocks(TOKENS, "scored")])
    known = TrueFeatures(made.rows(), Codes.from_dense(codes), made.parents(), made.names())
    return known, codes


def plant(kind: str | None, count: int = 8, seed: int = 0) -> Planted:
    """An SAE that finds every feature, except that one failure is planted `count` times."""
    features, fires = world(seed)
    made = Planted(features, fires, torch.Generator().manual_seed(seed + 1))
    order = torch.randperm(len(features), generator=made.chance).tolist()
    parents = [feature for feature in order if int(features.parents[feature]) < 0]
    chosen = {
        "absorbed": parents[:count],
        # parts of one sum that do not fire together anyway, and that are not each other's parents
        "composed": parents[:count],
    }.get(kind or "", order[:count] if kind else [])
    for feature in range(len(features)):
        if feature not in chosen or kind == "duplicate":
            made.add(features.rows[feature].double(), fires[:, feature])
    if kind is not None:
        PLANT[kind](made, chosen)
    return made


def _composed(made: Planted, chosen: list[int]) -> None:
    for first, second in zip(chosen[::2], chosen[1::2], strict=True):
        rows = made.features.rows.double()
        made.add(rows[first] + rows[second], made.fires[:, first] + made.fires[:, second])
        made.fates |= dict.fromkeys((first, second), "composed")


def _missing(made: Planted, chosen: list[int]) -> None:
    made.fates |= dict.fromkeys(chosen, "missing")


def _duplicate(made: Planted, chosen: list[int]) -> None:
    for feature in chosen:
        made.add(made.features.rows[feature].double(), made.fires[:, feature], cosine=0.94)
        made.duplicates += 1


def _split(made: Planted, chosen: list[int]) -> None:
    for feature in chosen:
        piece = torch.randint(3, (len(made.fires),), generator=made.chance)
        for number in range(3):
            codes = made.fires[:, feature] * (piece == number)
            made.add(made.features.rows[feature].double(), codes, cosine=0.8)
        made.fates[feature] = "split"


def _absorbed(made: Planted, chosen: list[int]) -> None:
    for parent in chosen:
        child = int((made.features.parents == parent).nonzero()[0, 0])
        codes = made.fires[:, parent] * (made.fires[:, child] == 0)
        made.add(made.features.rows[parent].double(), codes, cosine=0.85)
        made.fates[parent] = "absorbed"


PLANT: dict[str, Callable[[Planted, list[int]], None]] = {
    "composed": _composed, "missing": _missing, "duplicate": _duplicate, "split": _split,
    "absorbed": _absorbed,
}  # fmt: skip


def measured(made: Planted, seed: int = 0, draws: int = 1) -> Measurement:
    """What `truth` says of it."""
    sae, codes = made.sae()
    result = truth.measure(sae, codes, made.features, seed, draws=draws)
    assert isinstance(result, Measurement)
    return result


@dataclass(frozen=True)
class Found:
    """Of what was planted, how much each fate was given to; and of each fate, how much was so."""

    counts: dict[str, int]  # features (or latents, of duplicates) with each fate
    right: int
    planted: int

    @property
    def recall(self) -> float:
        """Share of the planted ones that are found."""
        return self.right / max(self.planted, 1)


def found(kind: str | None, seed: int = 0) -> Found:
    """The fates that `truth` gives where one failure is planted."""
    made = plant(kind, seed=seed)
    tables = measured(made).tables
    fates = dict(zip(tables["features"]["feature"], tables["features"]["fate"], strict=True))
    counts = {name: sum(fate == name for fate in fates.values()) for name in KINDS}
    counts["duplicate"] = int((tables["latents"]["fate"] == "duplicate").sum())
    if kind == "duplicate":
        return Found(counts, min(counts["duplicate"], made.duplicates), made.duplicates)
    right = sum(fates[feature] == fate for feature, fate in made.fates.items())
    return Found(counts, right, len(made.fates))


def main() -> None:
    """Print the confusion table over five worlds."""
    print(f"| planted | {' | '.join(KINDS)} | recall | precision |")
    print(f"|---|{'--:|' * (len(KINDS) + 2)}")
    for kind in (*KINDS, None):
        results = [found(kind, seed) for seed in range(5)]
        counts = {name: sum(result.counts[name] for result in results) for name in KINDS}
        planted = sum(result.planted for result in results)
        right = sum(result.right for result in results)
        title = "nothing" if kind is None else f"{kind}, {planted}"
        cells = [str(counts[name]) for name in KINDS]
        if kind is None:
            cells += ["", ""]
        else:
            cells += [f"{right / planted:.2f}", f"{right / max(counts[kind], 1):.2f}"]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
