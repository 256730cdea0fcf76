"""How much error do latents remove that seeds find and a smaller SAE lacks, beyond its floor?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from saebench_canon.questions.intervals import Component, Interval, student

Gains = Mapping[tuple[str, str, str], float]  # receiver, giver, witness


@dataclass(frozen=True)
class Gain:
    """The share of a smaller SAE's error that the latents it lacks remove, and the floor.

    The floor is the same between seeds of the larger SAE. `above` is the gain less the floor.
    """

    gain: float
    floor: float
    above: Interval


def gain_above_floor(gains: Gains, small: Sequence[str], large: Sequence[str]) -> Gain:
    """The mean gain over givers and witnesses, less that of another larger seed.

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
    """The mean of a receiver's gains over the pairs of a giver and a witness."""
    pairs = [(giver, witness) for giver in givers for witness in givers if giver != witness]
    return float(np.mean([gains[receiver, *pair] for pair in pairs]))
