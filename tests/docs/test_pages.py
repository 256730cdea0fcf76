"""The pages hang together: links lead somewhere, and the README quotes what docs/ have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from clone import DOCS, ROOT

README = ROOT / "README.md"
LINK = re.compile(r"\]\(([^()\s]*)\)")
FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
WORDS = 650  # of a decision, at most: a page

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="docs/ is not here")


def pages() -> list[Path]:
    """Every page that a reader may open."""
    folders = (DOCS, ROOT / "plugins", ROOT / "leaderboards", ROOT / "saebench_canon")
    return [
        *sorted(ROOT.glob("*.md")),
        *(page for at in folders for page in sorted(at.rglob("*.md"))),
    ]


def text_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as hosts of repositories make them."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def dead_links(page: Path) -> list[str]:
    """The relative links of a page to a file or a heading that is not there."""
    dead = []
    for link in LINK.findall(text_of(page)):
        target, _, anchor = link.partition("#")
        if re.match(r"\w+:", target):
            continue
        path = page.parent / target if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(link)
    return dead


def test_there_are_pages_with_links() -> None:
    assert len(pages()) >= 20
    assert sum(len(LINK.findall(text_of(page))) for page in pages()) >= 80


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A page?\n[a](#a-page) [b](gone.md) [c](#gone) [d](https://example.org/gone)")
    assert dead_links(page) == ["gone.md", "#gone"]


def test_the_first_block_of_the_readme_is_its_two_commands() -> None:
    language, block = FENCED.findall(README.read_text(encoding="utf-8"))[0]
    run, test = block.splitlines()
    assert language == "bash"
    assert run.endswith("python3 -m saebench_canon run quickstart -n 2")
    assert test.endswith("python3 -m pytest")


def test_what_the_readme_quotes_of_the_quickstart_is_there() -> None:
    quotes = [
        block for language, block in FENCED.findall(README.read_text(encoding="utf-8"))
        if language == "text"
    ]  # fmt: skip
    printed = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    assert [quote.split()[0] for quote in quotes] == ["SAEs", "complete?"]
    for quote in quotes:
        assert f"\n{quote}" in printed


@pytest.mark.parametrize(
    "page", sorted((DOCS / "decisions").glob("*.md")), ids=lambda page: page.stem
)
def test_a_decision_is_a_page(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").split()) <= WORDS


def test_the_index_names_every_page_of_docs() -> None:
    links = set(LINK.findall(text_of(DOCS / "README.md")))
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} - {"README.md"}
    assert there <= links


def test_the_readmes_adapter_is_the_documents() -> None:
    shown = README.read_text(encoding="utf-8")
    own = next(
        block for block in re.findall(r"```python\n(.*?)```", shown, flags=re.S)
        if "@checkpoint" in block
    )  # fmt: skip
    assert own in (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")


def test_every_tick_of_the_readmes_formats_is_a_test_that_there_is() -> None:
    shown = README.read_text(encoding="utf-8")
    ticks = re.findall(r"\[✓\]\((.*?)\)", shown)
    assert len(ticks) >= 7
    for tick in ticks:
        text = (ROOT / tick).read_text(encoding="utf-8")
        assert "def test_" in text, tick
