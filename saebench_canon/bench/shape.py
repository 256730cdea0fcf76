"""Whether data read from a JSON file has the shape that it should have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Each:
    """A list, or an object with any keys, of which every value has this shape."""

    shape: Any
    list: bool = True


@dataclass(frozen=True)
class Optional:
    """A key that may be missing or null."""

    shape: Any


@dataclass(frozen=True)
class OneOf:
    """One of these values."""

    values: Sequence[Any]


class Exactly(dict[str, Any]):
    """The keys that an object must have or may have, and no others."""


def misfit(value: Any, shape: Any, name: str = "") -> str | None:
    """Where data differs from a shape, in words; None if it has it.

    A shape is a type, a tuple of types, `Each`, `OneOf`, or a dict of the keys that an object must
    have (others are allowed unless it is `Exactly`). A number is finite, and true is no number.
    """
    if isinstance(shape, Optional):
        return None if value is None else misfit(value, shape.shape, name)
    if isinstance(shape, OneOf):
        return None if value in shape.values else f"'{name}' is {_shown(value)}"
    if isinstance(shape, Each):
        kind = list if shape.list else dict
        if not isinstance(value, kind):
            return f"'{name}' is {_shown(value)}"
        values = enumerate(value) if isinstance(value, list) else value.items()
        return next((fault for key, inner in values
                     if (fault := misfit(inner, shape.shape, f"{name}.{key}"))), None)  # fmt: skip
    if isinstance(shape, Mapping):
        if not isinstance(value, dict):
            return f"'{name}' is {_shown(value)}" if name else f"it is {_shown(value)}"
        for key, inner in shape.items():
            if key not in value and not isinstance(inner, Optional):
                return f"it has no '{f'{name}.{key}'.lstrip('.')}'"
            if fault := misfit(value.get(key), inner, f"{name}.{key}".lstrip(".")):
                return fault
        unknown = sorted(value.keys() - shape.keys()) if isinstance(shape, Exactly) else []
        return f"'{name}' has an unknown '{unknown[0]}'" if unknown else None
    return None if _is(value, shape) else f"'{name}' is {_shown(value)}"


def _is(value: Any, types: type | tuple[type, ...]) -> bool:
    kinds = types if isinstance(types, tuple) else (types,)
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return isinstance(value, (*kinds, int) if float in kinds else kinds)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"
