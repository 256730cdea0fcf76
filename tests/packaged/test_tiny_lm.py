"""The packaged language model loads offline and is as good as its card says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

import saebench_canon.packaged
from saebench_canon.packaged.python_docs import DIGESTS, collect, read_list, source_of

FOLDER = Path(saebench_canon.packaged.__file__).parent / "tiny-lm"
FILES = {
    "README.md",
    "config.json",
    "losses.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
}
PADDING = -1
SLACK = 0.02  # nats per token


@pytest.fixture(scope="module")
def losses() -> dict[str, float]:
    """Held-out loss by model, as the training script measured it."""
    measured: dict[str, float] = json.loads((FOLDER / "losses.json").read_text())["held_out_loss"]
    return measured


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The tokenizer as users load it."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    """The model as users load it."""
    transformers = pytest.importorskip("transformers")
    return transformers.AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True).eval()


def test_the_folder_is_complete_and_small() -> None:
    sizes = {file.name: file.stat().st_size for file in FOLDER.iterdir()}
    assert sizes.keys() >= FILES
    assert sum(sizes.values()) <= 8_000_000


def test_it_is_large_enough_to_explain() -> None:
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["hidden_size"] >= 128
    assert config["num_hidden_layers"] >= 4


def test_the_card_states_the_measured_losses(losses: dict[str, float]) -> None:
    card = (FOLDER / "README.md").read_text()
    for name, loss in losses.items():
        assert f"| {name} | {loss:.3f} |" in card


def test_the_tokenizer_gives_back_the_text_and_knows_bos(tokenizer: Any) -> None:
    text = "Return the index of x, raising ValueError if it isn't there.\n\nNaïve ☃ text."
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert tokenizer.bos_token == "<|bos|>"
    assert tokenizer.bos_token_id not in ids


@torch.no_grad()
def test_held_out_loss_is_that_of_the_card_and_clearly_below_trigrams(
    model: Any, tokenizer: Any, losses: dict[str, float]
) -> None:
    held_out = json.loads((FOLDER / "losses.json").read_text())["held_out_modules"]
    listed = read_list(DIGESTS.read_text("ascii"))
    documents = collect({module: listed[module] for module in held_out}, source_of).documents
    width = model.config.max_position_embeddings - 1
    rows = [
        torch.tensor([tokenizer.bos_token_id, *ids[start : start + width]])
        for ids in (tokenizer.encode(text, add_special_tokens=False) for _, text in documents)
        for start in range(0, len(ids), width)
    ]
    windows = pad_sequence(rows, batch_first=True, padding_value=PADDING)  # [windows, 1 + width]
    nats = 0.0
    for batch in windows.split(16):
        logits = model(batch.clamp(min=0)).logits[:, :-1].flatten(0, 1)
        targets = batch[:, 1:].flatten()
        nats += cross_entropy(logits, targets, ignore_index=PADDING, reduction="sum").item()
    tokens = (windows[:, 1:] != PADDING).sum().item()
    assert nats / tokens <= losses["model"] + SLACK
    assert losses["model"] < losses["trigram"] - 0.3
    assert losses["trigram"] < losses["bigram"] < losses["unigram"]
