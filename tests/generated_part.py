"""The part of a page that a script writes, between two marks."""

from __future__ import annotations

from pathlib import Path


def put(page: Path, begin: str, end: str, generated: str) -> None:
    """Replace what stands between the marks."""
    text = page.read_text(encoding="utf-8")
    head, rest = text.split(begin)
    page.write_text(f"{head}{begin}\n{generated}{end}{rest.split(end)[1]}", encoding="utf-8")
