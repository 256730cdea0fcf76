"""What figures, cards and commands look for in a metric: by the role it has, never by its name.

    @metric(scores=[…], of="pair", version=1, roles=("path",))

A metric with a role keeps tables and scores under the names that the role gives them, and is then
used as the built-in ones are. A table or score that a case cannot have may be absent there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Role:
    """What a metric with the role is of, what it keeps, and what that is used for."""

    of: str
    use: str
    tables: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # with the columns used
    scores: tuple[str, ...] = ()  # that the metric must declare
    optional: tuple[str, ...] = ()  # scores that are used as well where there are such


ROLES: Mapping[str, Role] = {
    "reconstruction": Role(
        "sae",
        "what `evaluate` measures where no metric is named, and `frankenstein` of what it saves",
        scores=("mse",),
    ),
    "path": Role(
        "pair",
        "`show --to` draws the way from each SAE to the next larger one",
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
