"""How much less error an SAE makes with the latents that it lacks and that are found again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from saebench_canon.metrics.comparison.settings import Cosines
from saebench_canon.metrics.insertion.cost import cost
from saebench_canon.metrics.shared.pairs import CodedPair
from saebench_canon.plugin.metric import Measurement, Score, Undefined, Value, metric

if TYPE_CHECKING:
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.activations import Acts
    from saebench_canon.plugin.sae import CanonicalSAE

Number = float | Value | Undefined
CENTRED = "_centred"


@metric(
    of="pair",
    version=1,
    cost=cost,
    scores=[
        Score(
            "stable_gain",
            better="lower",
            help="Relative drop of the smaller SAE's MSE when the larger's latents that it lacks, "
            "and that a witness finds too, are added at their best scales, on documents that the "
            "scales were not fitted on; mean over witnesses.",
            headline=True,
        ),
        Score("stable_gain_centred", help="The same where rows are compared without their mean."),
        Score("inserted", digits=1, help="Number of latents added, mean over witnesses."),
        Score("inserted_centred", digits=1, help="The same where rows are compared centred."),
        Score("small_mse_rescaled", better="lower", help="MSE of the smaller SAE when all its "
              "codes are multiplied by their best factor."),
        Score("large_mse_rescaled", better="lower", help="The same of the larger SAE."),
    ],
)  # fmt: skip
def insertion(
    both: CodedPair,
    acts: Acts,
    peers: tuple[CanonicalSAE, ...] = (),
    peers_codes: tuple[Codes, ...] | None = None,
    *,
    atoms: int = 4,
    cosines: Cosines = Cosines(),
) -> Measurement:
    """How much less error an SAE makes with latents of another that it lacks (ours).

    Witnesses are the peers: for each, the larger's latents that are missing in the smaller (not
    found at the cosine `threshold`, and with more than `residual` left over by `atoms` of its rows,
    cancelling fits apart, `gate`) and found in the witness are added to the smaller SAE, each at
    its best non-negative scale, fitted on every other document. The smaller SAE's codes are
    multiplied by their best factor. Duplicates' codes add up. "Smaller" is the SAE named first.
    """
    from saebench_canon.metrics.insertion.sets import chosen_by_witness
    from saebench_canon.metrics.insertion.stitched import Receiver
    from saebench_canon.metrics.shared.dictionary import dictionary_of

    cosines.check()
    small = dictionary_of(both.small, both.small_codes)
    large = dictionary_of(both.large, both.large_codes)
    receiver = Receiver.of(both.small, both.small_codes, acts)
    giver = Receiver.of(both.large, both.large_codes, acts)
    scores: dict[str, Number] = {
        "small_mse_rescaled": receiver.mse, "large_mse_rescaled": giver.mse,
    }  # fmt: skip
    reason = ""
    if not peers:
        reason = "needs witnesses: other SAEs that may find the same latents"
    elif len(small) == 0 or len(large) == 0:
        reason = f"no latent of the {'smaller' if len(small) == 0 else 'larger'} SAE is live"
    elif receiver.exact:
        reason = "the smaller SAE makes no error"
    elif receiver.documents < 2:
        reason = "one document: none is left to score the scales on"
    if reason:
        names = ("stable_gain", "inserted", "stable_gain_centred", "inserted_centred")
        return Measurement({**scores, **{name: Undefined(reason) for name in names}})
    codes_of_peers = peers_codes or (None,) * len(peers)
    witnesses = [
        dictionary_of(sae, codes) for sae, codes in zip(peers, codes_of_peers, strict=True)
    ]
    chosen = chosen_by_witness(small, large, witnesses, atoms, cosines)
    codes = large.merged(both.large_codes)
    gains = receiver.gains(codes, both.large.W_dec, chosen)
    scores |= {"stable_gain": gains.value, "inserted": gains.count}
    tables = {"documents": gains.documents}
    if any(dictionary.shares_direction for dictionary in (small, large, *witnesses)):
        views = [dictionary.centred() for dictionary in (small, large, *witnesses)]
        chosen = chosen_by_witness(views[0], views[1], views[2:], atoms, cosines)
        centred = receiver.gains(codes, both.large.W_dec, chosen)
        scores |= {"stable_gain_centred": centred.value, "inserted_centred": centred.count}
        tables["documents"] = tables["documents"].join(
            centred.documents[["removed"]].add_suffix(CENTRED)
        )
    else:
        alike = Undefined("no SAE's rows share a direction")
        scores |= {"stable_gain_centred": alike, "inserted_centred": alike}
    return Measurement(scores, tables)
