"""A small made-up hub cache with what the packaged ladder suites download, in the hub's layout.

Models, SAEs and texts have the names, layouts and keys of the real ones; widths are much
smaller than those that the names say, and all weights are random.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers
from safetensors.torch import save_file
from tiny_models import LETTERS, VOCABULARY, letter_tokenizer

D = 16
COMMIT = "0123456789abcdef0123456789abcdef01234567"
# width in the name, or folder, and true width; meta-SAEs need 32 live rows
GPT2_WIDTHS = {
    768: 40, 1536: 48, 3072: 64, 6144: 80, 12288: 96, 24576: 128, 49152: 160, 98304: 192,
}  # fmt: skip
GEMMA_WIDTHS = {
    "16k/average_l0_82": 48, "32k/average_l0_76": 64, "65k/average_l0_72": 80,
    "131k/average_l0_129": 96, "262k/average_l0_121": 128, "524k/average_l0_115": 160,
    "1m/average_l0_107": 192,
}  # fmt: skip


def made_up_hub(home: Path) -> dict[str, str]:
    """Write the cache below a folder; returns the environment variables that name it."""
    scratch = home / "scratch"
    _gpt2(scratch / "gpt2")
    _gemma(scratch / "gemma")
    cached(home, "gpt2", scratch / "gpt2")
    cached(home, "google/gemma-2-2b", scratch / "gemma")
    for repository, write in (GPT2_SAES, GEMMA_SAES):
        write(scratch / repository)
        cached(home, repository, scratch / repository)
    stories = list(_stories())
    cached_text(home, "Skylion007/openwebtext", "plain_text", stories)
    cached_text(home, "HuggingFaceFW/fineweb", "sample-10BT", stories)
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def cached(home: Path, repository: str, folder: Path) -> None:
    """Lay a repository into the cache as the hub's client does: blobs, and links to them."""
    repository_folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    for subfolder in ("refs", "blobs", "snapshots"):
        (repository_folder / subfolder).mkdir(parents=True)
    (repository_folder / "refs" / "main").write_text(COMMIT)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        blob = repository_folder / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        file.replace(blob)
        link = repository_folder / "snapshots" / COMMIT / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))


def cached_text(home: Path, name: str, subset: str, documents: Iterable[str]) -> None:
    """Lay a text into the cache as `datasets` does once it has been read."""
    owner, _, short = name.partition("/")
    folder = home / "datasets" / f"{owner}___{short}" / subset / "0.0.0" / COMMIT
    folder.mkdir(parents=True)
    table = pa.table({"text": list(documents)})
    with pa.ipc.new_stream(folder / f"{short}-train.arrow", table.schema) as writer:
        writer.write_table(table)
    size = {"name": "train", "num_bytes": table.nbytes, "num_examples": len(table)}
    info = {
        "builder_name": "parquet", "dataset_name": short, "config_name": subset,
        "version": {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0},
        "features": {"text": {"dtype": "string", "_type": "Value"}},
        "splits": {"train": {**size, "dataset_name": short}},
    }  # fmt: skip
    (folder / "dataset_info.json").write_text(json.dumps(info))


def _stories() -> Iterable[str]:
    """Documents of words that a few letters make."""
    draw = random.Random(0)
    words = ["".join(draw.choices(LETTERS[:-1], k=draw.randint(2, 7))) for _ in range(60)]
    for _ in range(60):
        yield " ".join(draw.choices(words, k=40))


def _gpt2(folder: Path) -> None:
    _model(
        folder,
        transformers.GPT2Config(
            vocab_size=len(VOCABULARY), n_embd=D, n_layer=9, n_head=2, n_positions=1024,
            bos_token_id=1, eos_token_id=1,
        ),
    )  # fmt: skip


def _gemma(folder: Path) -> None:
    _model(
        folder,
        transformers.Gemma2Config(
            vocab_size=len(VOCABULARY), hidden_size=D, num_hidden_layers=13, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, intermediate_size=24, max_position_embeddings=8192,
            query_pre_attn_scalar=8, sliding_window=64, bos_token_id=1, eos_token_id=1,
            pad_token_id=0,
        ),
    )  # fmt: skip


def _model(folder: Path, config: Any) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            offset = 1.0 if "ln" in name and "weight" in name else 0.0
            weight.data = offset + 0.3 * torch.randn_like(weight)
    model.save_pretrained(folder)
    letter_tokenizer().save_pretrained(folder)


def _weights(width: int, seed: int) -> dict[str, torch.Tensor]:
    """Random rows, encoders along them, and biases with which a part of the latents is active."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(width, D, generator=generator)
    return {
        "W_enc": rows.T / D,
        "b_enc": -0.1 * torch.rand(width, generator=generator),
        "W_dec": rows / rows.norm(dim=1, keepdim=True),
        "b_dec": 0.1 * torch.randn(D, generator=generator),
    }


def _feature_splitting(folder: Path) -> None:
    """The release `gpt2-small-res-jb-feature-splitting`, in the layout of SAELens 3."""
    for named_width, width in GPT2_WIDTHS.items():
        sae = folder / f"blocks.8.hook_resid_pre_{named_width}"
        sae.mkdir(parents=True)
        weights = {key: tensor.contiguous() for key, tensor in _weights(width, named_width).items()}
        save_file(weights, sae / "sae_weights.safetensors")
        save_file({"sparsity": torch.full((width,), -2.0)}, sae / "sparsity.safetensors")
        (sae / "cfg.json").write_text(json.dumps(OLD | {"d_sae": width}))


def _params(folder: Path) -> None:
    """`params.npz` of each width of layer 12."""
    for name, width in GEMMA_WIDTHS.items():
        sae = folder / "layer_12" / f"width_{name}"
        sae.mkdir(parents=True)
        arrays: Mapping[str, np.ndarray] = {k: v.numpy() for k, v in _weights(width, width).items()}
        np.savez(sae / "params.npz", threshold=np.full(width, 0.05, np.float32), **arrays)


OLD = {
    "model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8,
    "hook_point_head_index": None, "dataset_path": "Skylion007/openwebtext",
    "is_dataset_tokenized": False, "context_size": 128, "use_cached_activations": False,
    "d_in": D, "n_batches_in_buffer": 128, "total_training_tokens": 300_000_000,
    "store_batch_size": 32, "device": "cuda", "seed": 42, "dtype": "torch.float32",
    "b_dec_init_method": "decoder", "expansion_factor": 1, "from_pretrained_path": None,
    "l1_coefficient": 8, "lp_norm": 1, "lr": 4e-4, "lr_scheduler_name": "constant",
    "lr_warm_up_steps": 5000, "train_batch_size": 4096, "use_ghost_grads": False,
    "feature_sampling_window": 2000, "dead_feature_window": 5000, "log_to_wandb": True,
}  # fmt: skip
GPT2_SAES = "jbloom/GPT2-Small-Feature-Splitting-Experiment-Layer-8", _feature_splitting
GEMMA_SAES = "google/gemma-scope-2b-pt-res", _params
