"""The language model whose activations are taken: from the hub, a folder, or the package."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.data.model_config import CONFIG
from saebench_canon.errors import (
    CanonError,
    NotOffline,
    expanded,
    nearest,
    nearest_file,
    without_above,
)
from saebench_canon.saes import hub_offline as hub
from saebench_canon.saes.weights.json_file import read_json
from saebench_canon.saes.weights.lfs import refuse_pointer
from saebench_canon.saes.weights.regular_file import refuse_special

if TYPE_CHECKING:
    import torch

PACKAGED = Path(__file__).parents[1] / "packaged"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
ADAPTER = "adapter_config.json"  # transformers would load it without a word
TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


ADAPTER_WEIGHT = re.compile(r"\b(lora_[ab]|lora_embedding|ia3_l|hada_w|prompt_embeddings)", re.I)
BLOCK = re.compile(r"(.+)\.\d+")  # a module in a list
# parts beside the text model, and masks and frequencies that older versions saved
HARMLESS = re.compile(
    r"vision|visual|audio|image|encoder|mtp|projector|tower|inv_freq|masked_bias|position_ids"
    r"|\.(attn|attention|self_attn)\.bias$", re.I,
)  # fmt: skip
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model in eval mode without gradients, and its tokenizer."""

    name: str
    identity: str  # of `model_identity`
    model: Any  # a PreTrainedModel
    tokenizer: Any
    surplus: tuple[str, ...] = ()  # tensors in its files that it does not use

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        device: torch.device = self.model.device
        return device

    @property
    def bos(self) -> int | None:
        """The token that every window starts with; None when the tokenizer has none."""
        token: int | None = self.tokenizer.bos_token_id
        return token

    @property
    def longest(self) -> int | None:
        """The longest context that the model's configuration allows; None when it has no limit."""
        config = getattr(self.model.config, "text_config", None) or self.model.config
        longest = getattr(config, "max_position_embeddings", None)
        if longest is not None and not isinstance(longest, int):
            raise CanonError(
                f"the model's max_position_embeddings is {longest!r}, not a whole number",
                where=self.name,
            )
        return longest


def load_language_model(
    name: str,
    *,
    revision: str | None = None,
    folder: Path | None = None,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
) -> LanguageModel:
    """The model and tokenizer of a hub id, a local folder or `packaged:NAME`.

    Attention is the implementation that `transformers` chooses, but "eager" where scores are
    soft-capped (Gemma 2), since the other implementations leave the cap out. Code
    from a repository is never run.

    Raises:
        CanonError: the folder or repository is missing or does not hold a whole model.
        NotOffline: the model is only on the hub, which cannot be reached.
    """
    import torch

    path = model_folder(name, folder=folder)
    if path is None:
        _check_hub(name, revision)
    where = name if path is None else str(path)
    source = where if path is None else str(_checked_folder(path))
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(kind, torch.dtype):
        hint = "Use float32, bfloat16 or float16."
        raise CanonError(f"unknown dtype {dtype!r}", hint=hint)
    options = {
        "revision": revision if path is None else None,
        "trust_remote_code": False,
        "local_files_only": path is not None or hub.out_of_reach(),
    }
    with _quiet(), _as_published():
        tokenizer = _load_tokenizer(source, where, options)
        model, surplus = _load_weights(source, where, options, kind)
    model.requires_grad_(False)
    identity = model_identity(name, revision=revision, folder=folder)
    return LanguageModel(name, identity, model.to(device).eval(), tokenizer, surplus)


def with_random_weights(loaded: LanguageModel, seed: int) -> LanguageModel:
    """The same architecture with weights as before training, drawn under a seed (a control).

    All weights are drawn, embeddings too (arXiv 2501.17727). They are drawn on the CPU, so that
    they do not depend on the device.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        model = type(loaded.model)(loaded.model.config)
    model = model.to(loaded.model.device, loaded.model.dtype).eval()
    model.requires_grad_(False)
    identity = f"{loaded.identity}, random weights of seed {seed}"
    return replace(loaded, identity=identity, model=model)


def model_identity(name: str, *, revision: str | None = None, folder: Path | None = None) -> str:
    """What the model is: a digest of a folder's content, or a hub id with its revision.

    The commit that a hub revision stands for is not part of it (it would change with the first
    download); a record's provenance names it.
    """
    path = model_folder(name, folder=folder)
    if path is None:
        return f"hub:{name}@{revision or 'main'}"
    _checked_folder(path)
    files = (path / CONFIG, *_tokenizer_files(path), *_weights(path))
    return _digest_of(tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@cache
def _digest_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """A digest of the files' content; a process reads them once unless they change."""
    digest = hashlib.blake2b(digest_size=16)
    for file, *_ in files:
        digest.update(f"\0{file.name}\0".encode())
        if file.suffix == ".json":
            digest.update(json.dumps(read_json(file), sort_keys=True).encode())
            continue
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return f"model:{digest.hexdigest()}"


