"""Unique? Whether training with another seed finds the same latents (ours)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from saebench_canon.plugin.question import (
    NOT_JUDGED,
    NOT_MEASURABLE,
    Answer,
    Margin,
    Margins,
    Planned,
    Question,
)
from saebench_canon.plugin.row import Axis
from saebench_canon.plugin.table_line import Block, Cell
from saebench_canon.questions import unique_sentences as say
from saebench_canon.questions.by_other_seeds import FoundAgain, found_again
from saebench_canon.questions.fitness import training
from saebench_canon.questions.intervals import Interval
from saebench_canon.questions.judged import cell, line_of, notes_on, notes_on_kin, unfit_answer
from saebench_canon.questions.kinship import COMPARISON, Kin, kin_of
from saebench_canon.questions.words import NEAR, with_nearness

SAME, GRADED = "same", "graded"
MATCHING = "seed_matching"
BY_ROWS = ("found_by_two", "found_by_one", "found_by_none")


def _rule(block: Block, margins: Margins) -> Iterator[Answer]:
    """One answer for each dictionary size."""
    kin = kin_of(block)
    if kin is None:
        yield Answer(NOT_JUDGED, "not judged: no SAEs of one size were compared.")
        return
    for size in kin.sizes:
        yield _at(block, kin, size, margins)


def _at(block: Block, kin: Kin, size: Axis, margins: Margins) -> Answer:
    line = line_of(block, (size,), kin.sizes[size])
    withheld = unfit_answer(block, line)
    if withheld is not None:
        return withheld
    saes = kin.of(size)
    notes = (*notes_on(block, line), *notes_on_kin(kin, [size]), *training(block, line))

    def answer(word: str, sentence: str, short: str = "", **numbers: Cell) -> Answer:
        return Answer(word, sentence, size=size, position=line.title, short=short,
                      numbers=numbers, notes=notes)  # fmt: skip

    if len(saes) < 2:
        return answer(NOT_JUDGED, "not judged: one seed: another one would tell.")
    pairs = [(of, inside) for of in saes for inside in saes if of != inside]
    if lost := kin.uncompared(pairs):
        return answer(NOT_JUDGED, f"not judged: {lost}.")
    matched = _matched(block, size)
    null = _null(matched)
    if null is not None and null > margins["null_shared"]:
        return answer(NOT_MEASURABLE, say.by_chance(null, margins["null_shared"]))
    found = found_again(kin.views(saes)[-1].family, saes)
    numbers = _numbers(found, null) | {
        name: of for name, of in matched.items() if name in say.OTHERS
    }
    same = len(saes) > 2 and found.shared.lo >= margins["unique"]
    word = SAME if same else GRADED
    near = len(saes) > 2 and abs(found.shared.above(margins["unique"])) < NEAR
    sentence = with_nearness(say.sentence(found, null, margins["unique"], matched, same=same), near)
    return answer(word, sentence, say.cell_of(found, word), **numbers)


def _matched(block: Block, size: Axis) -> Mapping[str, Cell]:
    """What seed_matching measured at a size: of codes and encoders, variance, and the null."""
    for table in block.of(MATCHING):
        for line in table.lines:
            if line.key == (size,):
                return {name: of for name, of in line.cells.items() if of.estimate is not None}
    return {}


def _null(matched: Mapping[str, Cell]) -> float | None:
    """The share of random rows that another seed's random rows find: by two, and half of by one."""
    nulls = [matched[name].null if name in matched else None for name in BY_ROWS[:2]]
    two, one = (None if null is None else null.value for null in nulls)
    if one is None:
        return None
    return one if two is None else two + one / 2


def _numbers(found: FoundAgain, null: float | None) -> dict[str, Cell]:
    numbers = {"found_again_share": cell(found.shared, null=null)}
    if len(found.shares) == len(BY_ROWS):
        points = [Interval(share, math.nan, math.nan) for share in found.shares]
        shares = found.intervals or points
        numbers |= {name: cell(share) for name, share in zip(BY_ROWS, shares, strict=True)}
    return numbers


UNIQUE = Question(
    "unique?",
    help="Does training with another seed find the same latents?",
    cells="The shares of latents that are found by two other seeds / by one / by neither.",
    needs=(MATCHING, COMPARISON),
    answers=(SAME, GRADED, NOT_MEASURABLE, NOT_JUDGED),
    rule=_rule,
    plans=(Planned(COMPARISON, "family"),),
    margins=(
        Margin("unique", 0.9, "share of the latents that another seed must find for seeds to count "
               "as finding the same latents", between=(0, 1)),
        Margin("null_shared", 0.1, "share of random rows that count as found by another seed, "
               "above which nothing can be said", between=(0, 1)),
    ),
)  # fmt: skip
