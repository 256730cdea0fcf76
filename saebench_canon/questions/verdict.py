"""What may be said of a dictionary: complete? atomic? unique? (METRICS.md section 6).

Every sentence carries its numbers, their intervals and the margins it was decided by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Literal

from saebench_canon.plugin.line import Line
from saebench_canon.plugin.row import Axis
from saebench_canon.questions.atomic import atomic
from saebench_canon.questions.complete import complete
from saebench_canon.questions.margins import Answer, Margins
from saebench_canon.questions.sentences import (
    counted,
    interval,
    lacking_seeds,
    number,
    places_apart,
    short,
    why_missing,
)
from saebench_canon.tables.summary import Block

Question = Literal["complete?", "atomic?", "unique?"]
FITNESS_UNKNOWN = "fitness unknown: fidelity was not measured"


@dataclass(frozen=True)
class Verdict:
    """One sentence on one question at one dictionary size or step, and what to read beside it."""

    question: Question
    at: str
    answer: Answer
    sentence: str
    beside: tuple[str, ...] = ()  # caveats, training tokens, dead share


def verdicts(block: Block, *, margins: Margins | None = None) -> tuple[Verdict, ...]:
    """The sentences of one block: completeness by step, atomicity and uniqueness by size."""
    margins = margins or Margins()
    return (
        *_each(block, "complete?", "stitching", margins, steps=True),
        *_atomicity(block, margins),
        *_each(block, "unique?", "seed_matching", margins),
    )


def unique(line: Line, *, margins: Margins) -> tuple[Answer, str]:
    """Whether another seed finds the same latents, from shared_share and its null."""
    cell = line.cells.get("shared_share")
    if cell is None or cell.estimate is None:
        return "not judged", f"not judged: {why_missing('shared_share', cell)}"
    shared, null = cell.estimate, cell.null
    said = f"{number(shared)} of the latents come back with another seed"
    chance = "" if null is None else f"; random rows {short(null.value)}"
    if shared.seeds < margins.seeds or shared.lo is None or shared.hi is None:
        return "not judged", f"not judged: {said}{chance}; {lacking_seeds(shared, margins)}."
    if null is None:
        return "not judged", f"not judged: {said}; the null, null_shared, is missing."
    places = places_apart(margins.null_shared, null.value)
    limit = f"limit {short(margins.null_shared, places)}"
    chance = f"; random rows {short(null.value, places)}"
    if null.value > margins.null_shared:
        return "not measurable", (
            f"not measurable here: {short(null.value, places)} of random rows come back too "
            f"({limit})."
        )
    places = places_apart(margins.unique, shared.lo, shared.hi)
    said = f"{number(shared, places)} of the latents come back with another seed"
    line_at = f"unique from {short(margins.unique, places)}{chance}, {limit}"
    if shared.hi < margins.unique:
        return "no", f"Not unique: {said} ({line_at})."
    if shared.lo >= margins.unique:
        return "yes", f"The same latents with every seed: {said} ({line_at})."
    return "undecided", f"undecided: shared_share in {interval(shared, places)} ({line_at})."


def _each(
    block: Block, question: Question, metric: str, margins: Margins, *, steps: bool = False
) -> Iterator[Verdict]:
    tables = list(block.of(metric))
    lines = [
        (table, line) for table in tables for line in table.lines if len(line.key) > 1 or not steps
    ]
    if not lines:
        what = f"{metric} of a smaller and a larger SAE" if steps else metric
        yield Verdict(question, "", "not judged", f"not judged: {what} was not measured.")
    for table, line in lines:
        at = line.title if len(tables) == 1 else f"{line.title} ({table.label})"
        yield _judge(block, question, at, line, margins)


def _judge(block: Block, question: Question, at: str, line: Line, margins: Margins) -> Verdict:
    training = _training(block, line) if question == "unique?" else ()
    beside = (*block.reasons("caveat", line), *_fitness(block, line), *training)
    if line.unfit:
        return Verdict(question, at, "not judged", _unfit(block, line), beside)
    if question == "unique?":
        answer, sentence = unique(line, margins=margins)
        return Verdict(question, at, answer, sentence, beside)
    answer, sentence = complete(line, margins=margins)
    return Verdict(question, at, answer, sentence, beside)


def _atomicity(block: Block, margins: Margins) -> Iterator[Verdict]:
    """Each size by its meta-SAE and by smaller SAEs: one sentence from both tests.

    Tables of other settings have sentences of their own. Of several smaller SAEs that one speaks
    which finds composition, or else the next smaller.
    """
    metas, tables = list(block.of("meta_sae")), list(block.of("composition"))
    of_pairs = {id(each): [line for line in each.lines if len(line.key) > 1] for each in tables}
    lines = (*chain.from_iterable(each.lines for each in metas), *chain(*of_pairs.values()))
    sizes = dict.fromkeys(_size(line) for line in lines)
    told = False
    for meta, table in product(metas or (None,), tables or (None,)):
        labels = [each.label for each, beside in ((meta, metas), (table, tables))
                  if each is not None and len(beside) > 1]  # fmt: skip
        for size in sizes:
            own = [line for line in (meta.lines if meta else ()) if _size(line) == size]
            below = of_pairs[id(table)] if table else []
            pairs = [line for line in below if _size(line) == size]
            if own or pairs:
                told = True
                at = f"{size} ({', '.join(labels)})" if labels else str(size)
                yield _atom(block, at, own[0] if own else None, pairs, margins)
    if not told:
        lost = "neither meta_sae nor composition was measured"
        yield Verdict("atomic?", "", "not judged", f"not judged: {lost}.")


def _size(line: Line) -> Axis:
    """The size, or the name, of a line's larger SAE."""
    return line.key[-1] if line.key else line.title


