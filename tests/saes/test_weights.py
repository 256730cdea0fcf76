"""Files made to mislead: what is looked at is what is loaded, and neither takes time or memory."""

from __future__ import annotations

import json
import pickle
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saebench_canon.errors import CanonError
from saebench_canon.saes.weights.npz_file import open_npz
from saebench_canon.saes.weights.safetensors_file import open_safetensors
from saebench_canon.saes.weights.torch_file import open_torch

HEAD = b"\x80\x02"


def name(module: str, attribute: str) -> bytes:
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def tensor(shape: bytes, stride: bytes) -> bytes:
    storage = (
        b"("
        + text("storage")
        + name("torch", "FloatStorage")
        + text("0")
        + text("cpu")
        + b"K\x01tQ"
    )
    rest = b"\x89" + name("collections", "OrderedDict") + b")RtR"
    return (
        name("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + b"K\0" + shape + stride + rest
    )


def nested(levels: int) -> bytes:
    """Each dictionary holds the one before twice."""
    data = HEAD + b"}q\0"
    for level in range(levels):
        old, new = bytes([level]), bytes([level + 1])
        data += b"}q" + new + b"(" + text("a") + b"h" + old + text("b") + b"h" + old + b"u"
    return data + b"."


def doubled(times: int) -> bytes:
    """A text that is joined with itself many times."""
    data = HEAD + text("x" * 1024) + b"q\0"
    for turn in range(times):
        data += name("torch", "device") + b"h" + bytes([turn]) + b"h" + bytes([turn])
        data += b"\x86Rq" + bytes([turn + 1])
    return data + b"0}" + text("a") + b"h" + bytes([times]) + b"s."


ONE = b"K\x01\x85"
BIG = b"\x8b" + struct.pack("<i", 3000) + b"\x01" * 3000
PICKLES = {
    "holds itself": HEAD + b"}q\0" + text("a") + b"h\0s.",
    "holds itself twice, forty times": nested(40),
    "a text of a tebibyte": doubled(30),
    "an array of a gibibyte": b"\x80\x05\x96" + struct.pack("<Q", 2**30) + b".",
    "a shape of 7,000 digits": HEAD + b"}" + text("b") + tensor(BIG + b"\x85", ONE) + b"s.",
    "an attribute on a tensor": HEAD + b"}" + text("b") + tensor(ONE, ONE)
    + b"}" + text("storage") + b"K\x05sbs.",
    "an attribute on a stand-in": HEAD + b"}" + text("a") + name("torch", "device")
    + b"N}" + text("__doc__") + text("x") + b"s\x86bs.",
    "a shape of letters": HEAD + b"}" + text("b") + tensor(text("ab"), ONE) + b"s.",
    "one number a million times": HEAD + b"}" + text("b")
    + tensor(b"J" + struct.pack("<i", 10**6) + b"\x85", b"K\0\x85") + b"s.",
    "a million dictionaries": HEAD + b"}" * 2**20 + b".",
    "a call": HEAD + name("os", "system") + text("true") + b"\x85R.",
}  # fmt: skip


def archive(
    path: Path, data: bytes, *more: tuple[str, bytes], compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive_file:
        archive_file.writestr("archive/data.pkl", data)
        for member, content in (
            ("archive/byteorder", b"little"),
            ("archive/data/0", b"\0" * 4),
            *more,
        ):
            archive_file.writestr(member, content)
    return path


@pytest.fixture
def little_memory() -> Callable[[Path], str]:
    """Open a file in a process that may take half a GiB and ten seconds, and return its output."""

    def opened(path: Path) -> str:
        code = (
            "import sys\n"
            "from saebench_canon.errors import CanonError\n"
            "from saebench_canon.saes.weights.torch_file import open_torch\n"
            "try:\n    open_torch(__import__('pathlib').Path(sys.argv[1]))\n    print('opened')\n"
            "except CanonError as error:\n    print('refused:', error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True, text=True, timeout=10, check=False,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29)),
        )  # fmt: skip
        return done.stdout + done.stderr

    return opened


@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_made_to_mislead_is_refused_at_once(
    tmp_path: Path, kind: str, little_memory: Callable[[Path], str]
) -> None:
    output = little_memory(archive(tmp_path / "ae.pt", PICKLES[kind]))
    harmless = ("a text of a tebibyte", "a million dictionaries")  # nothing is joined or stored
    assert output.startswith("opened" if kind in harmless else "refused:"), output
    assert len(output) < 500


@pytest.mark.parametrize("member", ["archive/data.pkl", "archive/byteorder"])
def test_members_that_unpack_to_more_are_not_unpacked(
    tmp_path: Path, member: str, little_memory: Callable[[Path], str]
) -> None:
    path = tmp_path / "ae.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive_file:
        for filename in ("archive/data.pkl", "archive/byteorder"):
            archive_file.writestr(filename, b"\0" * (2**28 if filename == member else 6))
    assert "larger than names and shapes need" in little_memory(path)


def test_two_members_of_one_name_are_refused_whatever_their_case(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "ae.pt")
    with zipfile.ZipFile(tmp_path / "ae.pt") as original:
        members = [(info.filename, original.read(info)) for info in original.infolist()]
    for twin in ("data.pkl", "DATA.PKL"):
        with zipfile.ZipFile(tmp_path / "twice.pt", "w") as archive_file:
            for member, content in members:
                archive_file.writestr(member, content)
            if twin == "DATA.PKL":
                archive_file.writestr("ae/DATA.PKL", pickle.dumps({"a": 1}))
            else:
                with pytest.warns(UserWarning, match="Duplicate name"):
                    archive_file.writestr("ae/data.pkl", pickle.dumps({"a": 1}))
        with pytest.raises(CanonError, match="two members of the file have the same name"):
            open_torch(tmp_path / "twice.pt")


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64"])
def test_what_torch_saves_is_read_as_torch_reads_it(tmp_path: Path, dtype: str) -> None:
    kind = getattr(torch, dtype)
    base = (torch.arange(60).reshape(5, 12) - 7).to(kind)
    saved = {
        "plain": base.clone(), "turned": base.T, "part": base[1:4, ::2], "one": base[2, 3],
        "none": base[:0], "inside": {"parameter": torch.nn.Parameter(base.float())},
        "k": 3, "name": "TopK",
    }  # fmt: skip
    torch.save(saved, tmp_path / "ae.pt")
    tensors = open_torch(tmp_path / "ae.pt")
    for key in ("plain", "turned", "part", "one", "none"):
        read = tensors[key].tensor()
        assert read.dtype == kind
        assert torch.equal(read, saved[key])
        assert tensors[key].shape == tuple(saved[key].shape)
    assert torch.equal(tensors["inside"]["parameter"].tensor(), base.float())
    assert (tensors["k"], tensors["name"]) == (3, "TopK")
    assert tensors["one"].number() == float(base[2, 3])
    halves = torch.save({"log": torch.tensor([-1.3], dtype=torch.bfloat16)}, tmp_path / "log.pt")
    assert halves is None
    log = open_torch(tmp_path / "log.pt")["log"]
    torch.testing.assert_close(log.exp().tensor(), log.tensor().float().exp())


def test_shapes_that_no_file_has_are_refused_before_they_are_multiplied(tmp_path: Path) -> None:
    shape = "[" + ",".join(["9" * 4000] * 400) + "]"
    header = f'{{"W": {{"dtype": "F32", "shape": {shape}, "data_offsets": [0, 4]}}}}'
    data = struct.pack("<Q", len(header)) + header.encode() + b"\0" * 4
    (tmp_path / "sae.safetensors").write_bytes(data)
    with pytest.raises(CanonError, match="entry for W cannot be read"):
        open_safetensors(tmp_path / "sae.safetensors")


@pytest.mark.parametrize("kind", [torch.complex64, torch.float8_e5m2, torch.uint16])
def test_a_number_format_that_is_not_read_is_named(tmp_path: Path, kind: torch.dtype) -> None:
    save_file({"W": torch.zeros(2, 2).to(kind)}, tmp_path / "sae.safetensors")
    with pytest.raises(CanonError, match=r"W is of the number format '\w+', .*Known: F64"):
        open_safetensors(tmp_path / "sae.safetensors")


def test_numbers_beyond_the_end_of_the_file_are_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", W=np.ones((4, 4), np.float32))
    tensors = open_npz(tmp_path / "w.npz")
    data = (tmp_path / "w.npz").read_bytes()
    (tmp_path / "w.npz").write_bytes(data[:150])
    with pytest.raises(CanonError, match="ends before its numbers do"):
        tensors["W"].tensor()


def test_compressed_and_wide_weights_are_counted_in_the_memory_that_they_take() -> None:
    from saebench_canon.saes.memory_needed import sae_bytes

    assert sae_bytes(10, 100, "float32", stored="float64") == 3 * sae_bytes(10, 100, "float32")


def test_a_header_is_json_of_entries(tmp_path: Path) -> None:
    for header in ("[]", "{}", '{"W": 3}', '{"W": {"dtype": "F32"}}'):
        data = struct.pack("<Q", len(header)) + header.encode() + b"\0" * 8
        (tmp_path / "x.safetensors").write_bytes(data)
        if header == "{}":
            assert dict(open_safetensors(tmp_path / "x.safetensors")) == json.loads(header)
            continue
        with pytest.raises(CanonError):
            open_safetensors(tmp_path / "x.safetensors")
