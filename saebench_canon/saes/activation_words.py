"""Which parameters each activation has; what it would not use is refused."""

from __future__ import annotations

from collections.abc import Collection

from saebench_canon.errors import CanonError, nearest

OF_ALL = frozenset({"W_enc", "W_dec", "b_dec", "activation_mean"})
OF_ACTIVATION = {
    "relu": frozenset({"b_enc"}),
    "jumprelu": frozenset({"b_enc", "threshold"}),
    "topk": frozenset({"b_enc"}),
    "batchtopk": frozenset({"b_enc", "threshold"}),
    "gated": frozenset({"b_gate", "b_mag", "r_mag"}),
}


def check_activation(activation: object, given: Collection[str], *, where: str | None) -> None:
    """Raise CanonError for an unknown activation, or for a parameter that it does not use."""
    if not isinstance(activation, str) or activation not in OF_ACTIVATION:
        raise CanonError(
            f"unknown activation {activation!r}",
            where=where,
            hint=nearest(str(activation), OF_ACTIVATION),
        )
    unused = sorted(set(given) - OF_ALL - OF_ACTIVATION[activation])
    if unused:
        users = [word for word, names in OF_ACTIVATION.items() if unused[0] in names]
        raise CanonError(
            f"{unused[0]} is given, and activation '{activation}' does not use it",
            where=where,
            hint=f"It belongs to {' and '.join(users)}.",
        )
