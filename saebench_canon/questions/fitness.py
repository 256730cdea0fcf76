"""What is printed beside a sentence: unknown fitness, dead latents, training tokens."""

from __future__ import annotations

from collections.abc import Iterator

from saebench_canon.plugin.line import Block, Line
from saebench_canon.questions.sentences import counted, short

FITNESS_UNKNOWN = "fitness unknown: fidelity was not measured"


def fitness(block: Block, line: Line) -> Iterator[str]:
    """That nobody looked whether the line's SAEs are fit to be judged, where this is so."""
    judged = {
        name
        for table in block.of("fidelity")
        for row in table.lines
        if any(cell.status == "measured" for cell in row.cells.values())
        for name in row.subjects
    }
    lost = [name for name in line.subjects if name not in judged]
    if not lost:
        return
    some = f" ({', '.join(lost)})" if len(lost) < len(line.subjects) else ""
    yield f"{FITNESS_UNKNOWN}{some}"


def training(block: Block, line: Line) -> Iterator[str]:
    """Dead share and training tokens of the line's sizes: under-training looks like instability."""
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
