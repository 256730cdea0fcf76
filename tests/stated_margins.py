"""The margins that the tests' numbers are written for; one test compares them with the defaults."""

from __future__ import annotations

from saebench_canon.plugin.question import Answer
from saebench_canon.plugin.registry import load_registry
from saebench_canon.questions.ask import answers_of
from saebench_canon.tables.summary import Block, Summary

STATED = {
    "complete?": {
        "missing": 0.05, "worth": 0.01, "worth_alone": 0.03, "latents": 20, "reproducible": 0.5,
        "worthless": 0.02, "better": 0.05, "worse": 0.05, "sums": 0.25,
    },
    "atomic?": {"composed": 0.1, "recall": 0.7, "purged": 0.5, "hub": 0.5},
    "unique?": {"unique": 0.9, "null_shared": 0.1},
    "canonical?": {},
}  # fmt: skip


def answered(summary: Summary) -> tuple[Answer, ...]:
    """The answers to all three questions by the stated margins."""
    return answers_of(summary, load_registry().questions, STATED)


def answers_on(block: Block, **margins: float) -> tuple[Answer, ...]:
    """The same on one block; a margin that is given counts for the questions that have it."""
    return tuple(
        answer
        for name, question in load_registry().questions.items()
        if name in STATED
        for answer in question.ask(
            block, **{key: margins.get(key, value) for key, value in STATED[name].items()}
        )
    )
