"""What measuring costs: multiply-adds, seconds that no size explains, and bytes at the peak.

Constants were fitted to the records of a quickstart on two quiet cores that do 52e9 float32
multiply-adds a second each in numpy, and to single cases at d = 768 (GPT-2; SAEs of 1,536 and
6,144 latents on 16,384 tokens). docs/suites.md says how well they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

from saebench_canon.plugin.data import DataSize, ModelSize

START = 6.0  # seconds in which a worker imports torch and transformers
BASE = 1000 * 2**20  # bytes of a worker that has imported them and mapped its activations
READ_TEXT = 2e-5  # seconds a token to read and tokenise
LM_FACTOR = 1.8  # seconds of a forward pass over those of its products (tiny-lm, GPT-2)
DOUBLE = 2.0  # float64 over float32
SPARSE = 10.0  # a multiply-add of sparse codes over one of a product of matrices
TRAIN_STEP = 1.9e-3  # seconds of a training step besides its products
TRAIN_FACTOR = 2.7  # multiply-adds of a step over batch x d x width
META_STEP = 0.45e-3  # seconds of a meta-SAE's step besides what grows with its size
META_SELECT = 2e-9  # seconds a code that the selection looks at
META_ADAM = 8e-9  # seconds a parameter of Adam's update
META_FITS = 3  # the rows, their covariance's null and isotropic rows
TESTED_FITS = 4  # the rows, two nulls and planted sums, less what is near rows kept out
CLUSTER_TURNS = 25  # of k-means
PLANTED = 1024  # sums, and rows of a null, that are looked for among small rows
META_LEVELS = 50  # batches over which a meta-SAE's threshold is averaged
NEAREST = 1.5e-8  # seconds a cosine, besides its product, where the largest is looked for
ASSIGN = 1.7e-9  # seconds x rows^2.5 of an assignment, of random unit rows (512 to 2048)
PATH_PAIR = 5e-8  # seconds a pair of latents active on one token, in the path
FIT_PAIR = 4e-9  # seconds x d a pair of latents, in the fit of best scales
FIT_MOST = 2**28  # pairs at most
FIT_BLOCK = 2**24  # numbers of pairs of rows that the fit of scales gathers at once
TURNS = 25  # of matching a null's covariance
EIGH = 10.0  # multiply-adds of an eigendecomposition over d^3
NULL_ROWS = 4  # tables of decoder rows in float64 that a null holds at once
COSINES = 2**24 * 4  # bytes of cosines held at once
CHUNK = 8192  # tokens of a pass in float64
WINDOWS = 4096  # tokens of a batch of windows, and of codes


@dataclass(frozen=True)
class Work:
    """Multiply-adds, and seconds that do not come from them."""

    products: float = 0.0
    fixed: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.products + other.products, self.fixed + other.fixed)

    def times(self, count: float) -> Work:
        """The same so many times."""
        return Work(self.products * count, self.fixed * count)

    def seconds(self, speed: float) -> float:
        """Seconds at so many multiply-adds a second."""
        return self.products / speed + self.fixed


@dataclass(frozen=True)
class Dictionary:
    """An SAE whose size is known."""

    d: int
    width: int
    l0: float


def extraction(data: DataSize, tokens: int, model: ModelSize) -> Work:
    """Reading the text and running the model up to the hook."""
    body = model.parameters - model.vocabulary * model.d
    return Work(LM_FACTOR * tokens * body * data.reach, READ_TEXT * tokens)


def losses(data: DataSize, model: ModelSize, passes: int) -> Work:
    """Whole forward passes over the tokens that losses use."""
    tokens = min(data.loss_tokens, data.scored or data.loss_tokens)
    return Work(LM_FACTOR * passes * tokens * model.parameters)


def encoding(n: int, sae: Dictionary) -> Work:
    """Codes of n tokens."""
    return Work(n * sae.d * sae.width, 3e-9 * n * sae.width)


def training(sae: Dictionary, settings: Mapping[str, Any]) -> Work:
    """Training on as many tokens as the settings say."""
    tokens, batch = settings.get("tokens", 0), settings.get("batch_size", 1024)
    return Work(TRAIN_FACTOR * tokens * sae.d * sae.width, TRAIN_STEP * tokens / batch)


def fidelity(n: int, saes: Sequence[Dictionary], settings: Mapping[str, Any]) -> Work:
    """Covariance, reconstruction and the search for duplicates."""
    (sae,) = saes
    passes = DOUBLE * 2 * n * sae.d**2 + SPARSE * n * sae.l0 * sae.d
    return Work(passes + EIGH * sae.d**3 + sae.width**2 * sae.d, 0.08)


def stitching(n: int, saes: Sequence[Dictionary], settings: Mapping[str, Any]) -> Work:
    """Cosines and pursuits of the rows and their null, the path, and the fit of best scales."""
    small, large = saes
    d, both = large.d, small.width + large.width
    rows = 3 * (2 + settings.get("span_atoms", 4)) * small.width * large.width * d
    path = DOUBLE * both**2 * d if n else 0
    shared = PATH_PAIR * n * (small.l0 + large.l0) ** 2
    fits = 2 * FIT_PAIR * _pairs(n, large) * d
    return Work(rows + path, 0.8 + shared + fits) + _null(large.width, d).times(2)


def stitching_loss(n: int, saes: Sequence[Dictionary], settings: Mapping[str, Any]) -> Work:
    """The graph; what its points take is `spliced`."""
    small, large = saes
    return Work(small.width * large.width * large.d, 0.1)


def spliced(
    data: DataSize, model: ModelSize, saes: Sequence[Dictionary], settings: Mapping[str, Any]
) -> Work:
    """A forward pass and both SAEs' codes at every point but the ends, and at one besides."""
    points = settings.get("points", 2) - 1
    tokens = min(data.loss_tokens, data.scored or data.loss_tokens)
    codes = sum((encoding(tokens, sae) for sae in saes), Work())
    return losses(data, model, points) + codes.times(points)


