"""Optimal one-to-one matchings of rows."""

from __future__ import annotations

import torch
from torch import Tensor


def assign(similarity: Tensor) -> Tensor:
    """The one-to-one matching of the largest total similarity [m1, m2], as a column for each row.

    Returns [m1] int64, −1 for a row left over (m1 > m2). Exact; cubic in the smaller side.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(similarity.cpu().numpy(), maximize=True)
    matching = torch.full((len(similarity),), -1, dtype=torch.int64)
    matching[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return matching.to(similarity.device)


def invert(matching: Tensor, size: int) -> Tensor:
    """The same matching from the other side: a row for each of `size` columns, −1 for none."""
    back = torch.full((size,), -1, dtype=torch.int64, device=matching.device)
    matched = matching >= 0
    back[matching[matched]] = matched.nonzero()[:, 0]
    return back
