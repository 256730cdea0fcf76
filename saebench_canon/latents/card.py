"""What the card of one latent looks like: as text at 100 columns, as Markdown, as plain data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from saebench_canon.latents.token_text import columns, first_columns, last_columns, quoted, visible
from saebench_canon.plugin.evidence import Context, Evidence
from saebench_canon.reports.render import WIDTH, number

if TYPE_CHECKING:
    from saebench_canon.latents.evidence import Firing

NO_LABEL = "–"
JOINED = "\N{NO-BREAK SPACE}"  # where a line is not to break


@dataclass(frozen=True)
class Related:
    """A latent or meta-latent that stands on another's card, with its weight or cosine there."""

    number: int
    weight: float
    label: str | None
    explained: float | None = None  # the share of the row after this one and those before it


@dataclass(frozen=True)
class Section:
    """Others that a card lists: meta-latents, nearest smaller latents, a sum, latents."""

    kind: Literal["meta_latents", "nearest", "sum", "latents"]
    title: str
    items: tuple[Related, ...]
    more: int = 0  # lighter ones that are not listed
    explained: float | None = None  # the share of the row that all of them explain
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """All that is shown of one latent or meta-latent."""

    suite: str
    label: str | None
    evidence: Evidence
    firing: Firing | None = None
    source: str | None = None  # the evaluation text
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The card as `show --latent --json` prints it."""
        evidence = asdict(self.evidence)
        number_, kind = evidence.pop("latent"), evidence.pop("kind")
        head = {"suite": self.suite, "sae": evidence.pop("sae"), "kind": kind, "number": number_}
        sections = {each.kind: asdict(each) for each in self.sections}
        for each in sections.values():
            del each["kind"]
        return {
            **head,
            "label": self.label,
            "firing": None if self.firing is None else asdict(self.firing),
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
    return f"# {_title(card)}\n\n```text\n{body}\n```\n"


def _title(card: Card) -> str:
    told = card.evidence
    return f"{told.kind} {told.latent} of {told.sae} ({card.suite})"


def _parts(card: Card, width: int) -> Iterator[str]:
    lines = [first_columns(visible(card.label or NO_LABEL), width)]
    if card.firing is not None:
        lines.append(_wrapped(_fires(card.firing), width))
    yield "\n".join(lines)
    told = card.evidence
    fired = [(quoted(each.text), number(each.share, 2)) for each in told.tokens]
    promoted = [(quoted(each.text), number(each.z, 1)) for each in told.promoted]
    if listed := [(name, of) for name, of in (("tokens", fired), ("promotes", promoted)) if of]:
        yield "\n".join(_wrapped(_joined(of), width, f"{name:<10}") for name, of in listed)
    if told.contexts:
        digits = 2 if told.contexts[0].code >= 1 else 4
        head = f"{'code':>6}  top contexts in {card.source}"
        lines = [_context(each, digits, width) for each in told.contexts]
        yield "\n".join([first_columns(head, width), *lines])
    for section in card.sections:
        yield "\n".join(_section(section, width))
    if card.notes:
        yield "\n".join(_wrapped(note, width) for note in card.notes)


def _fires(firing: Firing) -> str:
    share = 100 * firing.tokens / max(firing.of, 1)
    return (
        f"fires on {share:.2g} % of {firing.of:,} tokens ({firing.tokens:,}, in "
        f"{firing.documents:,} document{'s' * (firing.documents != 1)}); mean code there "
        f"{firing.mean:.3g}, largest {firing.largest:.3g}"
    )


def _joined(tokens: Sequence[tuple[str, str]]) -> str:
    """Tokens with their numbers; a line breaks only after a dot."""
    pairs = (f"{token} {value}".replace(" ", JOINED) for token, value in tokens)
    return f"{JOINED}· ".join(pairs)


def _context(context: Context, digits: int, width: int) -> str:
    """One line, the token in the middle; a space before it stands before its mark."""
    token = context.token
    lead = " " if token.startswith(" ") and token.strip() else ""
    inner = token[len(lead) :] if token.strip() else token.replace(" ", "␣")
    middle = (width - 8) // 2 - 4
    left = last_columns(visible(context.before) + lead, middle)
    place = " " * (middle - columns(left))
    line = f"{number(context.code, digits):>6}  {place}{left}«{visible(inner)}»"
    return (line + first_columns(visible(context.after), width - columns(line))).rstrip()


def _section(section: Section, width: int) -> Iterator[str]:
    measure = "cosine" if section.kind == "nearest" else "weight"
    kind = "meta-latent" if section.kind == "meta_latents" else "latent"
    stages = any(each.explained is not None for each in section.items)
    so_far = "explained  " if stages else ""
    yield _wrapped(section.title, width)
    if section.items:
        yield f"{measure:>6}  {kind:>{len(kind)}}  {so_far}label"
    for each in section.items:
        share = "" if each.explained is None else number(each.explained, 2)
        stage = f"{share:>9}  " if stages else ""
        line = f"{number(each.weight, 2):>6}  {each.number:>{len(kind)}}  {stage}"
        yield line + first_columns(visible(each.label or NO_LABEL), width - columns(line))
    if section.more:
        yield f"{'':>6}  … and {section.more:,} lighter"
    for sentence in section.said:
        yield _wrapped(sentence, width)


def _wrapped(sentence: str, width: int, head: str = "") -> str:
    """The words after the head on lines that fit, which begin below the first word."""
    indent = " " * columns(head)
    lines, first = [head], True
    for word in sentence.strip().split(" "):
        for piece in _pieces(word, width - len(indent)):
            if not first and columns(lines[-1]) + 1 + columns(piece) > width:
                lines.append(indent)
                first = True
            lines[-1] += piece if first else f" {piece}"
            first = False
    return "\n".join(lines).replace(JOINED, " ")


def _pieces(word: str, room: int) -> Iterator[str]:
    """A word too long for a line in parts that fit."""
    part = ""
    for letter in word:
        if columns(part + letter) > room:
            yield part
            part = ""
        part += letter
    yield part
