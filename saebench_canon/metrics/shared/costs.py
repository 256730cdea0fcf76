"""Time and memory of steps that several metrics share, and the constants of these estimates.

Constants here and in each metric's `cost` were fitted to the records of a quickstart on two idle
cores that do 52e9 float32 multiply-adds a second each in numpy, and to single cases at d = 768
(GPT-2; SAEs of 1,536 and 6,144 latents on 16,384 tokens). docs/suites.md says how well they fit.
"""

from __future__ import annotations

from saebench_canon.plugin.cost import CaseSize, Dictionary, Work

DOUBLE = 2.0  # float64 over float32
SPARSE = 10.0  # a multiply-add of sparse codes over one of a product of matrices
TURNS = 25  # of matching a null's covariance
EIGH = 10.0  # multiply-adds of an eigendecomposition over d^3
PLANTED = 1024  # planted sums, and rows of a null, that are fitted by small rows
COSINES = 2**24 * 4  # bytes of cosines in memory at once
CHUNK = 8192  # tokens of a pass in float64


def random_rows(m: int, d: int) -> Work:
    """Random rows of a dictionary's mean and covariance."""
    return Work(DOUBLE * TURNS * (2 * m * d**2 + EIGH * d**3))


def largest(size: CaseSize) -> Dictionary:
    """The widest SAE of the case."""
    return max(size.saes, key=lambda sae: sae.width)


def row_bytes(sae: Dictionary) -> float:
    """An SAE's decoder rows in float64."""
    return 8.0 * sae.width * sae.d
