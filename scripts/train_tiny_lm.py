"""Train the packaged language model on the prose of several Python standard libraries.

    python scripts/train_tiny_lm.py [--rst FOLDER] [--minutes 65] NAME=LIBRARY [NAME=LIBRARY ...]

A LIBRARY is a folder or a zip that holds os.py; `--rst` adds Python's documentation in
reStructuredText (`_sources` of the built HTML). The learning rate falls to zero with the wall
clock, so that the run ends on time however busy the machine is; all else is seeded.
"""

import argparse
import ast
import json
import math
import random
import re
import shutil
import sys
import time
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, str(Path(__file__).parents[1]))
from saebench_canon.packaged import python_docs

OUT = Path(__file__).parents[1] / "saebench_canon" / "packaged" / "tiny-lm"
BOS = "<|bos|>"
ONE_IN = 20  # documents held out, and of the rest those that fit the n-grams' weights
SHINGLE = 10  # words in a row that no training paragraph may share with a held-out one
SHORTEST_PIECE = 16  # tokens
ROLE = re.compile(r":[\w:+-]+:`[~!]?([^`<]*?)(?:\s*<[^`>]*>)?`")
MARKUP = re.compile(r"^\s*(\.\. |:\w).*$", re.MULTILINE)
LAZY_IMPORT = re.compile(r"^lazy (?=from |import )", re.MULTILINE)


CARD = """---
language: en
library_name: transformers
---

# tiny-lm

A Llama-style language model of {parameters} parameters (width {width}, {layers} layers, {heads}
heads, context {context}, tied embeddings) with a byte-level BPE of {vocabulary} tokens, small
enough to travel with a test suite and good enough to have something to explain. It knows only
English as Python programmers write it.

**Use.** Every training sequence was `<|bos|>` and up to {last} tokens of one document. The
tokenizer does not add `<|bos|>` by itself: put it in front.

**Training text.** {training} tokens: the docstrings, comments and topics of the standard library
of {names}, paragraphs of prose only, none twice. The model saw {seen} positions, BOS and
padding among them.

**Held out**, from tokenizer and model alike: {modules} ({held_out} tokens of
`packaged:python-docs`) in every version, their tests, and any paragraph that shares ten words in
a row with them.

| held-out loss | nats per token |
|---|--:|
{table}

The n-grams saw the same training text, are interpolated with weights by context count fitted on a
twentieth of the training documents, and see the true history across window borders; the model
sees windows of `<|bos|>` and up to {last} tokens, pieces under 16 left out.

**Made by**

    {command}

The text is of the Python Software Foundation and under its licence; the weights follow it.
"""


@dataclass(frozen=True)
class Text:
    """Paragraphs by document, held-out ones apart."""

    training: dict[str, list[str]]
    held_out: dict[str, str]


def one_in(name: str, n: int) -> bool:
    """Whether a name is of the n-th part that its digest draws."""
    return int.from_bytes(python_docs.paragraph_digest(name), "big") % n == 0


def words(paragraph: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"\w+", paragraph.lower())


def shingles(paragraph: str) -> set[tuple[str, ...]]:
    """Runs of words that tell a paragraph, all its words where they are few."""
    all_ = words(paragraph)
    return {tuple(all_[i : i + SHINGLE]) for i in range(max(1, len(all_) - SHINGLE + 1))}


def library_files(library: Path) -> Iterator[tuple[str, str]]:
    """(dotted module, source) of a folder or zip, installed packages left out, sorted."""
    if library.is_dir():
        raw = {p.relative_to(library).as_posix(): p.read_bytes() for p in library.rglob("*.py")}
    else:
        with zipfile.ZipFile(library) as archive:
            raw = {n: archive.read(n) for n in archive.namelist() if n.endswith(".py")}
    for path in sorted(raw):
        if "site-packages" not in path:
            module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            yield module, LAZY_IMPORT.sub("", raw[path].decode("utf-8", errors="replace"))


