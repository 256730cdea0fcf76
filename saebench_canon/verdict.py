"""What may be said of a dictionary: complete? atomic? unique? (METRICS.md section 6).

Every sentence carries its numbers, their intervals and the margins it was decided by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from saebench_canon.stats import Estimate
from saebench_canon.summary import Block, Cell, Line

Question = Literal["complete?", "atomic?", "unique?"]
Answer = Literal["no", "yes", "undecided", "not measurable", "not judged"]

PLACES = 2  # decimals of a share
EQUAL = 12  # decimals to which a share and a margin that print alike are the same
FITNESS_UNKNOWN = "fitness unknown: fidelity was not measured"


@dataclass(frozen=True)
class Margins:
    """Where the lines are drawn; every one is a choice of ours and printed with the sentence."""

    unique: float = 0.9  # shared share from which a dictionary counts as unique
    null_shared: float = 0.1  # shared share of random rows above which nothing can be said
    seeds: int = 3  # training seeds below which nothing is judged


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
        *_each(block, "atomic?", "meta_sae", margins),
        *_each(block, "unique?", "seed_matching", margins),
    )


def unique(line: Line, *, margins: Margins) -> tuple[Answer, str]:
    """Whether another seed finds the same latents, from shared_share and its null."""
    cell = line.cells.get("shared_share")
    if cell is None or cell.estimate is None:
        return "not judged", f"not judged: {_missing('shared_share', cell)}"
    shared, null = cell.estimate, cell.null
    said = f"{_number(shared)} of the latents come back with another seed"
    chance = "" if null is None else f"; random rows {_short(null.value)}"
    if shared.seeds < margins.seeds or shared.lo is None or shared.hi is None:
        return "not judged", f"not judged: {said}{chance}; {_wanting(shared, margins)}."
    if null is None:
        return "not judged", f"not judged: {said}; the null, null_shared, is missing."
    places = _places(margins.null_shared, null.value)
    limit = f"limit {_short(margins.null_shared, places)}"
    chance = f"; random rows {_short(null.value, places)}"
    if null.value > margins.null_shared:
        return "not measurable", (
            f"not measurable here: {_short(null.value, places)} of random rows come back too "
            f"({limit})."
        )
    places = _places(margins.unique, shared.lo, shared.hi)
    said = f"{_number(shared, places)} of the latents come back with another seed"
    line_at = f"unique from {_short(margins.unique, places)}{chance}, {limit}"
    if shared.hi < margins.unique:
        return "no", f"Not unique: {said} ({line_at})."
    if shared.lo >= margins.unique:
        return "yes", f"The same latents with every seed: {said} ({line_at})."
    return "undecided", f"undecided: shared_share in {_interval(shared, places)} ({line_at})."


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
        first, *more = block.reasons("unfit", line)
        rest = f", and {len(more)} more (†)" if more else ""
        return Verdict(question, at, "not judged", f"not judged: {first}{rest}.", beside)
    if question == "unique?":
        answer, sentence = unique(line, margins=margins)
        return Verdict(question, at, answer, sentence, beside)
    say = _completeness if question == "complete?" else _atomicity
    return Verdict(question, at, "not judged", say(line, margins), beside)


def _completeness(line: Line, margins: Margins) -> str:
    novel, gain = line.cells.get("novel_share"), line.cells.get("novel_gain")
    if novel is None or gain is None or novel.estimate is None or gain.estimate is None:
        lost = novel if novel is None or novel.estimate is None else gain
        name = "novel_share" if lost is novel else "novel_gain"
        return f"not judged: {_missing(name, lost)}"
    parts = [
        f"{_number(novel.estimate)} of the larger's latents are novel{_floor(novel)}",
        f"inserting them {_change(gain)} of the error{_at_floor(gain)}",
    ]
    if novel.estimate.seeds < margins.seeds:
        parts.append(_wanting(novel.estimate, margins))
    if gain.floor is None and gain.null is not None:
        above = gain.estimate.value - gain.null.value
        parts.append(f"no floor: above the random dictionary by {_short(above)}")
    return f"not judged yet: {'; '.join(parts)}."


def _verb(gain: Estimate) -> str:
    return "adds" if gain.value < 0 else "removes"


def _change(gain: Cell) -> str:
    """A gain in words: its sign is in the verb."""
    assert gain.estimate is not None
    size = _negative(gain.estimate) if gain.estimate.value < 0 else gain.estimate
    return f"{_verb(gain.estimate)} {_number(size)}"


def _at_floor(gain: Cell) -> str:
    """The floor of a gain, with its own verb where that is another."""
    if gain.floor is None or gain.estimate is None:
        return ""
    verb = _verb(gain.floor)
    told = "" if verb == _verb(gain.estimate) else f": {verb}"
    return f" (floor{told} {_short(abs(gain.floor.value))})"


def _atomicity(line: Line, margins: Margins) -> str:
    cell = line.cells.get("explained_variance")
    if cell is None or cell.estimate is None:
        return f"not judged: {_missing('explained_variance', cell)}"
    above, held = line.cells.get("above_null"), line.cells.get("heldout_explained_variance")
    parts = [f"a meta-SAE explains {_number(cell.estimate)} of the decoder rows"]
    if above is not None and above.estimate is not None:
        excess = above.estimate
        more = "more" if excess.value >= 0 else "less"
        excess = excess if excess.value >= 0 else _negative(excess)
        parts[0] += f", {_number(excess)} {more} than of random rows with their covariance"
    if held is not None and held.estimate is not None:
        null = "" if held.null is None else f" (null {_short(held.null.value)})"
        parts.append(f"of rows held out {_number(held.estimate)}{null}")
    if cell.estimate.seeds < margins.seeds:
        parts.append(_wanting(cell.estimate, margins))
    return f"not judged yet: {'; '.join(parts)}."


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
    shares = [_short(found.value) for key in line.key if (found := dead.get((key,)))]
    if shares:
        yield f"dead share {', '.join(dict.fromkeys(shares))}"
    tokens = [n for key in line.key for n in block.train_tokens.get(key, ())]
    if tokens:
        yield f"trained on {', '.join(dict.fromkeys(_count(n) for n in tokens))} tokens"


def _wanting(estimate: Estimate, margins: Margins) -> str:
    if estimate.seeds >= margins.seeds:
        return "no interval"
    if estimate.seeds == 1:
        alone = ", the interval is of this SAE alone" if estimate.conditional else ""
        return f"one seed of the {margins.seeds} it takes{alone}"
    values = " and ".join(_short(value) for value in estimate.values)
    shown = f" ({values})" if len(estimate.values) > 1 else ""
    return f"{estimate.seeds} seeds{shown} of the {margins.seeds} it takes"


def _missing(name: str, cell: Cell | None) -> str:
    if cell is None or cell.status == "missing":
        return f"{name} was not measured."
    return f"{name} {'failed' if cell.status == 'failed' else 'is undefined'} (see the notes)."


def _floor(cell: Cell) -> str:
    return "" if cell.floor is None else f" (floor {_short(cell.floor.value)})"


def _negative(estimate: Estimate) -> Estimate:
    return Estimate(
        -estimate.value,
        estimate.half_width,
        estimate.n,
        estimate.unit,
        estimate.kind,
        tuple(-value for value in estimate.values),
        estimate.stderr,
        estimate.df,
    )


def _number(estimate: Estimate, places: int = PLACES) -> str:
    interval = "" if estimate.half_width is None else f" {_interval(estimate, places)}"
    return f"{_short(estimate.value, places)}{interval}"


def _interval(estimate: Estimate, places: int = PLACES) -> str:
    assert estimate.lo is not None
    assert estimate.hi is not None
    return f"[{_short(estimate.lo, places)}, {_short(estimate.hi, places)}]"


def _places(margin: float, *values: float) -> int:
    """As many decimals as tell the values from the margin; those that agree to 12 are equal."""
    for places in range(PLACES, EQUAL):
        same = [value for value in values if f"{value:.{places}f}" == f"{margin:.{places}f}"]
        if all(abs(value - margin) < 10**-EQUAL for value in same):
            return places
    return EQUAL


def _short(value: float, places: int = PLACES) -> str:
    """Two decimals, or more, without the zero in front, as papers print shares."""
    text = f"{value:.{places}f}"
    text = f"{0:.{places}f}" if float(text) == 0 else text
    return text.replace("0.", ".", 1) if abs(value) < 1 and text.lstrip("-")[0] == "0" else text


def _count(number: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"
