"""How much error do latents remove that seeds find and a smaller SAE lacks, beyond its floor?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saebench_canon.questions.intervals import Component, Interval, student

Gains = Mapping[tuple[str, str], float]  # by receiver and giver, a mean over witnesses
Documents = Mapping[
    tuple[str, str], tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
]  # by receiver and giver: numbers of documents, their errors, and how much of these goes


@dataclass(frozen=True)
class Gain:
    """The share of a smaller SAE's error that the latents it lacks remove, and the floor.

    The floor is the same between seeds of the larger SAE. `above` is the gain less the floor.
    """

    gain: float
    floor: float
    above: Interval


def gain_above_floor(gains: Gains, small: Sequence[str], large: Sequence[str]) -> Gain:
    """The mean gain over givers, less that of another larger seed.

    A gain is of the giver's latents that are missing in the receiver and found in the witness. The
    giver and the witness are two larger SAEs. The interval is over the receivers, small and large.
    """
    by_small = [_received(gains, one, large) for one in small]
    by_large = [_received(gains, one, [seed for seed in large if seed != one]) for one in large]
    components = [
        Component(float(np.var(receivers, ddof=1)) / len(receivers), len(receivers))
        for receivers in (by_small, by_large)
        if len(receivers) > 1
    ]
    gain, floor = float(np.mean(by_small)), float(np.mean(by_large))
    return Gain(gain, floor, student(gain - floor, components))


def _received(gains: Gains, receiver: str, givers: Sequence[str]) -> float:
    """The mean of a receiver's gains over givers."""
    return float(np.mean([gains.get((receiver, giver), math.nan) for giver in givers]))


def gain_both_ways(documents: Documents, smaller: str, larger: str) -> Interval | None:
    """What the larger's latents remove of the smaller's error less the reverse (rule B).

    Paired by documents: the delta method's standard error of the difference of two ratios, and
    Student's t over the documents that both were scored on. None where one was not measured.
    """
    there, back = documents.get((smaller, larger)), documents.get((larger, smaller))
    if there is None or back is None or len(there[0]) < 2:
        return None
    spread = np.zeros(len(there[0]))
    value = 0.0
    for sign, (_, error, removed) in ((1, there), (-1, back)):
        share = float(removed.sum() / error.sum())
        value += sign * share
        spread += sign * (removed - share * error) / error.sum()
    moved = spread[spread != 0]
    count = max(len(moved), 2)
    variance = count / (count - 1) * float((moved**2).sum())
    return student(value, [Component(variance, count, seeds=False)])
