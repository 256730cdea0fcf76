"""Whether a larger SAE's latents are sums of a smaller one's (Leask et al. 2025, section 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.metrics.composition.cost import cost
from saebench_canon.plugin.metric import Mark, Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    from torch import Tensor

    from saebench_canon.kernels.codes import Codes
    from saebench_canon.kernels.nnomp import Pursuit
    from saebench_canon.plugin.sae import CanonicalSAE

PLANTED = 1024  # sums to be found again, and rows of a null, at most
PURPOSES = ("parent", "covariance", "planted", "clusters")
CLUSTERED = 4096  # rows of a dictionary of clusters that are looked at, at most
PARENTS = (16, 8)  # rows for each parent of the dictionaries of clusters
TOO_FEW = f"fewer than {min(PARENTS)} large latents are live"
FEWEST = 3  # small rows that sums can be planted of


@metric(
    of="pair",
    version=1,
    cost=cost,
    roles=("sums",),
    scores=[
        Score(
            "composed_share",
            better="lower",
            null="composed_null",
            help="Share of live large latents that are sums of live small ones.",
            headline=True,
        ),
        Score("composed_null", help="What chance makes of it: the highest of the three below."),
        Score(
            "composed_null_parent",
            help="The share with each row's best atom kept and its rest redrawn.",
        ),
        Score("composed_null_covariance", help="The share of random rows of the same covariance."),
        Score("composed_null_clusters", help="The share of rows that each vary one parent."),
        Score(
            "composed_excess",
            better="lower",
            help="(composed_share − composed_null) / (1 − composed_null).",
            headline=True,
        ),
        Score("composed_least", help="Share of a sum that had to be explained; raised by chance."),
        Score(
            "planted_recall",
            better="higher",
            help="Share of planted noisy sums of two or three small rows that are found.",
            headline=True,
        ),
        Score(
            "explained_variance",
            better="lower",
            null="null_covariance",
            help="Centred variance of the large rows that up to 4 small ones explain.",
        ),
        Score("null_covariance", help="The same of random rows of the same covariance."),
    ],
)
def composition(
    small: CanonicalSAE,
    large: CanonicalSAE,
    small_codes: Codes | None = None,
    large_codes: Codes | None = None,
    seed: int = 0,
    *,
    atoms: int = 4,
    least: float = 0.6,
    gain: float = 0.2,
    chance: float = 0.05,
) -> Measurement:
    """Whether a larger SAE's latents are sums of a smaller one's.

    Each live large decoder row is fitted by at most `atoms` live small ones with weights ≥ 0. It
    is a sum iff they explain at least `least` of it, and by `gain` more than the best one alone;
    `least` is raised where more than `chance` of a null's rows would be sums.
    """
    import pandas as pd
    import torch

    from saebench_canon.kernels import nulls
    from saebench_canon.kernels.composition import (
        Rule,
        explained_beside_null,
        one_parent,
        planted_sums,
        variance_explained,
    )
    from saebench_canon.kernels.nnomp import pursue
    from saebench_canon.kernels.seeds import generator
    from saebench_canon.metrics.shared.live_rows import live_rows
    from saebench_canon.metrics.shared.sums import (
        WHOLE,
        beyond,
        check_rule,
        largest,
        or_undefined,
    )

    rule = Rule(atoms, least, gain, chance)
    check_rule("composition", rule)
    below, above = live_rows(small, small_codes), live_rows(large, large_codes)
    marks: tuple[Mark, ...] = ()
    if small_codes is None or large_codes is None:
        marks = (Mark("note", "no activations: every latent counts as live"),)
    if len(below) == 0 or len(above) == 0:
        reason = f"no latent of the {'smaller' if len(below) == 0 else 'larger'} SAE is live"
        return Measurement({s.name: Undefined(reason) for s in composition.scores}, marks=marks)

    draws = [generator(seed, "composition", name) for name in PURPOSES]
    own, parent = explained_beside_null(above.rows, below.rows, atoms, draws[0])
    drawn = nulls.covariance_matched(above.rows, draws[1], count=min(len(above), PLANTED))
    random = pursue(drawn.float(), below.rows, count=atoms)
    some = torch.randperm(len(above), generator=draws[3])[:CLUSTERED]
    parents = [len(above) // each for each in PARENTS if len(above) >= each]
    varied = [one_parent(above.rows, count, draws[3])[some].float() for count in parents]
    clustered = [pursue(rows, below.rows, count=atoms) for rows in varied]
    rule = rule.raised(each.explained for each in (parent, random, *clustered))

    def share(found: Pursuit) -> float | Undefined:
        if not rule.possible:
            return Undefined(WHOLE)
        return float(rule.holds(found.explained).double().mean())

    recall: float | Undefined = Undefined(f"fewer than {FEWEST} small latents are live")
    if len(below) >= FEWEST:
        planted = planted_sums(below.rows, PLANTED, draws[2]).float()
        recall = share(pursue(planted, below.rows, count=atoms))

    def explained(rows: Tensor, found: Pursuit) -> float | Undefined:
        value = variance_explained(rows, found)
        return or_undefined(value, "the larger SAE's rows do not vary")

    chance_makes = {
        "parent": share(parent),
        "covariance": share(random),
        "clusters": largest([share(each) for each in clustered], TOO_FEW),
    }
    null = largest(list(chance_makes.values()), WHOLE)
    scores: dict[str, float | Value | Undefined] = {
        "composed_share": share(own),
        "composed_null": null,
        **{f"composed_null_{name}": each for name, each in chance_makes.items()},
        "composed_excess": beyond(share(own), null),
        "composed_least": rule.least,
        "planted_recall": recall,
        "explained_variance": explained(above.rows, own),
        "null_covariance": explained(drawn, random),
    }
    rows, places = torch.nonzero(own.atoms >= 0, as_tuple=True)
    table = pd.DataFrame({
        "latent": above.latents[rows].numpy(),
        "atom": below.latents[own.atoms[rows, places]].numpy(),
        "weight": own.weights[rows, places].double().numpy(),
        "explained": own.explained[rows, places].double().numpy(),
        "composed": rule.holds(own.explained)[rows].numpy(),
    })  # fmt: skip
    table = table.sort_values("latent", kind="stable", ignore_index=True)
    return Measurement(scores, {"latents": table}, marks)
