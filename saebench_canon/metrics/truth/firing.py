"""What firing says of the features: F1, features that are split, parents that are absorbed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saebench_canon.kernels.codes import Codes

HALF = 0.5


@dataclass(frozen=True, eq=False)
class Firing:
    """On how many tokens a feature and a latent fire together [F, m], and each alone [F], [m]."""

    together: Tensor
    features: Tensor
    latents: Tensor

    @property
    def f1(self) -> Tensor:
        """F1 of each latent as a detector of each feature, [F, m]; 0 where neither fires."""
        either = self.features[:, None] + self.latents[None]
        return torch.where(either > 0, 2 * self.together / either.clamp(min=1), 0.0)

    @property
    def shares(self) -> Tensor:
        """The share of a feature's tokens on which a latent fires, [F, m]."""
        return self.together / self.features[:, None].clamp(min=1)


def firing(features: Codes, latents: Codes) -> Firing:
    """Counts of tokens [n] on which features and latents fire, in float64."""
    from scipy.sparse import csr_matrix

    def fires(codes: Codes) -> csr_matrix:
        ones = torch.ones(len(codes.values), dtype=torch.float32).numpy()
        table = (ones, codes.indices.numpy(), codes.indptr.numpy())
        return csr_matrix(table, shape=(len(codes), codes.width))

    together = torch.from_numpy((fires(features).T @ fires(latents)).toarray()).double()
    return Firing(together, features.counts.double(), latents.counts.double())


def split(cosines: Tensor, features: Codes, latents: Codes, fired: Firing, near: float) -> Tensor:
    """Features that several latents share, [F] bool.

    Two latents or more have the cosine `near` with it, none fires on more than half of its tokens,
    and together they fire on more than half.
    """
    pieces = (cosines >= near) & (fired.together > 0)
    candidate = (pieces.sum(dim=1) >= 2) & ~(pieces & (fired.shares > HALF)).any(dim=1)
    result = torch.zeros(len(cosines), dtype=torch.bool)
    for feature in candidate.nonzero()[:, 0].tolist():
        tokens = _tokens_of(features, feature)
        some = _fire_on(latents, pieces[feature], tokens)
        result[feature] = some.double().mean() > HALF
    return result


def absorbed(
    cosines: Tensor, features: Codes, latents: Codes, parents: Tensor, near: float
) -> Tensor:
    """Parents whose latent is silent on more than half of a child's tokens, [F] bool.

    Its latent is the one of the largest cosine, which is `near` at least. It must fire on more than
    half of the parent's other tokens, those without such a child: else it is no latent of the
    parent at all.
    """
    result = torch.zeros(len(cosines), dtype=torch.bool)
    for parent in sorted(set(parents[parents >= 0].tolist())):
        best, latent = cosines[parent].max(dim=0)
        if float(best) < near:
            continue
        one = torch.zeros(latents.width, dtype=torch.bool)
        one[latent] = True
        of_latent = torch.zeros(len(latents), dtype=torch.bool)
        of_latent[latents.keep(one).token_ids()] = True
        others = torch.zeros(len(features), dtype=torch.bool)
        others[_tokens_of(features, parent)] = True
        silent = False
        for child in (parents == parent).nonzero()[:, 0].tolist():
            tokens = _tokens_of(features, child)
            if len(tokens) and float(of_latent[tokens].double().mean()) < HALF:
                silent = True
                others[tokens] = False
        fires = bool(others.any()) and float(of_latent[others].double().mean()) > HALF
        result[parent] = silent and fires
    return result


def _tokens_of(codes: Codes, column: int) -> Tensor:
    """The tokens on which a feature fires."""
    return codes.token_ids()[codes.indices == column]


def _fire_on(codes: Codes, columns: Tensor, tokens: Tensor) -> Tensor:
    """On which of these tokens one of the columns' latents fires, [tokens] bool."""
    return codes.at(tokens).keep(columns).indptr.diff() > 0
