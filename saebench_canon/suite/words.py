"""Names and settings in a suite: what may stand where."""

from __future__ import annotations

import math
import re
from typing import Any

from saebench_canon.errors import CanonError, nearest

WORD = r"""(?:"[^"\\]*"|'[^'\\]*')"""
LITERAL = re.compile(rf"\bLiteral\[\s*({WORD}(?:\s*,\s*{WORD})*)\s*,?\s*\]")


def checked_name(name: str, where: str) -> str:
    """The name, which must be fit for a node id."""
    if not re.fullmatch(r"[^\s\[\]/+]+", name) or "::" in name:
        raise CanonError(
            f"'{name}' cannot be a name", where=where,
            hint="Names have no blanks, brackets, slashes, plus signs or '::'.",
        )  # fmt: skip
    return name


def typed_setting(
    key: str, value: Any, default: Any, where: str, *, kind: str | None = None
) -> Any:
    """A setting's value, of the kind that its default has or, if that is None, its annotation."""
    if type(value) is float and not math.isfinite(value):
        raise CanonError(f"the setting '{key}' is {value}; it must be finite", where=where)
    words = words_of(kind)
    if words and value not in words:
        raise CanonError(
            f"the setting '{key}' is {value!r}", where=where, hint=nearest(str(value), words)
        )
    wanted = _kinds(kind) if default is None else (type(default),)
    if float in wanted and type(value) is int and int not in wanted:
        return float(value)
    if tuple in wanted and isinstance(value, list):
        return tuple(value)
    if wanted and type(value) not in wanted:
        raise CanonError(
            f"the setting '{key}' is {value!r}; its default is {default!r}", where=where
        )
    return value


def words_of(annotation: str | None) -> tuple[str, ...]:
    """The strings that an annotation such as `Literal["a", "b"] | None` allows, if it names any."""
    found = LITERAL.search(annotation or "")
    return tuple(word[1:-1] for word in re.findall(WORD, found[1])) if found else ()


def _kinds(annotation: str | None) -> tuple[type, ...]:
    """The plain types that an annotation such as `int | None` names."""
    plain: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
    names = [name.strip() for name in (annotation or "").split("|")]
    return tuple(plain[name] for name in names if name in plain)
