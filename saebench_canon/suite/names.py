"""Which names and settings a suite may have."""

from __future__ import annotations

import math
import re
from typing import Any

from saebench_canon.errors import UNPRINTABLE, CanonError, nearest
from saebench_canon.suite.toml_table import TYPE_WORDS

LONGEST = 200
WORD = r"""(?:"[^"\\]*"|'[^'\\]*')"""
LITERAL = re.compile(rf"\bLiteral\[\s*({WORD}(?:\s*,\s*{WORD})*)\s*,?\s*\]")


def checked_name(name: str, where: str) -> str:
    """The name; raises CanonError if it cannot be part of a node id or of a file's name."""
    if len(name) > LONGEST:
        raise CanonError(
            f"a name has at most {LONGEST} letters, and '{name[:20]}…' has {len(name):,}",
            where=where,
        )
    if not re.fullmatch(r"[^\s\[\]/+]+", name) or "::" in name or UNPRINTABLE.search(name):
        raise CanonError(
            f"'{name}' cannot be a name", where=where,
            hint="A name has no spaces, brackets, slashes, plus signs or '::'.",
        )  # fmt: skip
    return name


def typed_setting(
    key: str, value: Any, default: Any, where: str, *, kind: str | None = None
) -> Any:
    """A setting's value, of the type of its default or, if that is None, of its annotation."""
    parts = value if isinstance(value, list | tuple) else [value]
    if any(type(part) is float and not math.isfinite(part) for part in parts):
        raise CanonError(f"the setting '{key}' must be finite, got {value}", where=where)
    words = words_of(kind)
    if words and value not in words:
        raise CanonError(f"unknown {key} {value!r}", where=where, hint=nearest(str(value), words))
    types = _types(kind) if default is None else (type(default),)
    if float in types and type(value) is int and int not in types:
        return float(value)
    if tuple in types and isinstance(value, list):
        return tuple(value)
    if types and type(value) not in types:
        raise CanonError(
            f"the setting '{key}' must be {' or '.join(TYPE_WORDS[kind] for kind in types)}, "
            f"got {value!r}",
            where=where,
        )
    return value


def words_of(annotation: str | None) -> tuple[str, ...]:
    """The strings that an annotation such as `Literal["a", "b"] | None` allows, if it names any."""
    literal = LITERAL.search(annotation or "")
    return tuple(word[1:-1] for word in re.findall(WORD, literal[1])) if literal else ()


def _types(annotation: str | None) -> tuple[type, ...]:
    """The plain types that an annotation such as `int | None` names."""
    plain: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
    names = [name.strip() for name in (annotation or "").split("|")]
    return tuple(plain[name] for name in names if name in plain)
