"""Small checkpoints of every format, in its authors' layout, with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

D, M = 6, 10
Writer = Callable[[Path], Path]


def parameters(seed: int = 0) -> dict[str, Tensor]:
    """W_enc, b_enc, W_dec (rows not at unit norm), b_dec, and positive thresholds."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "W_enc": draw(D, M), "b_enc": draw(M), "W_dec": 2 * draw(M, D), "b_dec": draw(D),
        "threshold": draw(M).abs(),
    }  # fmt: skip


def saelens(architecture: str, **config: Any) -> Writer:
    """A folder of SAELens."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        weights = parameters()
        if architecture != "jumprelu":
            del weights["threshold"]
        if architecture == "gated":
            bias = weights.pop("b_enc")
            weights |= {"b_gate": bias, "b_mag": bias.flip(0), "r_mag": 0.1 * bias}
        if architecture == "batchtopk":
            weights["topk_threshold"] = torch.tensor(0.2)
        save_file(weights, folder / "sae_weights.safetensors")
        default_config = {
            "architecture": architecture, "d_in": D, "d_sae": M, "dtype": "float32",
            "apply_b_dec_to_input": True, "normalize_activations": "none",
            "reshape_activations": "none", "metadata": {"hook_name": "blocks.3.hook_resid_post"},
        }  # fmt: skip
        (folder / "cfg.json").write_text(json.dumps(default_config | config))
        return folder

    return write


def gemma_scope(folder: Path) -> Path:
    """A folder of Gemma Scope."""
    folder = folder / "layer_12" / "width_16k" / "average_l0_82"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "params.npz", **{key: w.numpy() for key, w in parameters().items()})
    return folder


def dictionary_learning(dict_class: str) -> Writer:
    """A trainer's folder of dictionary_learning."""

    def write(folder: Path) -> Path:
        folder = folder / "trainer_0"
        folder.mkdir(parents=True, exist_ok=True)
        w = parameters()
        linear = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"],
                  "decoder.weight": w["W_dec"].T}  # fmt: skip
        raw = {key: w[key] for key in ("W_enc", "b_enc", "W_dec", "b_dec")}
        level = {"k": torch.tensor(3), "threshold": torch.tensor(0.3)}
        state = {
            "AutoEncoder": linear | {"bias": w["b_dec"]},
            "AutoEncoderNew": linear | {"decoder.bias": w["b_dec"]},
            "GatedAutoEncoder": {
                "decoder_bias": w["b_dec"], "encoder.weight": w["W_enc"].T,
                "decoder.weight": w["W_dec"].T, "r_mag": 0.1 * w["b_enc"],
                "gate_bias": w["b_enc"], "mag_bias": w["b_enc"].flip(0),
            },
            "JumpReluAutoEncoder": raw | {"threshold": w["threshold"]},
            "AutoEncoderTopK": linear | {"b_dec": w["b_dec"]} | level,
            "BatchTopKSAE": linear | {"b_dec": w["b_dec"]} | level,
            "MatryoshkaBatchTopKSAE": raw | level | {"group_sizes": torch.tensor([4, 6])},
        }[dict_class]  # fmt: skip
        torch.save({key: tensor.contiguous() for key, tensor in state.items()}, folder / "ae.pt")
        trainer = {
            "dict_class": dict_class, "trainer_class": "Trainer", "activation_dim": D,
            "dict_size": M, "k": 3, "layer": 0, "lm_name": "made/up", "submodule_name": "resid_0",
        }  # fmt: skip
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
        return folder

    return write


def sparsify(folder: Path) -> Path:
    """A hookpoint's folder of sparsify."""
    folder = folder / "layers.3"
    folder.mkdir(parents=True, exist_ok=True)
    w = parameters()
    weights = {"encoder.weight": w["W_enc"].T, "encoder.bias": w["b_enc"], "W_dec": w["W_dec"],
               "b_dec": w["b_dec"]}  # fmt: skip
    tensors = {key: tensor.contiguous() for key, tensor in weights.items()}
    save_file(tensors, folder / "sae.safetensors")
    config = {"activation": "topk", "expansion_factor": 2, "normalize_decoder": True,
              "num_latents": M, "k": 3, "multi_topk": False, "skip_connection": False,
              "transcode": False, "d_in": D}  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def batchtopk(sae_type: str, *, published: bool = False) -> Writer:
    """A folder of the BatchTopK repository, or as its published meta-SAE is laid out."""

    def write(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        w = parameters()
        state = {key: w[key] for key in ("W_enc", "b_enc", "W_dec", "b_dec")}
        if sae_type == "jumprelu":
            state["jumprelu.log_threshold"] = w["threshold"].log()
        torch.save(state, folder / ("SAE.pt" if published else "sae.pt"))
        config = {"sae_type": sae_type, "act_size": D, "dict_size": M, "top_k": 3,
                  "input_unit_norm": False, "model_name": "gpt2-small", "dtype": "torch.float32",
                  "hook_point": "blocks.8.hook_resid_pre"}  # fmt: skip
        (folder / ("Config.json" if published else "config.json")).write_text(json.dumps(config))
        return folder

    return write


def openai(folder: Path) -> Path:
    """A file of OpenAI's sparse_autoencoder."""
    folder.mkdir(parents=True, exist_ok=True)
    w = parameters()
    state = {
        "pre_bias": w["b_dec"], "latent_bias": w["b_enc"],
        "encoder.weight": w["W_enc"].T.contiguous(), "decoder.weight": w["W_dec"].T.contiguous(),
        "stats_last_nonzero": torch.zeros(M, dtype=torch.int64), "activation": "TopK",
        "activation_state_dict": {"k": 3},
    }  # fmt: skip
    torch.save(state, folder / "v5_layer_8.pt")
    return folder / "v5_layer_8.pt"


FORMATS: dict[str, Writer] = {
    "saelens-standard": saelens("standard"),
    "saelens-topk": saelens("topk", k=3, rescale_acts_by_decoder_norm=True),
    "saelens-jumprelu": saelens("jumprelu"),
    "saelens-gated": saelens("gated"),
    "saelens-batchtopk": saelens("batchtopk", k=3),
    "gemma-scope": gemma_scope,
    **{
        f"dictionary-learning-{name}": dictionary_learning(name)
        for name in ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder",
                     "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
    },
    "sparsify": sparsify,
    "batchtopk-topk": batchtopk("topk"),
    "batchtopk-batchtopk": batchtopk("batchtopk", published=True),
    "batchtopk-vanilla": batchtopk("vanilla"),
    "batchtopk-jumprelu": batchtopk("jumprelu"),
    "openai": openai,
}  # fmt: skip