def topic_paragraphs(source: str) -> Iterator[str]:
    """Prose of every string in pydoc_data.topics."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from prose(node.value)


def prose(text: str) -> Iterator[str]:
    """Paragraphs of prose in plain text."""
    for part in python_docs.BLANK.split(text):
        paragraph = " ".join(part.split())
        if python_docs.is_prose(paragraph):
            yield paragraph


def candidates(libraries: Iterable[Path], rst: Path | None) -> Iterator[tuple[str, Iterable[str]]]:
    """(document, its paragraphs) of all that may be trained on."""
    for library in libraries:
        for module, source in library_files(library):
            if module == "pydoc_data.topics":
                yield module, topic_paragraphs(source)
            else:
                yield module, python_docs.paragraphs(source)
    for file in sorted(rst.rglob("*.rst.txt")) if rst else ():
        text = MARKUP.sub("", ROLE.sub(r"\1", file.read_text("utf-8", errors="replace")))
        yield f"rst {file.name.removesuffix('.rst.txt')}", prose(text)


def read_text(libraries: Iterable[Path], rst: Path | None) -> Text:
    """Training text, without the held-out modules, their tests, and what repeats their words."""
    documents = python_docs.read_python_docs().documents
    held_out = {module: text for module, text in documents if one_in(module, ONE_IN)}
    barred = set().union(*(shingles(p) for text in held_out.values() for p in text.split("\n\n")))
    names = {*held_out, *(module.rpartition(".")[2] for module in held_out)}
    training: dict[str, list[str]] = {}
    seen: set[str] = set()
    for document, paragraphs in candidates(libraries, rst):
        last = document.rpartition(" ")[2].rpartition(".")[2].removeprefix("test_")
        if document in names or last in names:
            continue
        for paragraph in paragraphs:
            if paragraph not in seen and barred.isdisjoint(shingles(paragraph)):
                training.setdefault(document, []).append(paragraph)
            seen.add(paragraph)
    return Text(training, held_out)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose only special token begins a sequence."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=[BOS],
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        clean_up_tokenization_spaces=False,
    )


class NGrams:
    """Counts up to trigrams, with interpolation weights by how often the context was seen."""

    def __init__(self, documents: list[np.ndarray], vocabulary: int) -> None:
        """Count the documents, each preceded by two BOS."""
        self.base = vocabulary
        keys = [self.keys(tokens) for tokens in documents]
        self.counts = [
            np.unique(np.concatenate(k), return_counts=True) for k in zip(*keys, strict=True)
        ]

    def keys(self, tokens: np.ndarray) -> tuple[np.ndarray, ...]:
        """Keys of (nothing, b, ab) as contexts and (c, bc, abc) as events."""
        padded = np.concatenate([[0, 0], tokens])
        a, b, c = padded[:-2], padded[1:-1], padded[2:]
        ab = a * self.base + b
        return 0 * c, b, ab, c, b * self.base + c, ab * self.base + c

    def look_up(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability by order 0..3 [n, 4] and bucket of the context's count by order [n, 4]."""
        found = []
        for (known, count), key in zip(self.counts, self.keys(tokens), strict=True):
            at = np.searchsorted(known, key).clip(max=len(known) - 1)
            found.append(np.where(known[at] == key, count[at], 0))
        contexts, events = np.stack(found[:3], 1), np.stack(found[3:], 1)
        uniform = np.full((len(tokens), 1), 1 / self.base)
        probability = np.hstack([uniform, events / contexts.clip(min=1)])
        buckets = np.log2(contexts + 1).astype(int)
        return probability, np.hstack([0 * buckets[:, :1], buckets])


