"""Unique? Whether training with another seed finds the same latents (ours)."""

from __future__ import annotations

from collections.abc import Iterator

from saebench_canon.plugin.line_rules import by_line
from saebench_canon.plugin.question import (
    NOT_JUDGED,
    NOT_MEASURABLE,
    Answer,
    Margin,
    Margins,
    Question,
)
from saebench_canon.plugin.table_line import Block, Line
from saebench_canon.questions.fitness import fitness, training
from saebench_canon.questions.numbers_in_sentences import decimals_apart, interval, number, short
from saebench_canon.questions.seeds import SEEDS, lacking_seeds

SAME, GRADED = "same", "graded"


def unique(line: Line, margins: Margins) -> Answer:
    """Whether another seed finds the same latents, from shared_share and its null."""
    shared, null = line.cells["shared_share"].estimate, line.cells["shared_share"].null
    assert shared is not None

    def answer(word: str, sentence: str) -> Answer:
        return Answer.on(line, word, sentence, "shared_share")

    share = f"{number(shared)} of the latents come back with another seed"
    null_text = "" if null is None else f"; random rows {short(null.value)}"
    if shared.seeds < margins["seeds"] or shared.lo is None or shared.hi is None:
        lacks = lacking_seeds(shared, margins)
        return answer(NOT_JUDGED, f"not judged: {share}{null_text}; {lacks}.")
    if null is None:
        return answer(NOT_JUDGED, f"not judged: {share}; the null, null_shared, is missing.")
    decimals = decimals_apart(margins["null_shared"], null.value)
    limit = f"limit {short(margins['null_shared'], decimals)}"
    null_text = f"; random rows {short(null.value, decimals)}"
    if null.value > margins["null_shared"]:
        rows = f"{short(null.value, decimals)} of random rows come back too"
        return answer(NOT_MEASURABLE, f"not measurable here: {rows} ({limit}).")
    decimals = decimals_apart(margins["unique"], shared.lo, shared.hi)
    share = f"{number(shared, decimals)} of the latents come back with another seed"
    limits = f"unique from {short(margins['unique'], decimals)}{null_text}, {limit}"
    if shared.hi < margins["unique"]:
        return answer(GRADED, f"Not unique: {share} ({limits}).")
    if shared.lo >= margins["unique"]:
        return answer(SAME, f"The same latents with every seed: {share} ({limits}).")
    between = f"shared_share in {interval(shared, decimals)}"
    return answer(GRADED, f"undecided: {between} ({limits}).")


def _notes(block: Block, line: Line) -> Iterator[str]:
    yield from fitness(block, line)
    yield from training(block, line)


UNIQUE = Question(
    "unique?",
    help="Does training with another seed find the same latents?",
    needs=("seed_matching.shared_share", "seed_matching.null_shared"),
    answers=(SAME, GRADED, NOT_MEASURABLE, NOT_JUDGED),
    rule=by_line("seed_matching", unique, scores=("shared_share",), notes=_notes),
    margins=(
        SEEDS,
        Margin("unique", 0.9, "share of the latents that other seeds find again, from which on "
               "seeds count as finding the same latents", between=(0, 1)),
        Margin("null_shared", 0.1, "share of random rows that count as found again, above which "
               "nothing can be said", between=(0, 1)),
    ),
)  # fmt: skip
