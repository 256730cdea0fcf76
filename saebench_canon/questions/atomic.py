"""Atomic? Whether latents are sums of smaller ones, or of directions that they share (ours)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product

from saebench_canon.plugin.line_rules import unfit
from saebench_canon.plugin.question import (
    NOT_JUDGED,
    NOT_MEASURABLE,
    Answer,
    Margin,
    Margins,
    Question,
)
from saebench_canon.plugin.row import Axis
from saebench_canon.plugin.table_line import Block, Cell, Line, Table
from saebench_canon.questions.atomic_rules import (
    NEAR,
    Test,
    above,
    clear,
    composition_in,
    of_meta,
    of_pair,
    planted_recall,
    unproven,
)
from saebench_canon.questions.fitness import fitness
from saebench_canon.questions.numbers_in_sentences import number, short
from saebench_canon.questions.seeds import SEEDS

BLIND = "Sums of directions that few latents share would not be seen."
NO, NONE_FOUND, UNDECIDED = "no", "none-found", "undecided"
SCORES = ("composed_excess", "planted_recall", "purged_share")


def _rule(block: Block, margins: Margins) -> Iterator[Answer]:
    """One sentence per dictionary size, from its meta-SAE and from smaller SAEs.

    Each pair of tables with different settings gets its own sentence. Of several smaller SAEs, the
    sentence is about the one in which composition is found, or else about the next smaller.
    """
    metas, tables = list(block.of("meta_sae")), list(block.of("composition"))
    steps = {id(table): [line for line in table.lines if len(line.key) > 1] for table in tables}
    lines = (*chain.from_iterable(table.lines for table in metas), *chain(*steps.values()))
    if not lines:
        lost = "neither meta_sae nor composition was measured"
        yield Answer(NOT_JUDGED, f"not judged: {lost}.")
    sizes = dict.fromkeys(_size(line) for line in lines)
    for meta, table in product(metas or (None,), tables or (None,)):
        labels = _labels((meta, metas), (table, tables))
        for size in sizes:
            at_size = [line for line in (meta.lines if meta else ()) if _size(line) == size]
            below = steps[id(table)] if table else []
            pairs = [line for line in below if _size(line) == size]
            if at_size or pairs:
                position = f"{size} ({', '.join(labels)})" if labels else str(size)
                yield _answer(block, position, at_size[0] if at_size else None, pairs, margins)


def _labels(*tables: tuple[Table | None, Sequence[Table]]) -> list[str]:
    """The labels of the metrics that have several tables."""
    return [table.label for table, others in tables if table is not None and len(others) > 1]


def _size(line: Line) -> Axis:
    """The size, or the name, of a line's larger SAE."""
    return line.key[-1] if line.key else line.title


def _answer(
    block: Block, position: str, meta: Line | None, pairs: Sequence[Line], margins: Margins
) -> Answer:
    """The answer from the meta-SAE and the smaller SAEs, of which the next smaller comes last."""
    smaller: Sequence[Line | None] = pairs or (None,)
    judged = [(pair, *atomic(meta, pair, margins)) for pair in smaller]
    composed = [answer for answer in judged if answer[1] == NO]
    pair, word, sentence = composed[-1] if composed else judged[-1]
    lines = [line for line in (meta, pair) if line is not None]
    notes = dict.fromkeys(
        note for line in lines for note in (*block.reasons("caveat", line), *fitness(block, line))
    )
    numbers = _numbers(meta, pair)
    if withheld := unfit(block, lines[0]):
        word, sentence, numbers = withheld.answer, withheld.sentence, {}
    return Answer(
        word, sentence, size=_size(lines[0]), position=position, numbers=numbers, notes=tuple(notes)
    )


def _numbers(meta: Line | None, pair: Line | None) -> dict[str, Cell]:
    """What both tests measured, as METRIC.SCORE: two of their scores have the same name."""
    lines: Mapping[str, Line | None] = {"meta_sae": meta, "composition": pair}
    return {
        f"{metric}.{score}": cell
        for metric, line in lines.items()
        if line is not None and not line.unfit
        for score in SCORES
        if (cell := line.cells.get(score)) and cell.estimate
    }


def atomic(meta: Line | None, pair: Line | None, margins: Margins) -> tuple[str, str]:
    """The answer at one dictionary size, and the sentence that carries its numbers.

    `meta` is the size's line of `meta_sae`, `pair` its line of `composition` with a smaller SAE.
    One test is enough to find composition; finding none takes both.
    """
    both = (of_pair(pair, margins), of_meta(meta, margins))
    tests = [test for test in both if isinstance(test, Test)]
    lacks = [reason for reason in both if isinstance(reason, str)]
    near = [reason for reason in lacks if NEAR in reason]
    if not tests and near and not _has_seeds(pair):
        return NOT_MEASURABLE, f"not measurable here: {near[0]}."
    if not tests:
        return NOT_JUDGED, f"not judged: {'; '.join(dict.fromkeys(lacks))}."
    composed = [test for test in tests if above(test.beyond, margins["composed"])]
    if composed:
        shares = "; ".join(composition_in(test, margins) for test in composed)
        return NO, f"Not atomic: {shares}."
    if all(clear(test, margins) for test in tests) and len(tests) == 2:
        summands = " and ".join(test.summands for test in tests)
        shares = " and ".join(number(test.excess) for test in tests)
        recalls = " and ".join(number(planted_recall(test)) for test in tests)
        limits = f"limits {short(margins['atomic'])} and {short(margins['recall'])}"
        return NONE_FOUND, (
            f"No composition found, in {summands}: {shares} of the latents beyond chance; planted "
            f"sums are found by {recalls} ({limits}). {BLIND}"
        )
    return _open(tests, lacks, margins)


def _has_seeds(pair: Line | None) -> bool:
    """Whether sums of smaller latents were measured, with however few seeds."""
    cell = None if pair is None or pair.unfit else pair.cells.get("composed_excess")
    return cell is not None and cell.estimate is not None


def _open(tests: list[Test], lacks: list[str], margins: Margins) -> tuple[str, str]:
    """What keeps the question open."""
    limits = f"limits {short(margins['atomic'])} and {short(margins['composed'])}"
    parts = [f"{'; '.join(test.beyond_chance() for test in tests)} ({limits})"]
    for test in tests:
        if test.beyond is None and above(test.excess, margins["atomic"]):
            parts.append(f"no floor for sums of {test.summands}")
        parts.extend(unproven(test, margins))
    return UNDECIDED, f"undecided: {'; '.join([*parts, *lacks])}."


SHARE = (0, 1)
ATOMIC = Question(
    "atomic?",
    help="Are latents sums of a smaller SAE's latents, or of directions that they share?",
    needs=("meta_sae.composed_excess", "composition.composed_excess"),
    answers=(NO, NONE_FOUND, UNDECIDED, NOT_MEASURABLE, NOT_JUDGED),
    rule=_rule,
    margins=(
        SEEDS,
        Margin("composed", 0.1, "share of latents that must be sums, beyond chance and the floor, "
               "for the dictionary not to be atomic", between=SHARE),
        Margin("atomic", 0.05, "share of latents that are sums beyond chance; with less, no "
               "composition is found", between=SHARE),
        Margin("recall", 0.7, "share of planted sums that a test must find for its finding none "
               "to count", between=SHARE),
        Margin("purged", 0.5, "share of rows near rows kept out, above which meta-latents cannot "
               "be told from rows", between=SHARE),
    ),
)  # fmt: skip
