"""A file of activations: what its header tells is told when planning."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from planted import planted_acts
from safetensors.torch import save_file
from torch import Tensor

from saebench_canon.bench.plan import make_plan
from saebench_canon.bench.store import Store
from saebench_canon.data.activations_file import ActivationFile
from saebench_canon.errors import CanonError
from saebench_canon.plugin.data import DataSpec
from saebench_canon.plugin.registry import load_registry

X = planted_acts()
DOC = torch.arange(len(X)) // 30
NO_ACTS = (
    r"acts\.safetensors has no 'acts' \[n, d\] of floating point numbers \(.*\[data\.planted\]"
)


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        ({"acts": X.int()}, rf"{NO_ACTS}\)\. It has acts \[\d+, 16\] int32\."),
        ({"acts": X > 0}, NO_ACTS), ({"acts": X[0]}, NO_ACTS), ({"acts": X[None]}, NO_ACTS),
        ({"acts": X[:0]}, NO_ACTS), ({"acts": X[:, :0]}, NO_ACTS), ({"other": X}, NO_ACTS),
        ({"acts": X.to(torch.complex64)}, "number format 'C64', which is not read"),
        ({"acts": X, "doc": DOC.float()}, r"'doc' of .* is not \[n\] whole numbers .*float32, and"),
        ({"acts": X, "doc": DOC[1:]}, r"'doc' of .* is not \[n\] whole numbers"),
        ({"acts": X, "doc": DOC[:, None]}, r"'doc' of .* is not \[n\] whole numbers"),
    ],
)  # fmt: skip
def test_what_the_header_shows_is_refused_by_a_plan_and_when_read(
    suite: Path, tensors: dict[str, Tensor], sentence: str
) -> None:
    file = suite.parent / "acts.safetensors"
    save_file(tensors, file)
    with pytest.raises(CanonError, match=sentence):
        make_plan(suite, load_registry(), Store(suite.parent / "store"))
    source = ActivationFile(file)
    with pytest.raises(CanonError, match=sentence):
        source.acts(DataSpec("planted", "small.toml, [data.planted]", source))


@pytest.mark.parametrize("doc", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("acts", [torch.float64, torch.bfloat16, torch.float16])
def test_other_formats_of_such_numbers_are_read(
    tmp_path: Path, acts: torch.dtype, doc: torch.dtype
) -> None:
    save_file({"acts": X.to(acts), "doc": DOC.to(doc)}, tmp_path / "acts.safetensors")
    source = ActivationFile(tmp_path / "acts.safetensors")
    data = DataSpec("x", "[data.x]", source)
    source.check(data)
    assert source.size(data).tokens == len(source.acts(data).x) == len(X)
