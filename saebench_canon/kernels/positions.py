"""Positions in a window, in four groups: scores differ most between the first few."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

STARTS = (0, 1, 4, 16)
NAMES = ("0", "1 to 3", "4 to 15", "16 and up")


def groups_of(positions: Tensor) -> Tensor:
    """The group of each position [n]: 0, 1 to 3, 4 to 15 or 16 and up."""
    import torch

    return torch.bucketize(positions, torch.tensor(STARTS), right=True) - 1