def model_folder(name: str, *, folder: Path | None = None) -> Path | None:
    """The folder that a name means, relative to `folder`; None for a hub id."""
    if name.startswith("packaged:"):
        packaged = name.removeprefix("packaged:")
        known = [config.parent.name for config in PACKAGED.glob(f"*/{CONFIG}")]
        if packaged not in known:
            raise CanonError(f"no packaged model {packaged!r}", hint=nearest(packaged, known))
        return PACKAGED / packaged
    path = (folder or Path()) / expanded(name)
    refuse_special(path)
    if path.is_dir():
        return path
    if path.is_file():
        raise CanonError("the model is a file, not a folder", where=name, hint="Name its folder.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise CanonError(
            "the model folder does not exist", where=name or "''", hint=nearest_file(path)
        )
    return None


def _checked_folder(path: Path) -> Path:
    """The folder, which has a configuration, weights and a tokenizer."""
    where = str(path)
    for file in path.iterdir():  # transformers opens more of them than are named here
        refuse_special(file)
    if not (path / CONFIG).is_file():
        raise CanonError(f"the model folder has no {CONFIG}", where=where)
    if (path / ADAPTER).is_file():
        raise CanonError(
            f"the model folder holds an adapter ({ADAPTER}) besides the model",
            where=where,
            hint="Merge the adapter into the weights, or move it elsewhere.",
        )
    if not _weights(path):
        if pickled := sorted(file.name for ending in PICKLES for file in path.glob(ending)):
            raise CanonError(
                f"the model's weights are a pickle ({pickled[0]}), which could run code",
                where=where, hint="Save the model as safetensors where you trust its origin.",
            )  # fmt: skip
        raise CanonError("the model folder has no weights (*.safetensors)", where=where)
    for file in _weights(path):
        refuse_pointer(file)
    if not _tokenizer_files(path):
        raise CanonError("the model folder has no tokenizer", where=where, hint="Save one in it.")
    return path


def _tokenizer_files(path: Path) -> list[Path]:
    return [path / name for name in TOKENIZER_FILES if (path / name).is_file()]


def _weights(path: Path) -> list[Path]:
    """The files that `transformers` reads weights from."""
    return sorted(path.glob("*.safetensors"))


def _check_hub(name: str, revision: str | None) -> None:
    """Ask for the hub model's configuration, so that a mistake is reported in one sentence."""
    from huggingface_hub import errors, hf_hub_download

    where = name if revision is None else f"{name}@{revision}"
    absent = hub.out_of_reach()
    try:
        hf_hub_download(name, CONFIG, revision=revision, local_files_only=absent)
    except errors.GatedRepoError:
        raise CanonError(
            "the model is gated", where=where, hint="Accept its terms on the hub and log in."
        ) from None
    except errors.RevisionNotFoundError:
        raise CanonError("the hub has this model, but not this revision", where=where) from None
    except errors.RepositoryNotFoundError:
        raise CanonError("the model is neither a folder nor on the hub", where=where) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError):
        raise NotOffline(
            "the model is neither a folder nor in the cache, and the hub cannot be reached",
            where=where,
            hint="Download it where there is a network and name its folder.",
        ) from None
    except errors.EntryNotFoundError:
        raise CanonError(f"the hub model has no {CONFIG}", where=where) from None
    except errors.HFValidationError:
        raise CanonError(
            "the model is neither a folder nor the name of a hub model", where=where
        ) from None


