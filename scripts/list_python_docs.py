"""Write the list of paragraphs that stand in the standard library of every Python given.

    python scripts/list_python_docs.py LIBRARY [LIBRARY ...]

A LIBRARY is a folder or a zip that holds os.py. The first gives the order.
"""

import argparse
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "saebench_canon" / "packaged"))
import python_docs  # standalone, so that no other requirement has to be installed

LEFT_OUT = {
    "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "distutils", "ensurepip",
    "venv", "site-packages", "dist-packages", "__phello__", "antigravity", "this", "turtle",
    "sitecustomize",
}  # fmt: skip
LAZY_IMPORT = re.compile(r"^lazy (?=from |import )", re.MULTILINE)  # 3.15, read by older ones
SHORTEST_DOCUMENT = 600  # characters; less does not fill one window of 128 tokens


def sources(library: Path) -> Iterator[tuple[str, str]]:
    """(dotted name, source) of each module, sorted by name."""
    if library.is_dir():
        texts = {str(p.relative_to(library)): p.read_bytes() for p in library.rglob("*.py")}
    else:
        with zipfile.ZipFile(library) as archive:
            texts = {n: archive.read(n) for n in archive.namelist() if n.endswith(".py")}
    named = {}
    for path, raw in texts.items():
        parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
        generated = parts[-1].startswith("_sysconfigdata")
        if LEFT_OUT.isdisjoint(parts) and not generated and all(map(str.isidentifier, parts)):
            text = raw.decode("utf-8", errors="replace")
            named[".".join(parts)] = LAZY_IMPORT.sub("", text)
    yield from sorted(named.items())


def standing_in_all(libraries: list[Path]) -> dict[str, tuple[bytes, ...]]:
    """Digests by module of the paragraphs that every library has in that module, none twice."""
    first, *others = ({name: [*python_docs.paragraphs(text)] for name, text in sources(library)}
                      for library in libraries)  # fmt: skip
    kept: dict[str, tuple[bytes, ...]] = {}
    seen: set[str] = set()
    for module, here in first.items():
        common = set(here).intersection(*(other.get(module, ()) for other in others)) - seen
        if sum(map(len, common)) < SHORTEST_DOCUMENT:
            continue
        seen |= common
        kept[module] = tuple(python_docs.paragraph_digest(p) for p in here if p in common)
    return kept


def main() -> None:
    """Write the list beside the reader and print its size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("library", nargs="+", type=Path)
    listed = standing_in_all(parser.parse_args().library)
    python_docs.DIGESTS.write_text(python_docs.write_list(listed), "ascii")
    print(f"{len(listed)} modules, {sum(map(len, listed.values()))} paragraphs")


if __name__ == "__main__":
    main()
