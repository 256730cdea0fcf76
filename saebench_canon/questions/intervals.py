"""Within which interval does a share lie, and how many seeds would narrow it enough? (ours)"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from saebench_canon.tables.stats import LEVEL, jackknife_stderr

POWER = 0.8
FEWEST, MOST = 3, 100  # seeds of a width: fewer give no interval, and nobody trains more
ROUNDING = 1e-12  # a standard error up to which all replicates are equal


@dataclass(frozen=True)
class Component:
    """A part of an estimate's variance: how large it is, and the units that it was found from."""

    variance: float
    units: float
    seeds: bool = True  # whether more seeds make it smaller; more latents cannot be had


@dataclass(frozen=True)
class Interval:
    """A value between two ends. One that is found from variance components has them."""

    value: float
    lo: float
    hi: float
    components: tuple[Component, ...] = ()

    @property
    def stderr(self) -> float:
        return satterthwaite(self.components)[0]

    def above(self, limit: float) -> float:
        """How far the lower end is above a limit, in standard errors."""
        return _in_errors(self.lo - limit, self)

    def below(self, limit: float) -> float:
        """How far the upper end is below a limit, in standard errors."""
        return _in_errors(limit - self.hi, self)

    @property
    def df(self) -> float:
        return satterthwaite(self.components)[1]


def _in_errors(distance: float, interval: Interval) -> float:
    """A distance over the interval's standard error; without components over a normal one's."""
    error = interval.stderr or (interval.hi - interval.lo) / (2 * quantile((1 + LEVEL) / 2))
    if not math.isfinite(error):
        return -math.inf
    return distance / error if error > ROUNDING else math.copysign(math.inf, distance)


def met(holds: bool) -> float:
    """How far a condition without a standard error is met."""
    return math.inf if holds else -math.inf


def wilson(share: float, count: float, *, level: float = LEVEL) -> Interval:
    """A share of `count` independent latents (Wilson 1927)."""
    if count <= 0:
        return Interval(share, 0.0, 1.0)
    z = quantile((1 + level) / 2)
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(max(share * (1 - share), 0) / count + z * z / (4 * count * count))
    shrink = 1 + z * z / count
    return Interval(
        share, max((middle - spread) / shrink, 0.0), min((middle + spread) / shrink, 1.0)
    )


def newcombe(x: Interval, y: Interval) -> Interval:
    """x - y of two independent shares, from their Wilson intervals (Newcombe 1998, method 10)."""
    difference = x.value - y.value
    below = math.hypot(x.value - x.lo, y.hi - y.value)
    above = math.hypot(x.hi - x.value, y.value - y.lo)
    return Interval(difference, difference - below, difference + above)


def student(value: float, components: Sequence[Component], *, level: float = LEVEL) -> Interval:
    """Student's t about a value whose variance is the sum of its components."""
    stderr, df = satterthwaite(components)
    half_width = quantile((1 + level) / 2, df) * stderr
    return Interval(value, value - half_width, value + half_width, tuple(components))


def satterthwaite(components: Sequence[Component]) -> tuple[float, float]:
    """The standard error of the sum, and its degrees of freedom (Satterthwaite 1946)."""
    variance = math.fsum(part.variance for part in components)
    spread = math.fsum(
        part.variance**2 / (part.units - 1) for part in components if part.variance > 0
    )
    return math.sqrt(variance), variance**2 / spread if spread > 0 else math.inf


def jackknife(
    share: float, left_out: Sequence[float], count: float, *, level: float = LEVEL
) -> Interval:
    """A share with the jackknife over seeds on the logit, and Student's t (Tukey 1958).

    `left_out` are the shares that each leave one seed out. Shares of 0 and 1 of `count` latents
    count as half a latent. Where all of `left_out` are equal it is Wilson's interval over latents.
    """
    stderr = jackknife_stderr([_logit(rest, count) for rest in left_out])
    if stderr <= ROUNDING:
        return wilson(share, count, level=level)
    half_width = quantile((1 + level) / 2, len(left_out) - 1) * stderr
    middle = _logit(share, count)
    return Interval(share, _share(middle - half_width), _share(middle + half_width))


def mde(components: Sequence[Component], *, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest difference that would be seen with this power; nan without any variance."""
    stderr, df = satterthwaite(components)
    if stderr <= ROUNDING:
        return math.nan
    return (quantile((1 + level) / 2, df) + quantile(power, df)) * stderr


def seeds_to_see(
    components: Sequence[Component], effect: float, *, level: float = LEVEL, power: float = POWER
) -> int | None:
    """How many seeds a width would see the effect with this power; None if up to 100 would not.

    The variance between seeds shrinks with their number, that between latents does not.
    """
    for seeds in range(FEWEST, MOST + 1):
        expected = [_with_seeds(part, seeds) for part in components]
        if mde(expected, level=level, power=power) < effect:
            return seeds
    return None


def seeds_to_decide(share: Interval, above: Interval, limit: float) -> int | None:
    """How many seeds a width would tell a share from the limit; None if up to 100 would not.

    A share whose difference from its floor is above the limit would be shown to be so; one below
    the limit to be below. None too where there are so many already: a share near its limit.
    """
    if above.value > limit:
        parts, effect = above.components, above.value - limit
    elif share.value < limit:
        parts, effect = share.components, limit - share.value
    else:
        return None
    seeds = seeds_to_see(parts, effect)
    there = max((part.units for part in parts if part.seeds), default=0)
    return None if seeds is None or seeds <= there else seeds


def _with_seeds(part: Component, seeds: int) -> Component:
    if not part.seeds:
        return part
    return replace(part, variance=part.variance * part.units / seeds, units=seeds)


def quantile(probability: float, df: float = math.inf) -> float:
    """The quantile of Student's t; of the normal when df is infinite."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(probability) if math.isinf(df) else stdtrit(df, probability))


def _logit(share: float, count: float) -> float:
    inside = min(max(share, 0.5 / count), 1 - 0.5 / count)
    return math.log(inside / (1 - inside))


def _share(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))
