"""JSON that strangers write beside weights: every fault is a sentence with the file's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.regular_file import refuse_special

DEPTH = 64  # of objects in objects, so that whatever walks a configuration comes to its end


def read_value(path: Path) -> Any:
    """What a JSON file holds; a byte order mark at its start is left out."""
    where = str(path)
    refuse_special(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise CanonError(f"the file is not text in UTF-8 ({error})", where=where) from error
    except RecursionError as error:
        raise _too_deep(where) from error
    except ValueError as error:
        raise CanonError(f"the file is not JSON ({error})", where=where) from error
    except OSError as error:
        raise CanonError(f"the file cannot be read ({error})", where=where) from error


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    content = read_value(path)
    if not isinstance(content, dict):
        raise CanonError("the file is not a JSON object", where=str(path))
    _check_depth(content, str(path))
    return content


def whole_number(values: dict[str, Any], *names: str, path: Path) -> int | None:
    """The first of these keys that is set, above 0; None if none is, or if it is 0.

    Raises CanonError, with the name of the key and of the file, for any other value.
    """
    for name in names:
        value = values.get(name)
        if not value:
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not int or value < 1:
            raise CanonError(
                f"'{name}' must be a positive whole number, got {value!r}", where=str(path)
            )
        return value
    return None


def _check_depth(content: dict[str, Any], where: str) -> None:
    level: list[Any] = [content]
    for _ in range(DEPTH):
        inner = [entry.values() if isinstance(entry, dict) else entry for entry in level]
        level = [value for values in inner for value in values if isinstance(value, dict | list)]
        if not level:
            return
    raise _too_deep(where)


def _too_deep(where: str) -> CanonError:
    return CanonError("the JSON is nested too deep to be read", where=where)