def _load_tokenizer(source: str, where: str, options: dict[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, **options)
    except Exception as error:  # transformers and its libraries raise many kinds of errors
        raise _does_not_load("tokenizer", error, where, options) from error


def _load_weights(
    source: str, where: str, options: dict[str, Any], dtype: torch.dtype
) -> tuple[Any, tuple[str, ...]]:
    """The model, and the names of tensors in its files that it does not use."""
    import transformers

    renamed = tuple(map(int, transformers.__version__.split(".")[:2])) >= (4, 56)
    try:
        config = transformers.AutoConfig.from_pretrained(source, **options)
        capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            source,
            attn_implementation="eager" if capped else None,
            output_loading_info=True,
            use_safetensors=True,  # never a pickle
            ignore_mismatched_sizes=True,  # they are refused below, with their names
            **{"dtype" if renamed else "torch_dtype": dtype},
            **options,
        )
    except Exception as error:  # transformers and its libraries raise many kinds of errors
        raise _does_not_load("model", error, where, options) from error
    _refuse_mismatch(info.get("mismatched_keys", ()), where)
    missing = sorted(info["missing_keys"])
    if missing:
        raise CanonError(
            f"the weights lack {len(missing)} of the model's tensors, for example {missing[0]!r}",
            where=where,
        )
    surplus = tuple(sorted(info["unexpected_keys"]))
    _refuse_surplus(surplus, model, where)
    return model, surplus


def _refuse_mismatch(found: Iterable[Sequence[Any]], where: str) -> None:
    """Raise CanonError for tensors of another shape than the configuration asks for."""
    mismatched = sorted((str(name), *map(list, shapes)) for name, *shapes in found)
    if mismatched:
        name, stored, expected = mismatched[0]
        more = f" (and {len(mismatched) - 1} more differ)" if len(mismatched) > 1 else ""
        raise CanonError(
            f"the weights have other shapes than the configuration says: {name!r} is {stored}, "
            f"not {expected}{more}",
            where=where, hint="The configuration is of another model than the weights.",
        )  # fmt: skip


def _refuse_surplus(surplus: Sequence[str], model: Any, where: str) -> None:
    """Raise CanonError for weights that the model leaves out though they would change it.

    Those are adapters, and tensors of its own blocks: more blocks than the configuration has, or
    parts of a block that its architecture does not know. A vision tower or another head may stay.
    """
    adapters = [name for name in surplus if ADAPTER_WEIGHT.search(name)]
    if adapters:
        raise CanonError(
            f"the weights hold an adapter, {adapters[0]!r}, which the model would not use",
            where=where, hint="Merge it into the weights and save them.",
        )  # fmt: skip
    named = (BLOCK.fullmatch(name) for name, _ in model.named_modules())
    lists = {re.escape(match[1].rpartition(".")[2]) for match in named if match}
    in_a_block = re.compile(rf"(?:^|\.)(?:{'|'.join(lists)})\.\d+\.")
    of_blocks = [
        name for name in surplus if lists and in_a_block.search(name) and not HARMLESS.search(name)
    ]
    if of_blocks:
        raise CanonError(
            f"the weights hold {len(of_blocks)} tensors of blocks that the model does not use, "
            f"for example {of_blocks[0]!r}",
            where=where, hint="The configuration is of another model than the weights.",
        )  # fmt: skip


def _does_not_load(part: str, error: Exception, where: str, options: dict[str, Any]) -> CanonError:
    if "use_safetensors" in str(error):
        return CanonError(
            "the hub model has no weights in safetensors, and others could run code", where=where,
            hint="Save it as safetensors where you trust its origin, and name the folder.",
        )  # fmt: skip
    line = _one_line(str(error)) or type(error).__name__
    if options["local_files_only"] and not Path(where).is_dir():
        return NotOffline(
            f"the {part} is not whole in the cache, and the hub cannot be reached ({line})",
            where=where,
        )
    hint = None
    if part == "tokenizer" and not any((Path(where) / name).is_file() for name in VOCABULARIES):
        hint = f"The folder has none of {', '.join(VOCABULARIES)}."
    return CanonError(
        f"the {part} does not load ({line})",
        where=where,
        hint=hint if Path(where).is_dir() else None,
    )


def _one_line(text: str) -> str:
    """A message of another library in one line; only its first sentences if it is long."""
    first, _, rest = without_above(text).strip().partition("\n")
    if first.rstrip().endswith(":"):  # the fault is in the lines below
        first = f"{first.rstrip()} {' '.join(rest.split())}"
    return textwrap.shorten(first, 300, placeholder=" …").rstrip(".")


@contextlib.contextmanager
def _as_published() -> Iterator[None]:
    """Keep `transformers` from asking the hub to convert a pickle: it would load another commit."""
    name = "DISABLE_SAFETENSORS_CONVERSION"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep `transformers` from writing to the terminal, and leave it as it was."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
