"""What `show --latent` and `show --meta-latent` do: print or write one card."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from saebench_canon.bench.results import last_run
from saebench_canon.bench.store import Store
from saebench_canon.errors import CanonError, nearest
from saebench_canon.latents import card
from saebench_canon.plugin.registry import load_registry
from saebench_canon.progress import listening


def _json(made: card.Card) -> str:
    return json.dumps(made.to_dict(), indent=1, ensure_ascii=False) + "\n"


WRITERS: dict[str, Callable[[card.Card], str]] = {
    ".md": card.markdown,
    ".txt": card.text,
    ".json": _json,
}


def show_latent(options: Namespace) -> None:
    """Print the card of one latent or meta-latent of a suite's last run, or write it to a file."""
    flag = "--latent" if options.latent is not None else "--meta-latent"
    for other in ("errors", "all"):
        if getattr(options, other):
            raise CanonError(f"does not go with {flag}", where=f"--{other}")
    asked = options.latent if flag == "--latent" else options.meta_latent
    name, number = _parsed(asked, flag)
    path = None if options.to is None else _writable(Path(options.to))
    store = Store(Path(options.store))
    run = last_run(store, options.suite)
    registry = load_registry([Path(each) for each in options.plugin])
    from saebench_canon.latents.cards import Cards
    from saebench_canon.latents.opened import Opened

    with _progress():
        opened = Opened(run, registry, store)
        sae = opened.choose(name)
        cards = Cards(opened)
        if name is None and len(opened.plan.suite.saes) > 1:
            opened.note(
                f"Of {len(opened.plan.suite.saes)} SAEs {sae.name} was taken, the widest beside the"
                f" first; name another as {flag} SAE:{number}."
            )
        made = (cards.latent if flag == "--latent" else cards.meta_latent)(sae, number)
    if path is not None:
        path.write_text(WRITERS[path.suffix](made), encoding="utf-8")
        print(f"wrote {path}")
    else:
        print((_json if options.json else card.text)(made), end="")


def _parsed(asked: str, flag: str) -> tuple[str | None, int]:
    """The SAE, if one is named, and the number."""
    name, _, number = asked.rpartition(":")
    if not number.isdecimal():
        raise CanonError(f"'{asked}' is no {flag[2:]}", where=flag,
                         hint="Give its number, or SAE:NUMBER.")  # fmt: skip
    return name or None, int(number)


def _writable(path: Path) -> Path:
    if not path.parent.is_dir():
        raise CanonError(f"there is no folder {path.parent}", where="--to")
    if path.suffix not in WRITERS:
        raise CanonError(f"a card cannot be written as '{path.suffix}'", where=str(path),
                         hint=nearest(path.suffix, WRITERS))  # fmt: skip
    return path


@contextmanager
def _progress() -> Iterator[None]:
    """Say on a terminal what has to be made first; most is in the store already."""
    if not sys.stderr.isatty():
        yield
        return

    def tell(what: str, done: int, total: int) -> None:
        print(f"\r\033[K{what} {done}/{total}", end="", file=sys.stderr, flush=True)

    with listening(tell):
        try:
            yield
        finally:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
