"""Relations of SAEs that never were: drawn at random, or alike for all latents."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from numpy.random import Generator

from saebench_canon.questions.relations import Family, Relation

THETA = 0.7


def relation(cosine: object, explained: object = 0.0, *, first: object = 0.0) -> Relation:
    """A relation of latents with these cosines and explained shares, none of them gated."""
    cosines = np.atleast_1d(np.asarray(cosine, dtype=np.float64))
    firsts = np.broadcast_to(np.asarray(first, dtype=np.float64), cosines.shape)
    shares = np.broadcast_to(np.asarray(explained, dtype=np.float64), cosines.shape)
    return Relation(cosines, firsts, shares, np.zeros(len(cosines), dtype=bool))


def drawn(generator: Generator, latents: int) -> Relation:
    """A relation with latents of every kind."""
    first = generator.uniform(0, 0.6, latents)
    return Relation(
        cosine=generator.uniform(0.3, 1, latents).round(6),
        first=first,
        explained=first + generator.uniform(0, 1, latents) * (1 - first),
        gated=generator.random(latents) < 0.2,
        least=float(generator.choice([0.6, 0.68])),
    )


def family(small: int, large: int, *, seed: int, latents: int = 9) -> Family:
    """Random relations of some small SAEs s0, s1 … and some large ones l0, l1 …"""
    generator = np.random.default_rng(seed)
    names = [*names_of("s", small), *names_of("l", large)]
    sizes = {name: int(generator.integers(latents, 2 * latents)) for name in names}
    pairs = permutations(names, 2)
    return Family({pair: drawn(generator, sizes[pair[0]]) for pair in pairs}, THETA)


def names_of(letter: str, count: int) -> list[str]:
    return [f"{letter}{number}" for number in range(count)]
