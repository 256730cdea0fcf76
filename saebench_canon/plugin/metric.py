"""A metric: a function whose positional parameters are inputs, its keyword-only ones settings.

    @metric(scores=[Score("l0", better="lower", digits=1, headline=True)], of="sae", version=1)
    def l0(codes, *, threshold: float = 0.0):
        return {"l0": ...}

Inputs by subject: a metric of="sae" takes `sae` and, of that SAE, `codes`; of="pair" takes `small`,
`large`, `small_codes`, `large_codes`; of="group" takes `saes` and `codes` (tuples, with one entry
for each SAE). All take `acts`, `tokens`, `lm` (of the data), `seed`, `memo`, `keep`, `peers` and
`peers_codes`. A positional parameter with default None is an optional input.

A setting annotated `CanonicalSAE | None` is a ref in a suite, such as "file:PATH" or
"SCHEME://OWNER/NAME"; the function gets the SAE, and its content is part of the case's identity.
Settings that several metrics share can be a dataclass (`signature`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.cost import CostOf
from saebench_canon.plugin.role import ROLES
from saebench_canon.plugin.signature import signature_of

if TYPE_CHECKING:
    import pandas as pd

Of = Literal["sae", "pair", "group"]
Better = Literal["higher", "lower"]
Unit = Literal[
    "document", "latent", "feature", "training seed", "meta-seed", "draw"
]  # what `n` counts
UNITS: tuple[Unit, ...] = get_args(Unit)
SUBJECT: Mapping[Of, str] = {"sae": "an SAE", "pair": "a pair", "group": "a group"}  # in words
SAE = re.compile(r"\bCanonicalSAE\b")  # in the annotation of a setting that names an SAE


@dataclass(frozen=True)
class Score:
    """One number of a metric: its direction, the decimals shown, and the null printed with it.

    Tables show the scores with `headline`, in the order of their declaration; the others are in
    the full tables only. If no score has it, the first four are shown.
    """

    name: str
    better: Better | None = None
    digits: int = 3
    null: str | None = None
    help: str = ""
    headline: bool = False
    counts_dead: bool = False  # whether dead latents may change it


@dataclass(frozen=True)
class Value:
    """A score's estimate, its standard error, and the number and kind of units behind it."""

    value: float
    stderr: float | None = None
    n: int | None = None
    unit: Unit | None = None


@dataclass(frozen=True)
class Undefined:
    """A score that is undefined here, and why."""

    reason: str


@dataclass(frozen=True)
class Mark:
    """A remark that tables print: `unfit` withholds the answers, `caveat` is printed with them."""

    kind: Literal["unfit", "caveat", "note"]
    reason: str


@dataclass(frozen=True)
class Measurement:
    """What a metric returns if it has tables or marks besides scores."""

    scores: Mapping[str, float | Value | Undefined]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Metric:
    """A named, versioned function from inputs and settings to scores."""

    name: str
    of: Of
    version: int
    scores: tuple[Score, ...]
    measure: Callable[..., Measurement | Mapping[str, float | Value | Undefined]]
    inputs: tuple[str, ...]
    optional: frozenset[str]
    settings: Mapping[str, Any]
    help: str
    kinds: Mapping[str, str] = field(default_factory=dict)  # the settings' annotations
    cost: CostOf | None = None
    roles: tuple[str, ...] = ()

    @property
    def sae_settings(self) -> tuple[str, ...]:
        """The settings that name an SAE; the function gets the SAE."""
        return tuple(name for name, kind in self.kinds.items() if SAE.search(kind))

    def score(self, name: str) -> Score:
        """The declared score of that name."""
        return next(score for score in self.scores if score.name == name)


def with_role(role: str, metrics: Iterable[Metric]) -> list[Metric]:
    """The metrics that have a role."""
    return [metric for metric in metrics if role in metric.roles]


def metric(
    *,
    scores: Iterable[Score],
    of: Of,
    version: int,
    name: str | None = None,
    cost: CostOf | None = None,
    roles: Iterable[str] = (),
) -> Callable[[Callable[..., Any]], Metric]:
    """Make a metric of a function; the function's name is the metric's unless one is given.

    `cost` estimates what a case takes; without it, `plan` uses earlier records. Figures, cards
    and commands find the metric by its `roles` (`plugin.role`).
    """

    declared, role_names = tuple(scores), tuple(roles)

    def decorate(function: Callable[..., Any]) -> Metric:
        signature = signature_of(function, "metric", name)
        for setting, kind in signature.kinds.items():
            if SAE.search(kind) and signature.settings[setting] is not None:
                raise CanonError(
                    f"metric '{signature.name}': the SAE setting '{setting}' has a default",
                    hint="Its default must be None.",
                )
        _check_roles(signature.name, of, declared, role_names)
        return Metric(
            name=signature.name,
            of=of,
            version=version,
            scores=declared,
            measure=signature.call,
            inputs=signature.inputs,
            optional=signature.optional,
            settings=signature.settings,
            kinds=signature.kinds,
            cost=cost,
            roles=role_names,
            help=signature.help,
        )

    return decorate


def _check_roles(title: str, of: Of, scores: Iterable[Score], roles: Iterable[str]) -> None:
    """Raise CanonError for an unknown role, or one that the metric cannot have."""
    declared = {score.name for score in scores}
    for name in roles:
        if name not in ROLES:
            raise CanonError(f"metric '{title}': unknown role '{name}'", hint=nearest(name, ROLES))
        role = ROLES[name]
        if role.of != of:
            fault = f'the role \'{name}\' needs of="{role.of}", not of="{of}"'
            raise CanonError(f"metric '{title}': {fault}")
        if lacking := [score for score in role.scores if score not in declared]:
            raise CanonError(f"metric '{title}': the role '{name}' needs a score '{lacking[0]}'")
