"""How the sentences of atomic? put their numbers into words."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from saebench_canon.plugin.row import Axis
from saebench_canon.plugin.table_line import Cell, Estimate, Line
from saebench_canon.questions.atomicity import AtomicLimits
from saebench_canon.questions.intervals import Interval, seeds_to_decide
from saebench_canon.questions.judged import cell
from saebench_canon.questions.merging import Hub
from saebench_canon.questions.numbers_in_sentences import ends, interval, number, short
from saebench_canon.questions.weighted import Weighted
from saebench_canon.questions.words import Decision

BLIND = "sums of directions that the smaller lacks, or that are never seen apart, are not tested"


@dataclass(frozen=True)
class Smaller:
    """Sums of the next smaller SAEs' latents: of each view, then the share of the one that judges.

    `floor` is the share that are sums of another seed's; None with fewer than three seeds.
    """

    size: Axis
    by_view: tuple[tuple[Weighted | None, float], ...]
    recall: float
    share: Interval
    floor: float | None
    above: Interval | None

    def numbers(self) -> dict[str, Cell]:
        """The scores by name."""
        if math.isnan(self.share.value):
            return {}
        numbers = {"composed_share": cell(self.share, self.floor)}
        if self.above is not None:
            numbers["composed_above_floor"] = cell(self.above)
        point = Interval(self.recall, math.nan, math.nan)
        return numbers | {"planted_recall": cell(point)}


@dataclass(frozen=True)
class Merged:
    """The share of latents that are sums of larger ones, chance, and parts in common to most."""

    size: Axis
    share: Interval
    chance: float
    hubs: tuple[tuple[tuple[str, str], Hub], ...]


@dataclass(frozen=True)
class Meta:
    """What a meta-SAE found beyond chance, its power, or why it says nothing."""

    excess: Estimate | None
    recall: Estimate | None
    purged: float | None  # share of rows near rows kept out, if it is too large
    cells: dict[str, Cell]

    @classmethod
    def of(cls, line: Line | None, most_purged: float) -> Meta | None:
        """The meta-SAE's line of a table; None if there is none."""
        if line is None:
            return None
        cells = {
            name: found
            for name in ("composed_excess", "planted_recall", "purged_share")
            if (found := line.cells.get(name)) and found.estimate
        }
        excess, recall, purged = (
            cells[name].estimate if name in cells else None
            for name in ("composed_excess", "planted_recall", "purged_share")
        )
        lost = None if purged is None or purged.value <= most_purged else purged.value
        return cls(excess if lost is None else None, recall, lost, cells)

    def numbers(self) -> dict[str, Cell]:
        """The scores by metric and name: two metrics have scores of the same name."""
        return {f"meta_sae.{name}": found for name, found in self.cells.items()}


def sentence(
    decision: Decision,
    smaller: Smaller | None,
    merged: Merged | None,
    meta: Meta | None,
    limits: AtomicLimits,
) -> str:
    """The sentence of one size: sums of smaller latents, of larger ones, of shared directions."""
    parts = [text for text in (_smaller(decision, smaller), _meta(meta)) if text]
    others = _merged(merged)
    limit = f"limit {short(limits.sums)}"
    match decision.word:
        case "no":
            head = f"Not atomic: {'; '.join(parts)} ({limit})"
        case "none-found":
            assert smaller is not None
            more = "".join(f"; {text}" for text in parts[1:])
            head = (
                f"No sums of the {smaller.size} smaller latents found: {parts[0]}{more} ({limit}); "
                f"{BLIND}"
            )
        case "not-measurable":
            head = "not measurable here: no latent is found by another seed"
        case "not-judged":
            head = f"not judged: {'; '.join([*parts, *_open(decision, smaller, limits)])}"
        case _:
            head = f"undecided: {'; '.join([*parts, *_open(decision, smaller, limits)])} ({limit})"
    return f"{head}{f'; {others}' if others else ''}."


def cell_of(
    decision: Decision, smaller: Smaller | None, merged: Merged | None, meta: Meta | None
) -> str:
    """What a grid says: the word, what are sums if any are, and how many latents are merged."""
    match decision.word:
        case "no":
            if "sums of the other" in decision.reasons and smaller is not None:
                word = f"no: {short(smaller.share.value)} are sums"
            elif meta is not None and meta.excess is not None:
                word = f"no: {short(meta.excess.value)} are sums"
            else:
                word = "no"
        case "none-found":
            word = "no sums found"
        case other:
            word = other.replace("-", " ")
    return word if merged is None else f"{word}; merges {short(merged.share.value)}"


def _smaller(decision: Decision, found: Smaller | None) -> str:
    if found is None or math.isnan(found.share.value):
        return ""
    share = f"{short(found.share.value)} {ends(found.share.lo, found.share.hi, share=True)}"
    if decision.word != "none-found":
        share = f"{share} of the latents are sums of {found.size} smaller ones"
    if found.floor is None:
        return f"{share} (no floor: it takes three seeds)"
    if decision.word == "none-found":
        return f"{share} ({short(found.floor)} of another seed's)"
    above = "" if found.above is None else f", above it {_ends(found.above)}"
    return f"{share}, and {short(found.floor)} of another seed's{above}"


def _merged(merged: Merged | None) -> str:
    """How many latents are sums of larger ones: the other direction."""
    if merged is None:
        return ""
    text = (
        f"{short(merged.share.value)} {_ends(merged.share)} of its own latents are sums of "
        f"{merged.size} larger ones (chance {short(merged.chance)})"
    )
    if merged.hubs:
        (_, larger), hub = merged.hubs[0]
        text += f", most of them with latent {hub.latent} of {larger}"
    return text


def _meta(meta: Meta | None) -> str:
    if meta is None:
        return ""
    if meta.purged is not None:
        return f"no meta-SAE tells: {short(meta.purged)} of the rows are near rows kept out"
    if meta.excess is None:
        return ""
    span = "" if meta.excess.half_width is None else f" {interval(meta.excess)}"
    power = "" if meta.recall is None else f" (it finds {number(meta.recall)} of planted sums)"
    return f"{short(meta.excess.value)}{span} are sums of a meta-SAE's latents beyond chance{power}"


def _open(decision: Decision, found: Smaller | None, limits: AtomicLimits) -> Iterator[str]:
    """What keeps the question open, and what would decide it."""
    reasons = decision.reasons
    if "common direction" in reasons:
        yield "the answer turns on the direction that the rows share"
    if "as in another seed" in reasons:
        yield "decomposition and change of basis are not told apart"
    if "may be sums" in reasons and found is not None and found.above is not None:
        seeds = seeds_to_decide(found.share, found.above, limits.sums)
        told = f": about {seeds} seeds would decide" if seeds else ""
        yield f"not told from {short(limits.sums)}{told}"
    if "planted sums unseen" in reasons and found is not None:
        yield f"only {short(found.recall)} of planted sums are found (limit {short(limits.recall)})"
    if "meta-SAE may find sums" in reasons:
        yield "what the meta-SAE finds is not told from the limit"
    if "no smaller SAE" in reasons:
        yield "no smaller SAE was compared"
    if "no witness" in reasons:
        yield "which latents are found again is not known: another seed or a wider SAE would tell"


def _ends(found: Interval) -> str:
    return ends(found.lo, found.hi)
