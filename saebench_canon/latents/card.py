"""The card of one latent, as text of 100 columns, as Markdown or as plain data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from saebench_canon.errors import one_line
from saebench_canon.latents.token_text import columns, first_columns, last_columns, quoted, visible
from saebench_canon.plugin.evidence import Context, Evidence
from saebench_canon.reports.safe_text import for_markdown
from saebench_canon.reports.terminal import WIDTH, number

if TYPE_CHECKING:
    from saebench_canon.latents.evidence import Firing

NO_LABEL = "–"
BACKTICKS = re.compile("`+")
JOINED = "\N{NO-BREAK SPACE}"  # where a line must not break


@dataclass(frozen=True)
class Related:
    """A latent or meta-latent listed on the card of another, with its weight or cosine."""

    number: int
    weight: float
    label: str | None
    explained: float | None = None  # share of the row explained by this one and those before it


@dataclass(frozen=True)
class Section:
    """A list on a card: meta-latents, nearest smaller latents, a sum, or latents."""

    kind: Literal["meta_latents", "nearest", "sum", "latents"]
    title: str
    items: tuple[Related, ...]
    more: int = 0  # how many lighter ones are not listed
    explained: float | None = None  # share of the row explained by all of them
    sentences: tuple[str, ...] = ()  # below the list


@dataclass(frozen=True)
class Card:
    """Everything that is shown about one latent or meta-latent."""

    suite: str
    label: str | None
    evidence: Evidence
    firing: Firing | None = None
    source: str | None = None  # name of the evaluation text
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()
    canonical: str | None = None  # why it is, or which test it fails

    def to_dict(self) -> dict[str, Any]:
        """The card as `show --latent --json` prints it."""
        evidence = asdict(self.evidence)
        number_, kind = evidence.pop("latent"), evidence.pop("kind")
        head = {"suite": self.suite, "sae": evidence.pop("sae"), "kind": kind, "number": number_}
        sections = {section.kind: asdict(section) for section in self.sections}
        for section in sections.values():
            del section["kind"]
        return {
            **head,
            "label": self.label,
            "firing": None if self.firing is None else asdict(self.firing),
            "canonical": self.canonical,
            "source": self.source,
            **evidence,
            **{kind: sections.get(kind) for kind in ("meta_latents", "nearest", "sum", "latents")},
            "notes": list(self.notes),
        }


def text(card: Card, *, width: int = WIDTH) -> str:
    """The card for a terminal."""
    return "\n\n".join([f"── {_title(card)} ".ljust(width, "─"), *_parts(card, width)]) + "\n"


def markdown(card: Card) -> str:
    """The card as a Markdown page."""
    body = "\n\n".join(_parts(card, WIDTH))
    longest = max(map(len, BACKTICKS.findall(body)), default=0)
    fence = "`" * max(longest + 1, 3)  # which no text of the body ends
    return f"# {for_markdown(_title(card))}\n\n{fence}text\n{body}\n{fence}\n"


def _title(card: Card) -> str:
    evidence = card.evidence
    return one_line(f"{evidence.kind} {evidence.latent} of {evidence.sae} ({card.suite})")


def _parts(card: Card, width: int) -> Iterator[str]:
    lines = [first_columns(visible(card.label or NO_LABEL), width)]
    if card.firing is not None:
        lines.append(_wrapped(_fires(card.firing), width))
    if card.canonical is not None:
        lines.append(_wrapped(card.canonical, width))
    yield "\n".join(lines)
    evidence = card.evidence
    fired = [(quoted(token.text), number(token.share, 2)) for token in evidence.tokens]
    promoted = [(quoted(token.text), number(token.z, 1)) for token in evidence.promoted]
    token_lines = [
        _wrapped(_joined(tokens), width, f"{name:<10}")
        for name, tokens in (("tokens", fired), ("promotes", promoted))
        if tokens
    ]
    if token_lines:
        yield "\n".join(token_lines)
    if evidence.contexts:
        digits = 2 if evidence.contexts[0].code >= 1 else 4
        head = f"{'code':>6}  top contexts in {one_line(str(card.source))}"
        lines = [_context(context, digits, width) for context in evidence.contexts]
        yield "\n".join([first_columns(head, width), *lines])
    for section in card.sections:
        yield "\n".join(_section(section, width))
    if card.notes:
        yield "\n".join(_wrapped(note, width) for note in card.notes)


def _fires(firing: Firing) -> str:
    share = 100 * firing.tokens / max(firing.all_tokens, 1)
    return (
        f"fires on {share:.2g} % of {firing.all_tokens:,} tokens ({firing.tokens:,}, in "
        f"{firing.documents:,} document{'s' * (firing.documents != 1)}); mean code there "
        f"{firing.mean:.3g}, largest {firing.largest:.3g}"
    )


def _joined(tokens: Sequence[tuple[str, str]]) -> str:
    """Tokens with their numbers; a line breaks only after a dot."""
    pairs = (f"{token} {value}".replace(" ", JOINED) for token, value in tokens)
    return f"{JOINED}· ".join(pairs)


def _context(context: Context, digits: int, width: int) -> str:
    """One line with the token in the middle; the space before a token goes before «."""
    token = context.token
    lead = " " if token.startswith(" ") and token.strip() else ""
    inner = token[len(lead) :] if token.strip() else token.replace(" ", "␣")
    middle = (width - 8) // 2 - 4
    before = last_columns(visible(context.before) + lead, middle)
    padding = " " * (middle - columns(before))
    line = f"{number(context.code, digits):>6}  {padding}{before}«{visible(inner)}»"
    return (line + first_columns(visible(context.after), width - columns(line))).rstrip()


def _section(section: Section, width: int) -> Iterator[str]:
    measure = "cosine" if section.kind == "nearest" else "weight"
    kind = "meta-latent" if section.kind == "meta_latents" else "latent"
    stages = any(related.explained is not None for related in section.items)
    so_far = "explained  " if stages else ""
    yield _wrapped(section.title, width)
    if section.items:
        yield f"{measure:>6}  {kind:>{len(kind)}}  {so_far}label"
    for related in section.items:
        share = "" if related.explained is None else number(related.explained, 2)
        stage = f"{share:>9}  " if stages else ""
        line = f"{number(related.weight, 2):>6}  {related.number:>{len(kind)}}  {stage}"
        yield line + first_columns(visible(related.label or NO_LABEL), width - columns(line))
    if section.more:
        yield f"{'':>6}  … and {section.more:,} lighter"
    for sentence in section.sentences:
        yield _wrapped(sentence, width)


def _wrapped(sentence: str, width: int, head: str = "") -> str:
    """The sentence wrapped after a head; later lines are indented to the first word."""
    indent = " " * columns(head)
    lines, first = [head], True
    for word in one_line(sentence.strip()).split(" "):
        for piece in _pieces(word, width - len(indent)):
            if not first and columns(lines[-1]) + 1 + columns(piece) > width:
                lines.append(indent)
                first = True
            lines[-1] += piece if first else f" {piece}"
            first = False
    return "\n".join(lines).replace(JOINED, " ")


def _pieces(word: str, width: int) -> Iterator[str]:
    """The word in parts that fit on a line."""
    part = ""
    for letter in word:
        if columns(part + letter) > width:
            yield part
            part = ""
        part += letter
    yield part