def _atom(
    block: Block, at: str, meta: Line | None, pairs: Sequence[Line], margins: Margins
) -> Verdict:
    """The verdict by the meta-SAE and by the smaller SAEs, the next smaller one last."""
    smaller: Sequence[Line | None] = pairs or (None,)
    judged = [(pair, *atomic(meta, pair, margins=margins)) for pair in smaller]
    found = [each for each in judged if each[1] == "no"]
    pair, answer, sentence = found[-1] if found else judged[-1]
    lines = [line for line in (meta, pair) if line is not None]
    beside = dict.fromkeys(
        said for line in lines for said in (*block.reasons("caveat", line), *_fitness(block, line))
    )
    own = meta or pair
    if own is not None and own.unfit:
        return Verdict("atomic?", at, "not judged", _unfit(block, own), tuple(beside))
    return Verdict("atomic?", at, answer, sentence, tuple(beside))


def _unfit(block: Block, line: Line) -> str:
    first, *more = block.reasons("unfit", line)
    rest = f", and {len(more)} more (†)" if more else ""
    return f"not judged: {first}{rest}."


def _fitness(block: Block, line: Line) -> Iterator[str]:
    """That nobody looked whether the line's SAEs are fit to be judged, where this is so."""
    judged = {
        name
        for table in block.of("fidelity")
        for each in table.lines
        if any(cell.status == "measured" for cell in each.cells.values())
        for name in each.subjects
    }
    lost = [name for name in line.subjects if name not in judged]
    if not lost:
        return
    some = f" ({', '.join(lost)})" if len(lost) < len(line.subjects) else ""
    yield f"{FITNESS_UNKNOWN}{some}"


def _training(block: Block, line: Line) -> Iterator[str]:
    """Dead share and training tokens of the line's sizes: under-training looks like instability."""
    dead = {
        each.key: each.cells["dead_share"].estimate
        for table in block.of("fidelity")
        for each in table.lines
        if "dead_share" in each.cells
    }
    shares = [short(found.value) for key in line.key if (found := dead.get((key,)))]
    if shares:
        yield f"dead share {', '.join(dict.fromkeys(shares))}"
    tokens = [n for key in line.key for n in block.train_tokens.get(key, ())]
    if tokens:
        yield f"trained on {', '.join(dict.fromkeys(counted(n) for n in tokens))} tokens"
