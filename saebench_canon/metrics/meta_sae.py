"""How far the decoder rows of one SAE decompose into a few shared directions (section 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError, nearest
from saebench_canon.scores import Mark, Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    from torch import Tensor

    from saebench_canon.kernels.codes import Codes
    from saebench_canon.kernels.meta_sae import Training
    from saebench_canon.sae import CanonicalSAE

Memo = Callable[[dict[str, Any], Callable[[], dict[str, float]]], dict[str, float]]


@dataclass(frozen=True)
class Preset:
    """Settings under a name; values compare within one only. `rows` is live rows per latent."""

    rows: float
    k: int
    steps: int
    batch: int
    lr: float


PRESETS = {"quarter": Preset(rows=4, k=4, steps=1500, batch=1024, lr=5e-4)}


@metric(
    of="sae",
    version=1,
    scores=[
        Score(
            "explained_variance",
            better="lower",
            null="null_covariance",
            help="Centred variance of the rows trained on that the meta-SAE explains.",
        ),
        Score("explained_variance_uncentred", help="The same about 0 instead of the mean row."),
        Score(
            "heldout_explained_variance",
            better="lower",
            null="heldout_null",
            help="Centred variance explained of rows kept out, by their largest k codes.",
        ),
        Score("heldout_null", help="The same on the covariance-matched random rows."),
        Score("null_isotropic", help="Explained variance of random rows of uniform direction."),
        Score("null_covariance", help="Explained variance of random rows of the same covariance."),
        Score("above_null", better="lower", help="explained_variance − null_covariance."),
        Score("meta_l0", digits=1, help="Mean number of meta-latents active on a row trained on."),
        Score("meta_dead_share", help="Share of meta-latents active on no row trained on."),
    ],
)
def meta_sae(
    sae: CanonicalSAE,
    seed: int,
    codes: Codes | None = None,
    memo: Memo | None = None,
    *,
    preset: str = "quarter",
    width: int | None = None,
    k: int | None = None,
    steps: int | None = None,
    batch: int | None = None,
    lr: float | None = None,
    holdout: float = 0.2,
    meta_seeds: int = 1,
) -> Measurement:
    """How far the decoder rows decompose into a few shared directions.

    A BatchTopK SAE is trained on the live decoder rows; `width`, `k`, `steps`, `batch` and `lr`
    are the preset's unless given. The width of the preset is a quarter of the live rows. Each of
    `meta_seeds` runs keeps its own share `holdout` of the rows out; scores are their means.
    """
    from saebench_canon.kernels import nulls
    from saebench_canon.kernels.meta_sae import Training
    from saebench_canon.kernels.seeds import generator

    if preset not in PRESETS:
        raise CanonError(f"meta_sae has no preset '{preset}'", hint=nearest(preset, PRESETS))
    if not 0 <= holdout < 1:
        raise CanonError(f"meta_sae: holdout = {holdout} is not a share of the rows below 1")
    rows = sorted_rows(sae.W_dec if codes is None else sae.W_dec[codes.live.to(sae.W_dec.device)])
    m, d = rows.shape
    if m == 0:
        return Measurement({each.name: Undefined("no latent is live") for each in meta_sae.scores})
    chosen = PRESETS[preset]
    how = Training(
        width=round(m / chosen.rows) if width is None else width,
        k=chosen.k if k is None else k,
        steps=chosen.steps if steps is None else steps,
        batch=chosen.batch if batch is None else batch,
        lr=chosen.lr if lr is None else lr,
    )
    for name, count in {**asdict(how), "meta_seeds": meta_seeds}.items():
        if name in ("width", "k", "steps", "batch", "meta_seeds") and count < 1:
            raise CanonError(f"meta_sae: {name} = {count} is not 1 or more")
    out = round(holdout * m)
    if out == 1 or m - out < 2:
        raise CanonError(
            f"meta_sae: holdout = {holdout} of {m} live decoder rows keeps {out} out and trains on "
            f"{m - out}, and it takes 2 of each",
            hint="Set another holdout, or 0 to keep none out.",
        )
    if how.width < 2 * how.k:
        raise CanonError(
            f"a meta-SAE of width {how.width} on {m} live decoder rows is narrower than 2k = "
            f"{2 * how.k}",
            hint="Set a larger width or a smaller k, or measure wider SAEs.",
        )
    runs: list[dict[str, float]] = []
    for run in range(meta_seeds):
        null = nulls.covariance_matched(rows, generator(seed, "meta_sae", run, "covariance"))
        own, other = _run([rows, null], how, holdout, seed, run)
        found = {**own, **{f"null {name}": value for name, value in other.items()}}
        found["above_null"] = own["explained_variance"] - other["explained_variance"]
        runs.append(found)

    def isotropic() -> dict[str, float]:
        values = []
        for run in range(meta_seeds):
            null = nulls.isotropic(m, d, generator(seed, "meta_sae", run, "isotropic"))
            values.append(_run([null], how, holdout, seed, run)[0]["explained_variance"])
        return {str(run): value for run, value in enumerate(values)}

    key = {"name": "meta_sae isotropic", "version": 1, "m": m, "d": d, "seed": seed}
    key |= {"training": asdict(how), "holdout": holdout, "meta_seeds": meta_seeds}
    random = isotropic() if memo is None else memo(key, isotropic)
    held = "no row is held out" if round(holdout * m) == 0 else "the rows held out do not vary"

    def mean(name: str, reason: str = "the decoder rows do not vary") -> Value | Undefined:
        return _mean([run[name] for run in runs], reason)

    return Measurement(
        scores={
            "explained_variance": mean("explained_variance"),
            "explained_variance_uncentred": mean("explained_variance_uncentred"),
            "heldout_explained_variance": mean("heldout_explained_variance", held),
            "heldout_null": mean("null heldout_explained_variance", held),
            "null_isotropic": _mean(list(random.values()), "the random rows do not vary"),
            "null_covariance": mean("null explained_variance"),
            "above_null": mean("above_null"),
            "meta_l0": mean("meta_l0"),
            "meta_dead_share": mean("meta_dead_share"),
        },
        marks=()
        if codes is not None
        else (Mark("note", "no activations: every latent counts as live"),),
    )


def sorted_rows(rows: Tensor) -> Tensor:
    """The rows [m, d] at unit norm, float32, in lexicographic order: permuted rows are the same."""
    import numpy as np
    import torch

    from saebench_canon.kernels.cosine import unit

    table = unit(rows.cpu()).float().numpy()
    return torch.from_numpy(table[np.lexsort(table.T[::-1])])


def _run(
    dictionaries: list[Tensor], how: Training, holdout: float, seed: int, run: int
) -> list[dict[str, float]]:
    """Train on each dictionary [m, d] alike; what was explained, nan where nothing varies."""
    import torch

    from saebench_canon.kernels.meta_sae import explained_variance, train
    from saebench_canon.kernels.seeds import generator

    rows = torch.stack([each.float() for each in dictionaries])
    m = rows.shape[1]
    order = torch.randperm(m, generator=generator(seed, "meta_sae", run, "holdout"))
    cut = round(holdout * m)
    kept, held = order[cut:].sort().values, order[:cut].sort().values
    seen, unseen = rows[:, kept], rows[:, held]
    of = "rows and their null" if len(rows) > 1 else "random rows"
    model = train(
        seen,
        how,
        generator(seed, "meta_sae", run, "training"),
        what=f"meta-SAE {how.width} of {m} {of}",
    )
    codes = model.encode(seen)
    rebuilt = model.decode(codes)
    centred = explained_variance(seen, rebuilt, centred=True)
    plain = explained_variance(seen, rebuilt, centred=False)
    heldout = [math.nan] * len(rows)
    if cut:
        guessed = model.decode(model.encode_largest(unseen, how.k))
        heldout = explained_variance(unseen, guessed, centred=True)
    return [
        {
            "explained_variance": centred[at],
            "explained_variance_uncentred": plain[at],
            "heldout_explained_variance": heldout[at],
            "meta_l0": float((codes[at] > 0).double().sum(dim=1).mean()),
            "meta_dead_share": float((codes[at] <= 0).all(dim=0).double().mean()),
        }
        for at in range(len(rows))
    ]


def _mean(values: list[float], reason: str) -> Value | Undefined:
    """The mean over meta-seeds; undefined when any of them is."""
    if not all(math.isfinite(value) for value in values):
        return Undefined(reason)
    count, middle = len(values), math.fsum(values) / len(values)
    if count == 1:
        return Value(middle, None, 1, "meta-seed")
    spread = math.fsum((value - middle) ** 2 for value in values) / (count - 1)
    return Value(middle, math.sqrt(spread / count), count, "meta-seed")
