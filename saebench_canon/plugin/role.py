"""Roles, by which figures, cards and commands find the metric that they use.

    @metric(scores=[…], of="pair", version=1, roles=("path",))

A metric with a role has the tables and scores of the role, and is used like a built-in one. A
table or score that a case cannot have may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Role:
    """The subject, tables and scores of a metric with the role, and their use."""

    of: str
    use: str
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # with the columns used
    scores: tuple[str, ...] = ()  # that the metric must declare
    optional: tuple[str, ...] = ()  # scores that are also used, if the metric has them


ROLES: Mapping[str, Role] = {
    "reconstruction": Role(
        "sae",
        "what `evaluate` measures by default, and `frankenstein` of the SAE that it saves",
        scores=("mse",),
    ),
    "path": Role(
        "pair",
        "`show --to` draws the path from each SAE to the next larger one",
        tables={"path": ("order", "seed", "phase", "latents_in", "mse", "l0")},
    ),
    "additions": Role(
        "pair",
        "`frankenstein` adds the large latents that lower the MSE alone",
        tables={"latents": ("latent", "max_cos", "delta_mse_fixed_bias")},
        scores=("small_mse",),
    ),
    "meta_latents": Role(
        "sae",
        "cards list the meta-latents of a latent, and the latents of a meta-latent",
        tables={
            "decomposition": ("latent", "meta_latent", "weight"),
            "latents": ("latent", "explained"),
            "meta_latents": ("meta_latent",),
        },
        optional=(
            "explained_variance", "null_covariance", "heldout_explained_variance", "heldout_null",
            "composed_share", "composed_null", "composed_excess",
        ),
    ),
    "sums": Role(
        "pair",
        "cards show a latent as a sum of a smaller SAE's",
        tables={"latents": ("latent", "atom", "weight", "explained")},
        scores=("composed_share",),
        optional=("composed_null", "composed_excess"),
    ),
}  # fmt: skip
