"""How text of suites and checkpoints leaves the program: it is shown, and never obeyed."""

from __future__ import annotations

import dataclasses
import re
from contextlib import suppress
from typing import Any, TypeVar

from saebench_canon.errors import one_line

T = TypeVar("T")
TAG = re.compile(r"<(?=[A-Za-z/!?])")  # what a reader of HTML takes for the beginning of a tag
FORMULA = "=+-@＝＋－＠"  # what a spreadsheet takes for the beginning of a formula


def on_lines(value: T) -> T:
    """The value with every text in it, in tables, tuples and dataclasses, as one printable line."""
    return _on_lines(value)  # type: ignore[no-any-return]


def _on_lines(value: Any) -> Any:
    match value:
        case str():
            return one_line(value)
        case tuple() | list():
            return type(value)(map(_on_lines, value))
        case dict():
            return {_on_lines(key): _on_lines(inner) for key, inner in value.items()}
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            pairs = [
                (field.name, old, _on_lines(old))
                for field in dataclasses.fields(value)
                if field.compare  # the others hold no text of their own
                for old in [getattr(value, field.name)]
            ]
            changed = {name: new for name, old, new in pairs if new != old}
            return dataclasses.replace(value, **changed) if changed else value
        case _:
            return value


def without_tags(text: str) -> str:
    """Plain text that is no HTML to a program that looks for it: ‹script> for <script>."""
    return TAG.sub("‹", text)


def for_markdown(text: str) -> str:
    """Text for a Markdown page: its tags, links and images are shown as they are written."""
    return TAG.sub("&lt;", text).replace("](", "]\\(")


def for_markdown_cell(text: str) -> str:
    """The same for a cell of a table, which a bar would end."""
    return for_markdown(text.replace("\\", "\\\\").replace("|", "\\|"))


def for_spreadsheet(value: Any) -> Any:
    """A cell of a CSV file; text that a spreadsheet would compute gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = one_line(value).replace("\t", " ")
    return f"'{text}" if text.lstrip()[:1] in tuple(FORMULA) and not _is_numbers(text) else text


def _is_numbers(text: str) -> bool:
    """Whether the text is one or several numbers."""
    with suppress(ValueError):
        return bool([float(word) for word in text.split()])
    return False
