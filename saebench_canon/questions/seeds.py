"""How many training seeds an answer needs, and the sentence for fewer."""

from __future__ import annotations

from saebench_canon.plugin.question import Margin, Margins
from saebench_canon.plugin.table_line import Estimate
from saebench_canon.questions.numbers_in_sentences import short

SEEDS = Margin(
    "seeds", 3, "training seeds that a score must come from for anything to be judged by it",
    between=(1, float("inf")),
)  # fmt: skip


def lacking_seeds(estimate: Estimate, margins: Margins) -> str:
    """What an estimate without an interval lacks."""
    needed = f"{margins['seeds']:g}"
    if estimate.seeds >= margins["seeds"]:
        return "no interval"
    if estimate.seeds == 1:
        alone = ", the interval is of this SAE alone" if estimate.conditional else ""
        return f"one seed of the {needed} it takes{alone}"
    values = " and ".join(short(value) for value in estimate.values)
    shown = f" ({values})" if len(estimate.values) > 1 else ""
    return f"{estimate.seeds} seeds{shown} of the {needed} it takes"