def _pairs(n: int, large: Dictionary) -> float:
    """Pairs of latents that the fit of best scales looks at, on half of the documents."""
    return min(n / 2 * large.l0**2, large.width**2, FIT_MOST)


def meta_sae(n: int, saes: Sequence[Dictionary], settings: Mapping[str, Any]) -> Work:
    """Training on the rows, all and some, on their nulls, and on rows with planted sums."""
    (sae,) = saes
    width, steps, batch = _meta(sae.width, settings)
    after = Work(2 * sae.width * width * sae.d)
    if settings.get("meta") is not None:
        return after
    fit = _meta_steps(sae.width, sae.d, width, batch).times(steps) + after
    tested = settings.get("composition", True) and settings.get("holdout", 0.2) > 0
    runs = fit.times(META_FITS + (TESTED_FITS if tested else 0)) + _null(sae.width, sae.d)
    clusters = Work(DOUBLE * CLUSTER_TURNS * sae.width * width * sae.d)
    return runs.times(settings.get("meta_seeds") or 1) + fit + clusters


def composition(n: int, saes: Sequence[Dictionary], settings: Mapping[str, Any]) -> Work:
    """Pursuit of the large rows and of their nulls among the small ones."""
    small, large = saes
    steps, d = settings.get("atoms", 4), large.d
    rows = 2 * large.width + 2 * min(large.width, PLANTED)
    return Work(rows * steps * small.width * d, 0.05) + _null(large.width, d)


def meta_replace(n: int, saes: Sequence[Dictionary], settings: Mapping[str, Any]) -> Work:
    """Training on the rows, the encoder's training, cosines within and between dictionaries."""
    small, large = saes
    width, steps, batch = _meta(large.width, settings)
    m, d = large.width, large.d
    published = settings.get("meta") is not None
    count = (0 if published else steps) + 2 * (settings.get("refit_steps") or steps)
    read = DOUBLE * (settings.get("draws", 4) + 4) * SPARSE * 4 * m * d
    rows = (m + DOUBLE * small.width) * m * d + 3 * m * width * d
    fits = _meta_steps(m, d, width, batch).times(count)
    levels = Work(2 * META_LEVELS * batch * width * d if m > batch else 0)
    seen = NEAREST * m * (m + small.width)
    return fits + levels + Work(rows + read, 0.1 + seen) + _null(width, d) + _null(small.width, d)


def meta_ladder(n: int, saes: Sequence[Dictionary], settings: Mapping[str, Any]) -> Work:
    """Training on all rows and on their null."""
    m, d = sum(sae.width for sae in saes), saes[0].d
    width, steps, batch = _meta(m, settings)
    fit = _meta_steps(m, d, width, batch).times(steps) + Work(2 * m * width * d)
    return sum((_null(sae.width, d) for sae in saes), fit.times(2))


