"""`show --latent` and `show --meta-latent`: print or write one card."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saebench_canon.bench.results import last_run
from saebench_canon.bench.store import Store
from saebench_canon.cli.terminal_line import TerminalLine
from saebench_canon.errors import UNPRINTABLE, CanonError, nearest, writing
from saebench_canon.latents import card
from saebench_canon.plugin.registry import load_registry
from saebench_canon.progress import listening
from saebench_canon.reports.safe_text import without_tags


def _json(card_: card.Card) -> str:
    text = json.dumps(card_.to_dict(), indent=1, ensure_ascii=False)
    return UNPRINTABLE.sub(lambda match: json.dumps(match[0])[1:-1], text) + "\n"


def _text(card_: card.Card) -> str:
    return without_tags(card.text(card_))


WRITERS: dict[str, Callable[[card.Card], str]] = {
    ".md": card.markdown,
    ".txt": _text,
    ".json": _json,
}


def show_latent(options: Namespace) -> None:
    """Print the card of one latent or meta-latent of a suite's last run, or write it to a file."""
    flag = "--latent" if options.latent is not None else "--meta-latent"
    for option in ("errors", "all"):
        if getattr(options, option):
            raise CanonError(f"--{option} cannot be combined with {flag}")
    request = options.latent if flag == "--latent" else options.meta_latent
    name, number = _parse(request, flag)
    path = None if options.to is None else _writable(Path(options.to))
    store = Store(Path(options.store))
    run = last_run(store, options.suite)
    registry = load_registry([Path(path) for path in options.plugin])
    from saebench_canon.latents.make_card import Cards
    from saebench_canon.latents.open_run import OpenRun

    with _progress():
        open_run = OpenRun(run, registry, store)
        sae = open_run.choose(name)
        cards = Cards(open_run)
        if name is None and len(open_run.plan.suite.saes) > 1:
            open_run.note(
                f"Of {len(open_run.plan.suite.saes)} SAEs, this is {sae.name}, the widest that "
                f"differs from the first in width only. Choose another with {flag} SAE:{number}."
            )
        latent_card = (cards.latent if flag == "--latent" else cards.meta_latent)(sae, number)
    if path is not None:
        with writing(path):
            path.write_text(WRITERS[path.suffix](latent_card), encoding="utf-8")
        print(f"wrote {path}")
    else:
        print((_json if options.json else card.text)(latent_card), end="")


def _parse(request: str, flag: str) -> tuple[str | None, int]:
    """The SAE, if one is named, and the number."""
    name, _, number = request.rpartition(":")
    if not number.isdecimal():
        raise CanonError(f"'{request}' is not a {flag[2:]}", where=flag,
                         hint="Give its number, or SAE:NUMBER.")  # fmt: skip
    return name or None, int(number)


def _writable(path: Path) -> Path:
    if not path.parent.is_dir():
        raise CanonError(f"the folder {path.parent} does not exist", where="--to")
    if path.suffix not in WRITERS:
        raise CanonError(f"a card cannot be written as '{path.suffix}'", where=str(path),
                         hint=nearest(path.suffix, WRITERS))  # fmt: skip
    return path


@contextmanager
def _progress() -> Iterator[None]:
    """Show on a terminal what has to be computed first; most of it is already in the store."""
    line = TerminalLine(sys.stderr)
    if not line.is_terminal:
        yield
        return

    def show(work: str, done: int, total: int) -> None:
        line.show(f"{work} {done}/{total}")

    with listening(show):
        try:
            yield
        finally:
            line.clear()