def ngram_losses(
    training: list[np.ndarray],
    validation: list[np.ndarray],
    held_out: list[np.ndarray],
    vocabulary: int,
) -> dict[str, float]:
    """Nats per held-out token of n-grams of all training text, weights fitted on the validation."""
    fitting = NGrams(training, vocabulary)
    p_fit, bucket_fit = map(
        np.concatenate, zip(*(fitting.look_up(d) for d in validation), strict=True)
    )
    everything = NGrams(training + validation, vocabulary)
    p_out, bucket_out = map(
        np.concatenate, zip(*(everything.look_up(d) for d in held_out), strict=True)
    )
    losses = {}
    for order, name in enumerate(("unigram", "bigram", "trigram"), start=1):
        mixed = np.zeros(len(p_out))
        for bucket in np.unique(bucket_out[:, order]):
            here, there = bucket_out[:, order] == bucket, bucket_fit[:, order] == bucket
            weights = fit_weights(p_fit[there if there.any() else slice(None), : order + 1])
            mixed[here] = p_out[here, : order + 1] @ weights
        losses[name] = float(-np.log(mixed).mean())
    return losses


def fit_weights(probability: np.ndarray, rounds: int = 60) -> np.ndarray:
    """Mixture weights that make the probabilities [n, k] likeliest, by expectation maximisation."""
    weights = np.full(probability.shape[1], 1 / probability.shape[1])
    for _ in range(rounds):
        share = probability * weights
        weights = (share / share.sum(1, keepdims=True)).mean(0)
    return weights


def windows(documents: list[np.ndarray], width: int, rng: random.Random | None) -> torch.Tensor:
    """BOS and the next width - 1 tokens of one document; -1 pads. From the start without rng."""
    rows = []
    for tokens in documents:
        first = rng.randrange(1, width) if rng else width - 1
        cuts = [0, *range(first, len(tokens), width - 1), len(tokens)]
        for start, stop in pairwise(cuts):
            if stop - start >= SHORTEST_PIECE:
                row = np.full(width, -1)
                row[0], row[1 : 1 + stop - start] = 0, tokens[start:stop]
                rows.append(row)
    return torch.from_numpy(np.stack(rows))


def loss_of(model: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
    """Mean nats per token that is neither BOS nor padding."""
    logits = model(batch.clamp(min=0), use_cache=False).logits[:, :-1]
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), batch[:, 1:].flatten(), ignore_index=-1
    )


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, rows: torch.Tensor) -> float:
    """Mean nats per held-out token."""
    model.eval()
    counts = [(rows[i : i + 32, 1:] >= 0).sum().item() for i in range(0, len(rows), 32)]
    losses = [loss_of(model, rows[i : i + 32]).item() for i in range(0, len(rows), 32)]
    model.train()
    return math.fsum(c * x for c, x in zip(counts, losses, strict=True)) / sum(counts)


