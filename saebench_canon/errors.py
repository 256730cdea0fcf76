"""How the program says what is wrong: one sentence, where, and what to do."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LISTED = 12  # known names in a hint
SAID = 300  # letters of another library's message
LONGEST = 1000  # letters of a fault, a place or a hint
# What moves the cursor, changes a terminal's state, hides text or reorders it: control characters
# but for tabs and line ends, directions of writing, characters without width, tags, surrogates.
UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    r"\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
# A sentence of another library on what it has printed, which this program keeps from the terminal.
ABOVE = re.compile(r"\b(?:see|look|refer|details?)\b.*\babove\b|\babove report\b", re.I | re.S)
SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s)")
LINE_END = re.compile(r"\s*\n\s*")


def printable(text: str) -> str:
    """The text with each character that a terminal would obey instead of showing as \\x1b.

    Tabs and line ends stay. All that leaves the program for a terminal or a page passes here.
    """
    return UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """The text as one printable line, so that no name can write lines of its own."""
    return printable(LINE_END.sub(" ", text))


def message_of(error: BaseException) -> str:
    """What an error of another library says, in one line and without its last full stop.

    All its lines count, since the first of several often only announces the others.
    """
    words = " ".join(without_above(str(error)).split()) or type(error).__name__
    return textwrap.shorten(words, SAID, placeholder=" …").rstrip(".")


def without_above(text: str) -> str:
    """A message of another library without sentences on what stands above it: nothing does."""
    return "".join(part for part in SENTENCE_END.split(text) if not ABOVE.search(part))


def _cut(text: str) -> str:
    """The text without its middle if that is longer than a reader will read."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


class CanonError(Exception):
    """A mistake that its reader can mend: what is wrong, where (file, table), and a hint."""

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint
        self.placed = False  # whether `where` already begins with a place in a suite

    def __str__(self) -> str:
        what, where, hint = _cut(self.what), _cut(self.where or ""), _cut(self.hint or "")
        fault = what.rstrip(".") if where or hint else what
        sentence = fault if self.where is None else f"{fault} ({where})"
        return one_line(sentence if not hint else f"{sentence}. {hint}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.where, self.hint)


class NotOffline(CanonError):
    """Something that only a hub has, and the hub cannot be reached."""


class StoreError(CanonError):
    """The store cannot be written or read: no case can be measured any more."""


@contextmanager
def placed(where: str | None) -> Iterator[None]:
    """Say of mistakes inside the block where in the suite they stand, if they do not say so yet."""
    try:
        yield
    except CanonError as error:
        if where is None or error.placed or where in (error.where or ""):
            raise
        inner = where if error.where is None else f"{where}: {error.where}"
        complete = type(error)(error.what, where=inner, hint=error.hint)
        complete.placed = True
        raise complete from error.__cause__


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a file that the block writes for the user, and cannot, which it is and why."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CanonError(f"{path} cannot be written ({reason})") from error


def from_system(error: OSError) -> CanonError:
    """What the operating system refused, as a sentence with the file's name."""
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is None:
        return CanonError(f"the system refuses a file operation: {reason}")
    return CanonError(f"the file or folder {error.filename} cannot be used: {reason}")


def expanded(text: str) -> Path:
    """The path with `~` replaced; raises CanonError if there is no such home folder."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise CanonError(f"'{text}' begins with the home folder of an unknown user") from None


def _rebuild(kind: type[CanonError], what: str, where: str | None, hint: str | None) -> CanonError:
    return kind(what, where=where, hint=hint)


def nearest(name: str, known: Iterable[str]) -> str:
    """The hint after an unknown name: what was probably meant, and the names that are known."""
    names = sorted(known)
    meant = _meant(difflib.get_close_matches(name, names, n=3, cutoff=0.6))
    return " ".join(sentence for sentence in (meant, known_names(names)) if sentence)


def _meant(names: Sequence[str]) -> str:
    return f"Did you mean {' or '.join(map(repr, names))}?" if names else ""


def nearest_file(path: Path) -> str:
    """The hint after a file or folder that does not exist: names like it in its folder."""
    names = [entry.name for entry in path.parent.glob("*")] if path.parent.is_dir() else []
    return _meant(difflib.get_close_matches(path.name, names, n=3, cutoff=0.6))


def known_names(names: Sequence[str]) -> str:
    """The names as a hint, those beyond the first twelve as a number."""
    if not names:
        return ""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"Known: {', '.join(names[:LISTED])}{more}."