def _meta_steps(m: int, d: int, width: int, batch: int) -> Work:
    """A step of a meta-SAE's training on m rows."""
    size = min(batch, m)
    adam = META_ADAM * 2 * width * d
    return Work(size * width * d, META_STEP / 2 + META_SELECT * size * width + adam)


def _meta(m: int, settings: Mapping[str, Any]) -> tuple[int, int, int]:
    """Width, steps and batch of a meta-SAE of m rows."""
    from saebench_canon.metrics.meta_sae.presets import PRESETS

    preset = PRESETS.get(settings.get("preset", "quarter"), PRESETS["quarter"])
    batch = settings.get("batch") or preset.batch
    return (
        settings.get("width") or preset.width_for(m),
        settings.get("steps") or preset.steps_for(m, batch),
        batch,
    )


def _null(m: int, d: int) -> Work:
    """Random rows of a dictionary's mean and covariance."""
    return Work(DOUBLE * TURNS * (2 * m * d**2 + EIGH * d**3))


def seed_matching(n: int, saes: Sequence[Dictionary], settings: Mapping[str, Any]) -> Work:
    """Assignments of each pair and of its nulls; none where there are too many latents."""
    m, d = max(sae.width for sae in saes), saes[0].d
    if m > settings.get("exact_up_to", 8192):
        return Work(fixed=0.1)
    pairs = comb(len(saes), 2)
    each = Work(DOUBLE * 5 * m**2 * d, 8 * ASSIGN * m**2.5 + 1e-7 * n * saes[0].l0)
    return each.times(pairs) + _null(m, 2 * d).times(len(saes)) + Work(fixed=0.5)


METRICS: Mapping[str, Callable[[int, Sequence[Dictionary], Mapping[str, Any]], Work]] = {
    "fidelity": fidelity,
    "stitching": stitching,
    "stitching_loss": stitching_loss,
    "meta_sae": meta_sae,
    "composition": composition,
    "meta_replace": meta_replace,
    "meta_ladder": meta_ladder,
    "seed_matching": seed_matching,
}


def peak(metric: str, n: int, saes: Sequence[Dictionary], settings: Mapping[str, Any]) -> float:
    """Bytes that a metric takes at its peak, besides the SAEs and codes that it is given."""
    large = max(saes, key=lambda sae: sae.width)
    m, d = large.width, large.d
    tables = 8 * m * d
    match metric:
        case "fidelity":
            return float(COSINES + tables + 8 * 4 * CHUNK * d)
        case "stitching":
            fit = 2 * 4 * min(FIT_BLOCK, d * _pairs(n, large))
            return COSINES + 4 * tables + max(fit, 8 * 5 * CHUNK * d if n else 0)
        case "meta_sae":
            width, _, batch = _meta(m, settings)
            learning = 4 * TESTED_FITS * (4 * 2 * width * d + 2 * min(batch, m) * width)
            return (NULL_ROWS + TESTED_FITS) * tables + learning
        case "meta_replace" | "meta_ladder":
            rows = m if metric == "meta_replace" else sum(sae.width for sae in saes)
            width, _, batch = _meta(rows, settings)
            learning = 4 * (4 * 2 * width * d + 2 * min(batch, rows) * width)
            return 3 * 8 * rows * d + max(2.0 * COSINES, learning)
        case "seed_matching":
            if m > settings.get("exact_up_to", 8192):
                return 0
            return float(5 * 8 * m**2 + len(saes) * 4 * tables)
        case _:
            return float(tables)


def codes_bytes(n: int, sae: Dictionary) -> float:
    """Codes of n tokens in memory."""
    return n * (8 + 8 * sae.l0)


def encoding_bytes(sae: Dictionary) -> float:
    """A batch of dense codes and its selection."""
    return 2 * 4 * WINDOWS * sae.width


def training_bytes(sae: Dictionary, batch: int) -> float:
    """Parameters, gradients and Adam's two moments, and a batch of codes."""
    return 4 * (4 * 2 * sae.d * sae.width + 4 * batch * sae.width)


def model_bytes(model: ModelSize, item: int) -> float:
    """A language model's weights, and the logits of a batch of windows."""
    return item * model.parameters + 2 * 4 * WINDOWS * model.vocabulary