def save(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the folder anew, so that no reader sees half of it."""
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    model.save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    config = fresh / "tokenizer_config.json"  # transformers 5 writes a class that 4 does not know
    known = json.loads(config.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    config.write_text(json.dumps(known, indent=2) + "\n")
    (fresh / "model.safetensors").chmod(0o644)
    (fresh / "READY").touch()
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    documents: list[np.ndarray],
    held_out: torch.Tensor,
    settings: argparse.Namespace,
) -> int:
    """Train until the minutes are over; returns the number of tokens seen."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        torch.optim.Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay,
                         momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]  # fmt: skip
    rng = random.Random(settings.seed)
    started = time.monotonic()
    seen = step = 0
    due = settings.save_every
    while True:
        rows = windows(documents, settings.context, rng)
        rows = rows[torch.tensor(rng.sample(range(len(rows)), len(rows)))]
        for batch in rows.split(settings.batch)[:-1]:
            spent = (time.monotonic() - started) / (60 * settings.minutes)
            if spent >= 1:
                return seen
            lr = settings.lr * min(1.0, (step + 1) / settings.warmup) * (1 - spent)
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bf16):
                loss = loss_of(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                optimizer.param_groups[0]["lr"] = lr
                optimizer.step()
                optimizer.zero_grad()
            seen += batch.numel()
            step += 1
            if step % 50 == 0:
                print(f"{60 * settings.minutes * spent:6.0f} s  step {step}  {seen / 1e6:.2f} M "
                      f"tokens  loss {loss.item():.3f}", flush=True)  # fmt: skip
            if spent * settings.minutes >= due:
                due += settings.save_every
                print(f"held-out loss {held_out_loss(model, held_out):.4f}", flush=True)
                if settings.preview:
                    save(settings.preview, model, tokenizer)


def arguments() -> argparse.Namespace:
    """Settings from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("library", nargs="+", help="NAME=PATH; the name goes into the card")
    parser.add_argument("--rst", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--preview", type=Path, help="folder for unfinished models")
    parser.add_argument("--minutes", type=float, default=65.0)
    parser.add_argument("--save-every", type=float, default=5.0, help="minutes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--mlp", type=int, default=352)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--warmup", type=int, default=100, help="steps")
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--bf16", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Read the text, train the tokenizer and the model, measure and write both."""
    settings = arguments()
    warnings.simplefilter("ignore")
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    text = read_text([Path(x.partition("=")[2]) for x in settings.library], settings.rst)
    joined = {name: "\n\n".join(kept) for name, kept in text.training.items()}
    tokenizer = train_tokenizer(joined.values(), vocabulary=settings.vocabulary)

    def encode(texts: Iterable[str]) -> list[np.ndarray]:
        return [np.array(tokenizer.encode(t, add_special_tokens=False)) for t in texts]

    validation = encode(t for name, t in joined.items() if one_in("weights " + name, ONE_IN))
    training = encode(t for name, t in joined.items() if not one_in("weights " + name, ONE_IN))
    held_out = encode(text.held_out.values())
    tokens = {"training": sum(map(len, training + validation)), "held_out": sum(map(len, held_out))}
    losses = ngram_losses(training, validation, held_out, settings.vocabulary)
    print(tokens, losses, *text.held_out, flush=True)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            intermediate_size=settings.mlp,
            max_position_embeddings=settings.context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=None,
        )
    )
    rows = windows(held_out, settings.context, None)
    started = time.monotonic()
    tokens["seen"] = train(model, tokenizer, training + validation, rows, settings)
    print(f"{time.monotonic() - started:.0f} s", flush=True)
    losses["model"] = held_out_loss(model, rows)
    write(settings, model, tokenizer, tokens, losses, [*text.held_out])


def write(
    settings: argparse.Namespace,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    tokens: dict[str, int],
    losses: dict[str, float],
    held_out: list[str],
) -> None:
    """Write the model, its losses and its card."""
    save(settings.out, model, tokenizer)
    (settings.out / "READY").unlink()
    report = {"held_out_loss": losses, "tokens": tokens, "held_out_modules": held_out}
    (settings.out / "losses.json").write_text(json.dumps(report, indent=1) + "\n")
    paths = ("library", "rst", "out", "preview")
    told = {k: v for k, v in vars(settings).items() if k not in paths}
    command = "python scripts/train_tiny_lm.py " + " ".join(
        f"--{k.replace('_', '-')}" + ("" if v is True else f" {v}")
        for k, v in told.items()
        if v is not False
    )
    names = [x.partition("=")[0] for x in settings.library]
    command += " --rst DOCUMENTATION" * bool(settings.rst)
    command += "".join(f" {name}=LIBRARY" for name in names)
    (settings.out / "README.md").write_text(
        CARD.format(
            command=command,
            last=settings.context - 1,
            names=", ".join(names) + " and the Python documentation" * bool(settings.rst),
            parameters=f"{sum(p.numel() for p in model.parameters()):,}",
            modules=", ".join(f"`{module}`" for module in held_out),
            table="\n".join(f"| {name} | {loss:.3f} |" for name, loss in losses.items()),
            **vars(settings) | {k: f"{v:,}" for k, v in tokens.items()},
        )
    )


if __name__ == "__main__":
    main()
