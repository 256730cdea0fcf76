"""Names and settings in a suite: what may stand where."""

from __future__ import annotations

import re
from typing import Any

from saebench_canon.errors import CanonError


def checked_name(name: str, where: str) -> str:
    """The name, which must be fit for a node id."""
    if not re.fullmatch(r"[^\s\[\]/+]+", name) or "::" in name:
        raise CanonError(
            f"'{name}' cannot be a name", where=where,
            hint="Names have no blanks, brackets, slashes, plus signs or '::'.",
        )  # fmt: skip
    return name


def typed_setting(key: str, value: Any, default: Any, where: str) -> Any:
    """A setting's value, of the kind its default has; None as default takes any plain value."""
    kind = type(default)
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list):
        return tuple(value)
    if default is not None and type(value) is not kind:
        raise CanonError(
            f"the setting '{key}' is {value!r}; its default is {default!r}", where=where
        )
    return value
