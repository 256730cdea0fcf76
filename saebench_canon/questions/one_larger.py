"""What share of a larger SAE's latents pass a test in smaller SAEs, and in seeds of its own?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from saebench_canon.questions.relations import Bools, Floats

Found = Callable[[str, str], Bools]  # of, inside
Test = Callable[[str, str, Sequence[str]], Bools]  # of, inside, the seeds whose twins count


@dataclass(frozen=True, eq=False)
class OneLarger:
    """The shares of one larger SAE. Each latent counts by the share of other seeds that find it."""

    share: float  # M: in the smaller SAEs
    floor: float  # B: in a seed, of what another one finds
    by_small: Floats  # [smaller SAEs]
    by_large: Floats  # the floor by seed, of what the others find [larger SAEs], nan at itself
    found_by: Floats  # share of the latents that a seed finds [larger SAEs], nan at itself
    variance: float  # of the share, from its latents
    variance_above: float  # of the share less the floor
    latents: int

    @classmethod
    def of(
        cls, at: int, small: Sequence[str], large: Sequence[str], found: Found, test: Test
    ) -> OneLarger | None:
        """The shares of the SAE large[at]; None where no other seed finds any of its latents."""
        sae = large[at]
        peers = [seed for seed in large if seed != sae]
        count = len(peers)
        finds = _rows(found(sae, peer) for peer in peers)  # [peers, n]
        weight = finds.mean(axis=0)  # p [n]
        total, n = float(weight.sum()), len(weight)
        if total == 0:
            return None
        in_small = _rows(test(sae, one, peers) for one in small)  # [smaller SAEs, n]
        in_peers = _rows(  # [peers, n]
            test(sae, peer, [seed for seed in peers if seed != peer]) for peer in peers
        )
        ordered = finds.sum(axis=0) * in_peers.sum(axis=0) - (finds * in_peers).sum(axis=0)
        chance = ordered / (count * (count - 1))  # f [n]
        others = (finds.sum(axis=0) - finds) / (count - 1)  # the weight without a peer [peers, n]
        other_totals = others.sum(axis=1)
        weighted = weight * in_small.mean(axis=0)  # p m [n]
        share, floor = float(weighted.sum()) / total, float(chance.sum()) / total

        def variance(parts: Floats) -> float:
            return n / max(n - 1, 1) * float((parts**2).sum()) / total**2

        by_peer = (others * in_peers).sum(axis=1) / np.where(other_totals > 0, other_totals, 1)
        return cls(
            share,
            floor,
            by_small=(weight * in_small).sum(axis=1) / total,
            by_large=np.insert(by_peer, at, np.nan),
            found_by=np.insert(finds.mean(axis=1), at, np.nan),
            variance=variance(weighted - share * weight),
            variance_above=variance(weighted - chance - (share - floor) * weight),
            latents=n,
        )


def _rows(latents: Iterable[Bools]) -> Floats:
    """One row of ones and zeros for each SAE."""
    return np.stack([row.astype(np.float64) for row in latents])
