"""Whether a mean row is longer than by chance; without torch, since answers ask it too."""

from __future__ import annotations

import math

LEAST, BY_COUNT = 0.12, 1.5  # a mean above both LEAST and BY_COUNT / √m is no chance


def is_shared(length: float, count: int) -> bool:
    """Whether so many unit rows share a direction, by the length of their mean."""
    return length > max(BY_COUNT / math.sqrt(count), LEAST)
