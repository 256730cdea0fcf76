"""The pages of docs/ and the fenced blocks in them."""

from __future__ import annotations

import re

from clone import DOCS

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}


def blocks(language: str) -> dict[str, str]:
    """Every fenced block of a language, by page and number."""
    found = {}
    for page, text in PAGES.items():
        parts = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        found |= {f"{page}-{number}": part for number, part in enumerate(parts, start=1)}
    return found


EXAMPLES = {re.findall(r'^"""(\w+):', text)[0].lower(): text for text in blocks("python").values()}
