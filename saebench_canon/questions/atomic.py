"""Atomic? Whether latents are sums of smaller or larger ones, or of directions that they share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from saebench_canon.plugin.line_rules import unfit
from saebench_canon.plugin.question import NOT_JUDGED, Answer, Margin, Margins, Planned, Question
from saebench_canon.plugin.row import Axis
from saebench_canon.plugin.table_line import Block, Cell, Line, Table
from saebench_canon.questions import atomic_sentences as say
from saebench_canon.questions.atomicity import AtomicLimits, atomicity, is_hub
from saebench_canon.questions.intervals import Interval
from saebench_canon.questions.judged import cell, line_of, notes_on, notes_on_kin, unfit_answer
from saebench_canon.questions.kinship import COMPARISON, Kin, View, kin_of
from saebench_canon.questions.merging import merging
from saebench_canon.questions.weighted import FEWEST, Weighted, sums
from saebench_canon.questions.witnessed import sums_witnessed
from saebench_canon.questions.words import Decision, Reason, agreed, with_nearness

DEFAULTS = AtomicLimits()


def _rule(block: Block, margins: Margins) -> Iterator[Answer]:
    """One answer for each dictionary size, and for each table of meta-SAEs if there are several."""
    kin = kin_of(block)
    metas = list(block.of("meta_sae"))
    sizes = dict.fromkeys(kin.sizes if kin is not None else ())
    sizes |= dict.fromkeys(_size(line) for table in metas for line in table.lines)
    if not sizes:
        yield Answer(NOT_JUDGED, "not judged: latents were neither compared nor decomposed.")
    for meta, size in product(metas or (None,), sizes):
        line = _line(meta, size)
        if kin is not None and size in kin.sizes:
            subjects: Sequence[str] = kin.sizes[size]
        elif line is not None:
            subjects = line.subjects
        else:
            continue
        label = f" ({meta.label})" if meta is not None and len(metas) > 1 else ""
        answer = _at(block, kin, size, line, subjects, margins)
        yield replace(answer, position=f"{size}{label}", size=size)


def _size(line: Line) -> Axis:
    return line.key[-1] if line.key else line.title


def _line(meta: Table | None, size: Axis) -> Line | None:
    lines = [] if meta is None else meta.lines
    return next((line for line in lines if _size(line) == size), None)


def _at(
    block: Block,
    kin: Kin | None,
    size: Axis,
    meta: Line | None,
    subjects: Sequence[str],
    margins: Margins,
) -> Answer:
    limits = AtomicLimits(sums=margins["composed"], recall=margins["recall"], hub=margins["hub"])
    below, above = (None, None)
    if kin is not None and size in kin.sizes:
        below, above = kin.neighbours(size)
    names = [*subjects, *(kin.sizes[below] if kin is not None and below is not None else ())]
    line = line_of(block, (size,), names)
    withheld = unfit_answer(block, line)
    if withheld is None and meta is not None:
        withheld = unfit(block, meta)
    if withheld is not None:
        return withheld
    of_meta = say.Meta.of(meta, margins["purged"])
    smaller = _smaller(kin, below, size) if kin is not None and below is not None else None
    merged = _merged(kin, size, above, limits) if kin is not None and above is not None else None
    decision = _decided(smaller, of_meta, limits)
    sentence = with_nearness(
        say.sentence(decision, smaller, merged, of_meta, limits), decision.near
    )
    numbers: dict[str, Cell] = {}
    if smaller is not None:
        numbers |= smaller.numbers()
    if merged is not None:
        numbers |= {"merged_share": cell(merged.share, null=merged.chance)}
    if of_meta is not None:
        numbers |= of_meta.numbers()
    twins = () if kin is None else notes_on_kin(kin, [s for s in (below, size) if s is not None])
    return Answer(
        decision.word, sentence, short=say.cell_of(decision, smaller, merged, of_meta),
        numbers=numbers, notes=(*notes_on(block, line), *twins),
    )  # fmt: skip


def _decided(smaller: say.Smaller | None, meta: say.Meta | None, limits: AtomicLimits) -> Decision:
    """The word: of sums of smaller latents, or of shared directions, which can only say "no"."""
    meta_lo = None if meta is None or meta.excess is None else meta.excess.lo
    if smaller is not None and smaller.floor is not None:
        decisions = [
            atomicity(found, recall=recall, meta_lo=meta_lo, limits=limits)
            for found, recall in smaller.by_view
        ]
        decision = agreed(decisions)
        likely = meta is not None and meta.excess is not None and meta.excess.value > limits.sums
        if likely and decision.word == "none-found":
            return Decision("undecided", ("meta-SAE may find sums",))
        return decision
    if meta_lo is not None and meta_lo > limits.sums:
        return Decision("no", ("sums of shared directions",))
    if smaller is not None and not math.isnan(smaller.share.value):
        return Decision("undecided", ("no floor",))
    lost: Reason = "no smaller SAE" if smaller is None else "no witness"
    heard = meta is not None and meta.excess is not None
    return Decision("undecided" if heard else "not-judged", (lost,))


def _smaller(kin: Kin, below: Axis, size: Axis) -> say.Smaller | None:
    """Rule C: the latents of a size as sums of those of the next smaller one."""
    small, large = kin.of(below), kin.of(size)
    if kin.uncompared([(of, at) for of in large for at in (*small, *large) if of != at]):
        return None
    views = kin.views((*small, *large))
    if len(large) >= FEWEST:
        by_view: list[tuple[Weighted | None, float]] = [
            (sums(view.family, small, large), _recall(view, small, large)) for view in views
        ]
        found, recall = by_view[-1]
        return say.Smaller(below, tuple(by_view), recall, *_numbers(found))
    view = views[-1]
    sae = large[0]  # where there is another start, it is a witness
    witnesses = (at for at in kin.witnesses(sae, size) if not kin.uncompared([(sae, at)]))
    witness = next(witnesses, None)
    share = (
        Interval(math.nan, math.nan, math.nan)
        if witness is None
        else sums_witnessed(view.family, small[0], sae, witness)
    )
    return say.Smaller(below, (), _recall(view, small, large), share, None, None)


def _numbers(
    found: Weighted | None,
) -> tuple[Interval, float | None, Interval | None]:
    if found is None:
        return Interval(math.nan, math.nan, math.nan), math.nan, None
    return found.share, found.floor, found.above


def _merged(kin: Kin, size: Axis, above: Axis, limits: AtomicLimits) -> say.Merged | None:
    """Rule D: the latents of a size as sums of those of the next larger one."""
    small, large = kin.of(size), kin.of(above)
    if kin.uncompared([(of, at) for of in small for at in (*small, *large) if of != at]):
        return None
    view = kin.views((*small, *large))[-1]
    result = merging(view.family, small, large, parts=view.parts)
    chance = float(np.mean([view.parent[one, other] for one in small for other in large]))
    hubs = [(pair, hub) for pair, hub in result.hubs.items() if is_hub(hub, limits=limits)]
    return say.Merged(above, result.share, chance, tuple(hubs))


def _recall(view: View, small: Sequence[str], large: Sequence[str]) -> float:
    return float(np.mean([view.recall[of, inside] for of in large for inside in small]))


NO, NONE_FOUND, UNDECIDED, NOT_MEASURABLE = "no", "none-found", "undecided", "not-measurable"
SHARE = (0, 1)
ATOMIC = Question(
    "atomic?",
    help="Are its latents no sums of a smaller dictionary's, nor of directions that they share?",
    cells="\"merges\": the share of its latents that are sums of the next larger one's.",
    needs=("composition", "meta_sae", COMPARISON),
    answers=(NO, NONE_FOUND, UNDECIDED, NOT_MEASURABLE, NOT_JUDGED),
    rule=_rule,
    plans=(Planned(COMPARISON, "family"),),
    margins=(
        Margin("composed", DEFAULTS.sums, "share of latents that must be sums, beyond the floor "
               "or beyond chance, for the dictionary not to be atomic; with less, no sums are "
               "found", between=SHARE),
        Margin("recall", DEFAULTS.recall, "share of planted sums that must be found for finding "
               "no sums to count", between=SHARE),
        Margin("purged", 0.5, "share of rows near rows kept out, above which meta-latents cannot "
               "be told from rows", between=SHARE),
        Margin("hub", DEFAULTS.hub, "share of the sums that one latent must be part of to be "
               "named", between=SHARE),
    ),
)  # fmt: skip
