"""`packaged:python-docs`: English prose from the standard library of CPython 3.11 and later.

The text itself is not shipped. It is read from the docstrings and comments of the running
Python's standard library, and `python_docs.digests` lists its paragraphs in order: one
line per module, its dotted name, a space, and the base64 of its paragraphs' digests, eight
bytes each (BLAKE2b of the paragraph in UTF-8). `scripts/list_python_docs.py` wrote it.

Only the standard library is imported here, so that any Python can run this file alone.
"""

import ast
import base64
import hashlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.abc import InspectLoader
from importlib.machinery import PathFinder
from pathlib import Path
from zipimport import zipimporter

DIGESTS = Path(__file__).with_name("python_docs.digests")
DIGEST_BYTES = 8

SHORTEST, LONGEST, FEWEST_WORDS = 32, 4000, 5
LETTERS, PLAIN_WORDS = 0.75, 0.6
NOT_PROSE = re.compile(
    r">>>|\bcopyright\b|\(c\)|\blicen[sc]e|\bwarrant|\ball rights reserved\b|-\*-|\bvim?:|"
    r"\bpylint\b|\bnoqa\b|^\$|^%|https?://\S+$|^[\w.]+\(.*\)( ->.*)?$",
    re.IGNORECASE,
)
PLAIN_WORD = re.compile(r"[(\"'`*]*[A-Za-z]+(?:['-][A-Za-z]+)*[)\"'`*]*[.,;:!?]?[)\"'`*]*$")
COMMENT = re.compile(r"[ \t]*#+[:!]?(.*)$")
BLANK = re.compile(r"\n\s*\n")

READS_SOURCE = (InspectLoader, zipimporter)

Source = Callable[[str], str | None]


@dataclass(frozen=True)
class PythonDocs:
    """The listed prose that this Python has."""

    documents: tuple[tuple[str, str], ...]  # (module, its paragraphs joined by a blank line)
    expected: int  # paragraphs in the list
    missing: int  # listed paragraphs that this Python lacks
    digest: str  # hex digest of the documents; the same on every complete Python


def read_python_docs() -> PythonDocs:
    """The listed paragraphs of the running Python, in listed order, grouped by module."""
    return collect(read_list(DIGESTS.read_text("ascii")), source_of)


def collect(listed: dict[str, tuple[bytes, ...]], source: Source) -> PythonDocs:
    """The listed paragraphs that are in the sources; a module without source is skipped."""
    documents = []
    count = 0
    digest_of_all = hashlib.blake2b(digest_size=16)
    for module, digests in listed.items():
        by_digest = {paragraph_digest(text): text for text in paragraphs(source(module) or "")}
        texts = [by_digest[digest] for digest in digests if digest in by_digest]
        if not texts:
            continue
        count += len(texts)
        documents.append((module, "\n\n".join(texts)))
        digest_of_all.update(f"{module}\0{documents[-1][1]}\0".encode())
    expected = sum(map(len, listed.values()))
    return PythonDocs(tuple(documents), expected, expected - count, digest_of_all.hexdigest())


def read_list(text: str) -> dict[str, tuple[bytes, ...]]:
    """Digests by module from the text of `python_docs.digests`."""
    listed = {}
    for line in text.splitlines():
        module, packed = line.split(" ")
        raw = base64.b64decode(packed)
        starts = range(0, len(raw), DIGEST_BYTES)
        listed[module] = tuple(raw[start : start + DIGEST_BYTES] for start in starts)
    return listed


def write_list(listed: dict[str, tuple[bytes, ...]]) -> str:
    """The text of `python_docs.digests`; the inverse of `read_list`."""
    packed = {module: base64.b64encode(b"".join(digests)) for module, digests in listed.items()}
    return "".join(f"{module} {digests.decode('ascii')}\n" for module, digests in packed.items())


def paragraph_digest(paragraph: str) -> bytes:
    """Eight bytes that name a normalised paragraph."""
    return hashlib.blake2b(paragraph.encode("utf-8"), digest_size=DIGEST_BYTES).digest()


def standard_library() -> list[str]:
    """The folders of this Python's standard library, without what shadows it on sys.path."""
    zipped = "python{}{}.zip".format(*sys.version_info)
    return [os.path.dirname(os.__file__), *(p for p in sys.path if os.path.basename(p) == zipped)]


def source_of(module: str) -> str | None:
    """Source of a standard library module, found without importing it, zipped or not."""
    path = standard_library()
    loader = None
    parts = module.split(".")
    try:
        for depth in range(1, len(parts) + 1):
            spec = PathFinder.find_spec(".".join(parts[:depth]), path)
            if spec is None:
                return None
            path = spec.submodule_search_locations or []
            loader = spec.loader
        return loader.get_source(module) if isinstance(loader, READS_SOURCE) else None
    except (ImportError, OSError, SyntaxError, UnicodeError):
        return None


def paragraphs(source: str) -> Iterator[str]:
    """Paragraphs of prose in a module's source, docstrings first; none if it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    earlier = set()
    for block in (*docstrings(tree), *comments(source)):
        for part in BLANK.split(block):
            paragraph = " ".join(part.split())  # versions differ in indentation and wrapping
            if paragraph not in earlier and is_prose(paragraph):
                earlier.add(paragraph)
                yield paragraph


def docstrings(tree: ast.Module) -> Iterator[str]:
    """Docstrings of a module in source order."""
    owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    owned = [node.body[0] for node in ast.walk(tree) if isinstance(node, owners) and node.body]
    for first in sorted(owned, key=lambda statement: statement.lineno):
        match first:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield text


def comments(source: str) -> Iterator[str]:
    """Blocks of whole-line comments, without their hash signs, in source order."""
    block: list[str] = []
    for line in (*source.splitlines(), ""):
        if comment := COMMENT.match(line):
            block.append(comment[1] if any(map(str.isalpha, comment[1])) else "")
        elif block:
            yield "\n".join(block)
            block = []


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is English sentences rather than code, a table or a licence."""
    if not SHORTEST <= len(paragraph) <= LONGEST or NOT_PROSE.search(paragraph):
        return False
    words = paragraph.split()
    plain = sum(PLAIN_WORD.match(word) is not None for word in words)
    letters = sum(map(str.isalpha, paragraph)) + len(words) - 1
    return (
        len(words) >= FEWEST_WORDS
        and letters >= LETTERS * len(paragraph)
        and plain >= PLAIN_WORDS * len(words)
    )
