"""Canonical? How many latents of each SAE pass all tests of being canonical (ours)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from saebench_canon.plugin.question import NOT_JUDGED, Answer, Margins, Planned, Question
from saebench_canon.plugin.row import Axis, ListedCase
from saebench_canon.plugin.table_line import Block
from saebench_canon.questions.canonical import Listed, list_of
from saebench_canon.questions.intervals import Interval
from saebench_canon.questions.judged import cell, line_of, notes_on, notes_on_kin, unfit_answer
from saebench_canon.questions.kinship import COMPARISON, GEOMETRY, Kin, kin_of
from saebench_canon.questions.numbers_in_sentences import short

LISTED = "listed"
BLIND = "absorbed parents and parts that are never seen apart pass too"
ALONE = (
    "another seed or a wider SAE would tell which latents are found again: "
    "`saebench-canon run THIS OTHER`"
)


def lists(block: Block, names: Sequence[str]) -> list[Listed]:
    """The list of each SAE of a size that was compared."""
    lists_found = (list_of(block, sae) for sae in names)
    return [sae for sae in lists_found if sae is not None]


def _rule(block: Block, margins: Margins) -> Iterator[Answer]:
    """One answer for each dictionary size."""
    kin = kin_of(block)
    if kin is None:
        cases = [case for case in block.cases if case.metric == GEOMETRY]
        if not cases:
            yield Answer(NOT_JUDGED, f"not judged: {ALONE}.")
        for case in cases:
            yield _alone(block, case)
        return
    for size in kin.sizes:
        yield _at(block, kin, size)


def _at(block: Block, kin: Kin, size: Axis) -> Answer:
    line = line_of(block, (size,), kin.sizes[size])
    withheld = unfit_answer(block, line)
    if withheld is not None:
        return withheld
    saes = lists(block, kin.sizes[size])
    notes = (*notes_on(block, line), *notes_on_kin(kin, [size]))
    if not any(sae.against.confirms for sae in saes):
        return Answer(NOT_JUDGED, f"not judged: {ALONE}.", size=size, position=line.title,
                      notes=notes)  # fmt: skip
    counts = [sae.count for sae in saes]
    live = [len(sae.table) for sae in saes]
    mean = sum(counts) / sum(live)
    shown = f"{_values(counts)} of {_values(live)} latents"
    sentence = f"{shown} pass all tests that could be run ({_tests(saes[0])}); {BLIND}."
    share = Interval(mean, min(c / n for c, n in zip(counts, live, strict=True)),
                     max(c / n for c, n in zip(counts, live, strict=True)))  # fmt: skip
    return Answer(LISTED, sentence, size=size, position=line.title, short=_range(counts),
                  numbers={"canonical_share": cell(share)}, notes=notes)  # fmt: skip


def _values(numbers: Sequence[int]) -> str:
    """The numbers of each SAE; one where all are equal."""
    return ", ".join(map(str, numbers)) if len(set(numbers)) > 1 else str(numbers[0])


def _alone(block: Block, case: ListedCase) -> Answer:
    """What the rows of a single SAE tell."""
    (name,) = case.subject
    size = case.members[0].get("width", name) if case.members else name
    line = line_of(block, (size,), [name])

    def score(name: str) -> float | None:
        return block.score(case, name)

    facts = []
    distinct, duplicates = score("distinct"), score("duplicates")
    if distinct is not None and duplicates is not None:
        facts.append(f"of {distinct + duplicates:.0f} live latents {duplicates:.0f} are duplicates")
    for name, text in (
        ("own_sum_share", "{} are sums of its own others"),
        ("nearest_cosine", "the nearest other is at cosine {} on average"),
    ):
        value, null = score(name), score(f"{name}_null")
        if value is not None:
            beside = "" if null is None else f" (of random rows {short(null)})"
            facts.append(f"{text.format(short(value))}{beside}")
    alone = f". Of its rows alone: {', '.join(facts)}" if facts else ""
    sentence = f"not judged: {ALONE}{alone}."
    return Answer(NOT_JUDGED, sentence, size=size, position=line.title, notes=notes_on(block, line))


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"


def _tests(sae: Listed) -> str:
    """Which tests could be run, in words."""
    against = sae.against
    ways = ["in a wider SAE"] if against.larger else []
    if against.others:
        count = len(against.others)
        which = {1: "by the other seed", 2: "by both other seeds"}
        ways.insert(0, which.get(count, f"by all {count} other seeds"))
    summed = {
        "smaller": bool(against.smaller), "larger": bool(against.larger),
        "their own SAE's other": sae.tests_own,
    }  # fmt: skip
    tested = " or ".join(name for name, could_be in summed.items() if could_be)
    sums = f"; no sums of {tested} latents" if tested else ""
    return f"found {' or '.join(ways)}{sums}; no duplicates"


CANONICAL = Question(
    "canonical?",
    help="How many latents pass all tests of being canonical?",
    cells="The fewest and the most of any seed; `show --canonical` lists them.",
    needs=("stitching", "composition", "meta_sae", "seed_matching", COMPARISON, GEOMETRY),
    answers=(LISTED, NOT_JUDGED),
    rule=_rule,
    plans=(Planned(COMPARISON, "family"), Planned(GEOMETRY, "each")),
)
