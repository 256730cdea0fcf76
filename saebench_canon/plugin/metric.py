"""What a metric is: a function whose positional parameters are inputs, keyword-only ones settings.

    @metric(scores=[Score("l0", better="lower", digits=1)], of="sae", version=1)
    def l0(codes, *, threshold: float = 0.0):
        return {"l0": ...}

Inputs by subject: of="sae" may ask for `sae` and, of that SAE, `codes`; of="pair" for `small`,
`large`, `small_codes`, `large_codes`; of="group" for `saes` and `codes` (tuples, one entry an SAE).
All may ask for `acts`, `tokens`, `lm` (of the data), `seed`, `memo`, `keep`, `peers` and
`peers_codes`.
A positional parameter with default None is an input the metric can do without.

A setting annotated `CanonicalSAE | None` is a ref in a suite, such as "file:PATH" beside it or
"SCHEME://OWNER/NAME", and reaches the function as the SAE: what the SAE is is part of the case.
Settings that several metrics share may stand in a dataclass (`signature`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from saebench_canon.errors import CanonError
from saebench_canon.plugin.signature import signature_of

if TYPE_CHECKING:
    import pandas as pd

Of = Literal["sae", "pair", "group"]
Better = Literal["higher", "lower"]
SUBJECT: Mapping[Of, str] = {"sae": "an SAE", "pair": "a pair", "group": "a group"}  # in words
SAE = re.compile(r"\bCanonicalSAE\b")  # in the annotation of a setting that names one


@dataclass(frozen=True)
class Score:
    """One number of a metric: its direction, the decimals shown, and the null printed beside it."""

    name: str
    better: Better | None = None
    digits: int = 3
    null: str | None = None
    help: str = ""


@dataclass(frozen=True)
class Value:
    """A score's estimate with its standard error and the number and kind of units behind it."""

    value: float
    stderr: float | None = None
    n: int | None = None
    unit: str | None = None


@dataclass(frozen=True)
class Undefined:
    """A score that its definition leaves undefined here, and why."""

    reason: str


@dataclass(frozen=True)
class Mark:
    """A remark that tables print: `unfit` withholds the verdict, `caveat` stands beside it."""

    kind: Literal["unfit", "caveat", "note"]
    reason: str


@dataclass(frozen=True)
class Measurement:
    """What a metric returns when it has more to give than a dict of scores."""

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

    @property
    def opens(self) -> tuple[str, ...]:
        """The settings that name an SAE in a suite and reach the function as that SAE."""
        return tuple(name for name, kind in self.kinds.items() if SAE.search(kind))

    def score(self, name: str) -> Score:
        """The declared score of that name."""
        return next(score for score in self.scores if score.name == name)


def metric(
    *, scores: Iterable[Score], of: Of, version: int, name: str | None = None
) -> Callable[[Callable[..., Any]], Metric]:
    """Make a metric of a function; the function's name is the metric's unless one is given."""

    def decorate(function: Callable[..., Any]) -> Metric:
        declared = signature_of(function, "metric", name)
        for setting, kind in declared.kinds.items():
            if SAE.search(kind) and declared.settings[setting] is not None:
                raise CanonError(
                    f"metric '{declared.name}': the setting '{setting}' names an SAE",
                    hint="Its default can only be None.",
                )
        return Metric(
            name=declared.name,
            of=of,
            version=version,
            scores=tuple(scores),
            measure=declared.call,
            inputs=declared.inputs,
            optional=declared.optional,
            settings=declared.settings,
            kinds=declared.kinds,
            help=declared.help,
        )

    return decorate
