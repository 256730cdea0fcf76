"""Notes printed after an answer: unknown fitness, dead latents, training tokens."""

from __future__ import annotations

from collections.abc import Iterator

from saebench_canon.plugin.table_line import Block, Line
from saebench_canon.questions.numbers_in_sentences import counted, short

FITNESS_UNKNOWN = "fitness unknown: fidelity was not measured"


def fitness(block: Block, line: Line) -> Iterator[str]:
    """A note if some of the line's SAEs were never checked for fitness."""
    judged = {
        name
        for table in block.of("fidelity")
        for row in table.lines
        if any(cell.status == "measured" for cell in row.cells.values())
        for name in row.subjects
    }
    unchecked = [name for name in line.subjects if name not in judged]
    if not unchecked:
        return
    some = f" ({', '.join(unchecked)})" if len(unchecked) < len(line.subjects) else ""
    yield f"{FITNESS_UNKNOWN}{some}"


def training(block: Block, line: Line) -> Iterator[str]:
    """Dead share and training tokens per size, since under-training looks like instability."""
    dead = {
        row.key: row.cells["dead_share"].estimate
        for table in block.of("fidelity")
        for row in table.lines
        if "dead_share" in row.cells
    }
    shares = [short(share.value) for key in line.key if (share := dead.get((key,)))]
    if shares:
        yield f"dead share {', '.join(dict.fromkeys(shares))}"
    tokens = [n for key in line.key for n in block.train_tokens.get(key, ())]
    if tokens:
        yield f"trained on {', '.join(dict.fromkeys(counted(n) for n in tokens))} tokens"
