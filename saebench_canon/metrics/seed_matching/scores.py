"""The scores of seed_matching, and what is said where one is undefined."""

from __future__ import annotations

from collections.abc import Iterator

from saebench_canon.plugin.metric import Score

GRADES = ("found_by_two", "found_by_one", "found_by_none")
CENTRED, CODES, ENCODER, NULL = "_centred", "_codes", "_encoder", "_null"
WAYS = ("", CENTRED, CODES, ENCODER)

NEEDS_DATA = "needs activations"
NEEDS_ENCODERS = "an SAE of the group has no linear encoder"
NEEDS_THREE = "it takes three seeds"
SHARED_DIRECTION = "no latent is more than the direction that rows share"
NOTHING_EXPLAINED = "the latents of an SAE of the group explain nothing"

BY = ("two other seeds", "one of two other seeds", "neither of two other seeds")
BETTER = ("higher", None, "lower")
HOW = {
    CENTRED: "without the mean of each SAE's rows",
    CODES: "by a latent whose codes correlate too",
    ENCODER: "by a latent whose encoder agrees too",
}


def scores_of_seeds() -> Iterator[Score]:
    """The scores, in the order of the tables' columns."""
    yield from _graded()
    yield Score(
        "shared_variance",
        better="higher",
        null="shared_variance_null",
        help="Share of the explained variance that latents found by two other seeds carry.",
        headline=True,
    )
    yield from _matched()
    yield Score(
        "subspace_overlap",
        better="higher",
        null="subspace_null",
        help="Overlap of spans of groups of latents that the other seed does not find.",
    )
    yield Score("shared_variance_null", help="The same of equally many latents drawn at random.")
    yield Score("subspace_null", help="The same of random rows of the same covariance.")


def _graded() -> Iterator[Score]:
    for name, by, better in zip(GRADES, BY, BETTER, strict=True):
        yield Score(
            name,
            better=better,  # type: ignore[arg-type]
            null=f"{name}{NULL}",
            help=f"Share of latents that are found by {by}.",
            headline=True,
        )
    for way, how in HOW.items():
        for name, better in zip(GRADES, BETTER, strict=True):
            yield Score(f"{name}{way}", better=better, help=f"{name}, {how}.")  # type: ignore[arg-type]
    for name in GRADES:
        yield Score(f"{name}{NULL}", help=f"{name} of random rows of the same mean and covariance.")


def _matched() -> Iterator[Score]:
    yield Score(
        "mcc",
        better="higher",
        null="null_mcc",
        help="Mean cosine of live decoder rows under the best one-to-one assignment.",
    )
    yield Score("mcc_abs", better="higher", help="The same with absolute cosines.")
    yield Score(
        "shared_share",
        better="higher",
        null="null_shared",
        help="Share of live latents whose counterpart agrees in decoder and encoder.",
        headline=True,
    )
    yield Score(
        "shared_share_strict",
        better="higher",
        help="Share of live latents with the same counterpart by decoders and by encoders.",
    )
    yield Score("mmcs", better="higher", help="Mean of each row's largest cosine, both directions.")
    yield Score(
        "coverage",
        better="higher",
        help="Share of rows whose largest cosine is above θ, both directions.",
    )
    yield Score(
        "code_correlation",
        better="higher",
        help="Mean correlation of matched latents' codes on the same tokens.",
    )
    yield Score("null_mcc", help="mcc of random rows of the same mean and covariance.")
    yield Score("null_isotropic", help="mcc of random rows of uniform direction.")
    yield Score("null_shared", help="shared_share of random rows and encoders, drawn together.")
