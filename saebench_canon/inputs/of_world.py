"""The inputs of a world: its activations, drawn once, and the features that they are made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from saebench_canon.errors import CanonError
from saebench_canon.plugin.input import made

if TYPE_CHECKING:
    from saebench_canon.plugin.activations import Acts
    from saebench_canon.plugin.data import DataSpec
    from saebench_canon.plugin.world import TrueFeatures, World

SCORED, TRAINING = "scored", "training"  # what tokens are drawn for
FEATURES, NAMES = "features.safetensors", "names.json"


@dataclass(frozen=True, eq=False)
class Drawn:
    """Tokens of a world; without features where they are drawn for a training."""

    acts: Acts
    features: TrueFeatures | None


def _save(drawn: Drawn, folder: Path) -> None:
    import json

    from safetensors.torch import save_file

    from saebench_canon.inputs.mapped import save_acts

    save_acts(drawn.acts, folder)
    features = drawn.features
    if features is None:
        return
    codes = features.codes
    tensors = {
        "rows": features.rows, "parents": features.parents,
        "indptr": codes.indptr, "indices": codes.indices, "values": codes.values,
    }  # fmt: skip
    save_file(tensors, folder / FEATURES)
    known = {"names": list(features.names), "others": features.others}
    (folder / NAMES).write_text(json.dumps(known), encoding="utf-8")


def _load(folder: Path) -> Drawn:
    import json

    from safetensors.torch import load_file

    from saebench_canon.inputs.mapped import load_acts
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.world import TrueFeatures

    acts = load_acts(folder)
    if not (folder / FEATURES).exists():
        return Drawn(acts, None)
    tensors = load_file(folder / FEATURES)
    known = json.loads((folder / NAMES).read_text(encoding="utf-8"))
    rows, parents = tensors.pop("rows"), tensors.pop("parents")
    codes = Codes(**tensors, width=len(rows))
    return Drawn(acts, TrueFeatures(rows, codes, parents, **known))


@made(per="data", version=1, available=lambda data: data.draws_fresh, save=_save, load=_load)
def drawn(data: DataSpec, folder: Path) -> Drawn:
    """A world's tokens, drawn a block at a time into a file."""
    import torch

    from saebench_canon.inputs.mapped import ACTS, empty, open_activations
    from saebench_canon.inputs.normalise import normalise
    from saebench_canon.kernels.codes import Codes
    from saebench_canon.plugin.activations import Acts
    from saebench_canon.plugin.world import BLOCK, TOKENS, TrueFeatures
    from saebench_canon.progress import track

    source = cast("World", data.source)
    world, purpose = source.opened(data), SCORED if data.fresh is None else TRAINING
    tokens = (data.tokens or TOKENS) if data.fresh is None else data.fresh
    there = world.available(purpose)
    tokens = tokens if there is None else min(tokens, there)
    if tokens == 0:
        raise CanonError(f"{source} has no tokens that are {purpose}", where=data.where)
    rows = world.rows()
    file = folder / ACTS
    x = empty(file, (tokens, rows.shape[1]))
    docs, codes = [], []
    start = 0
    blocks = world.blocks(tokens, purpose)
    for block in track(blocks, f"tokens of {source}", -(-tokens // BLOCK)):
        vectors = normalise(block.x, data.normalize).x
        x[start : start + len(vectors)] = vectors.numpy()
        start += len(vectors)
        docs.append(block.place.doc)
        if data.fresh is None:
            codes.append(block.codes)
    x.flush()
    acts = Acts(open_activations(file), torch.cat(docs))
    if data.fresh is not None:
        return Drawn(acts, None)
    known = TrueFeatures(
        rows, Codes.concatenate(codes), world.parents(), world.names(), source.holds_others
    )
    return Drawn(acts, known)


@made(per="data", version=1, available=lambda data: data.draws_fresh)
def features(drawn: Drawn) -> TrueFeatures:
    """A world's features, and on which of the tokens that scores use they fire."""
    assert drawn.features is not None
    return drawn.features
