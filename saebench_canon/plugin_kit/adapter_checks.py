"""What an adapter promises, checked on one SAE that it loads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Adapter, Description
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.sae import CanonicalSAE
from saebench_canon.plugin_kit.damage import LARGEST, Copy, byte_positions, copy_of, cut, size_of
from saebench_canon.plugin_kit.findings import SkippedError, WrongError, check
from saebench_canon.plugin_kit.surroundings import (
    SLOW,
    fresh_imports,
    leaves_random_states,
    module_name,
    recorded_imports,
)

if TYPE_CHECKING:
    from torch import Tensor

Claim = Callable[[Path], str | None]

UNIT = 1e-4  # how far a row's norm may be from 1
CLOSE = 1e-4  # relative error between two ways to the same codes or reconstructions
TOKENS = 48
LISTED = 20  # refs of `list` that are checked


@dataclass
class AdapterUnderTest:
    """An adapter with a ref of its scheme, and its results for that ref."""

    adapter: Adapter
    ref: Ref
    claim: Claim | None

    @cached_property
    def description(self) -> Description:
        """What `describe` returns."""
        try:
            return self.adapter.describe(self.ref)
        except Exception as error:
            raise SkippedError("describe fails") from error

    @cached_property
    def sae(self) -> CanonicalSAE:
        """What `load` returns."""
        try:
            sae = self.adapter.load(self.ref)
        except Exception as error:
            raise SkippedError("it does not load") from error
        if not isinstance(sae, CanonicalSAE):
            raise SkippedError("it is not a CanonicalSAE")
        return sae

    @cached_property
    def probe(self) -> Tensor:
        """Activations [48, d] of several sizes around the bias."""
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(TOKENS, self.sae.d, generator=generator)
        sizes = torch.tensor([0.3, 1.0, 3.0, 10.0]).repeat(TOKENS // 4)[:, None]
        return self.sae.b_dec.cpu().float() + noise * sizes

    @cached_property
    def codes(self) -> Tensor:
        """Codes [48, m] of the probe."""
        if not getattr(self.sae.coder, "calibrated", True):
            raise SkippedError("it stores no threshold, so it has no codes before calibration")
        return self.sae.encode(self.probe)

    def ref_of(self, path: Path) -> Ref:
        """The ref of another path."""
        return Ref(self.ref.scheme, str(path), local=True)

    @contextmanager
    def copy(self) -> Iterator[Copy]:
        """A copy of the checkpoint elsewhere."""
        if not self.ref.local:
            raise SkippedError("it is on a hub")
        size = size_of(self.ref.path)
        if size > LARGEST:
            raise SkippedError(f"{size / 2**20:.0f} MiB are too many to copy")
        with TemporaryDirectory(prefix="canon-check-") as folder:
            yield copy_of(
                self.ref.path, Path(folder) / "elsewhere",
                lambda path: self.adapter.identity(self.ref_of(path)),
            )  # fmt: skip


@check("its scheme is valid")
def scheme(candidate: AdapterUnderTest) -> str:
    """Lower case and at least two letters, so that `Ref.parse` finds it and no drive matches."""
    if not re.fullmatch(r"[a-z][a-z0-9+.-]+", str(candidate.adapter.scheme)):
        raise WrongError(
            f"'{candidate.adapter.scheme}' is not made of lower-case letters, digits, +, - and ."
        )
    return f"{candidate.adapter.scheme}:"


@check("the ref parses back to itself")
def ref(candidate: AdapterUnderTest) -> str:
    """The ref is of the adapter's scheme."""
    if candidate.ref.scheme != candidate.adapter.scheme:
        raise WrongError(f"'{candidate.ref}' is not of the scheme '{candidate.adapter.scheme}'")
    if Ref.parse(str(candidate.ref)) != candidate.ref:
        raise WrongError(f"'{candidate.ref}' is parsed as another ref")
    return str(candidate.ref)


@check("it lists refs of its scheme")
def listed(candidate: AdapterUnderTest) -> str:
    """The first few of them."""
    refs = list(islice(candidate.adapter.list(), LISTED))
    scheme = candidate.adapter.scheme
    for listed_ref in refs:
        if not isinstance(listed_ref, str) or Ref.parse(listed_ref).scheme != scheme:
            raise WrongError(f"it lists {listed_ref!r}, which is no ref of '{scheme}'")
    return f"{len(refs)} checked" if refs else "it lists none"


@check("it claims the bare path")
def claimed(candidate: AdapterUnderTest) -> str:
    """`canon_claim` claims the checkpoint, and does not claim an empty folder."""
    if not candidate.ref.local:
        raise SkippedError("it is on a hub")
    if candidate.claim is None:
        raise SkippedError("no plugin claims it, so a bare path does not find it")
    claim = candidate.claim(candidate.ref.path)
    if claim is None:
        raise WrongError(f"no plugin claims '{candidate.ref.path}'")
    claimed = Ref.parse(claim)
    if claimed.scheme != candidate.adapter.scheme:
        raise WrongError(f"the path is claimed as '{claim}'")
    if candidate.adapter.identity(claimed) != candidate.adapter.identity(candidate.ref):
        raise WrongError(f"the path is claimed as '{claim}', which is another SAE")
    with TemporaryDirectory(prefix="canon-check-") as folder:
        if (empty := candidate.claim(Path(folder))) is not None:
            raise WrongError(f"an empty folder is also claimed, as '{empty}'")
    return claim


@check("describe agrees with load")
def described(candidate: AdapterUnderTest) -> str:
    """Widths, and whether the SAE must be calibrated."""
    description = candidate.adapter.describe(candidate.ref)
    if not isinstance(description, Description):
        raise WrongError(f"describe returns a {type(description).__name__}, not a Description")
    if candidate.ref.local and None in (description.d, description.width):
        raise WrongError("describe does not return d and width of a checkpoint on disk")
    for name, described_value, value in (
        ("d", description.d, candidate.sae.d),
        ("width", description.width, candidate.sae.width),
        ("calibrated", description.calibrated, getattr(candidate.sae.coder, "calibrated", True)),
    ):
        if described_value is not None and described_value != value:
            raise WrongError(f"describe says {name} = {described_value}, but load gives {value}")
    return f"{description.architecture}, d = {candidate.sae.d}, width = {candidate.sae.width}"


@check("identity and describe do not import torch")
def slow_imports(candidate: AdapterUnderTest) -> str:
    """`plan` and `show` import no slow library, so an adapter may not before it loads."""
    with recorded_imports() as imported:
        candidate.adapter.describe(candidate.ref)
        candidate.adapter.identity(candidate.ref)
    if imported:
        raise WrongError(f"they import {' and '.join(imported)}: move the import into load")
    maker = getattr(candidate.adapter, "_read", type(candidate.adapter))
    try:
        at_import, after = fresh_imports(maker, (candidate.adapter.scheme, str(candidate.ref)))
    except SkippedError as reason:
        return f"they do not ({reason})"
    if at_import:
        raise WrongError(f"importing {module_name(maker)} imports {' and '.join(at_import)}")
    if after:
        raise WrongError(f"describe imports {' and '.join(after)}")
    return f"neither {SLOW[0]} nor {', '.join(SLOW[1:])}"


@check("identity stays the same")
def identity_is_stable(candidate: AdapterUnderTest) -> str:
    """The same text at every call and in every folder."""
    first = candidate.adapter.identity(candidate.ref)
    if not isinstance(first, str) or not first:
        raise WrongError(f"it is {first!r}, not a text")
    if candidate.adapter.identity(candidate.ref) != first:
        raise WrongError("a second call returns another identity")
    if not candidate.ref.local or size_of(candidate.ref.path) > LARGEST:
        return "at a second call"
    with candidate.copy() as copy:
        if candidate.adapter.identity(candidate.ref_of(copy.path)) != first:
            raise WrongError("a copy in another folder has another identity: leave out the path")
    return "at a second call, and for a copy elsewhere"


@check("identity changes when the SAE does")
def identity_changes(candidate: AdapterUnderTest) -> str:
    """Bytes are changed one at a time; where the loaded SAE differs, so must its identity."""
    first, compared = candidate.adapter.identity(candidate.ref), 0
    original = _numbers(candidate, candidate.ref)
    with candidate.copy() as copy:
        count = len(byte_positions(copy))
    for index in range(count):
        with candidate.copy() as copy:
            position = byte_positions(copy)[index]
            position.flip()
            try:
                changed = _numbers(candidate, candidate.ref_of(copy.path))
            except CanonError:
                continue  # the damage is noticed
            if len(changed) == len(original) and all(map(torch.equal, original, changed)):
                continue  # padding, or a byte without effect
            compared += 1
            if candidate.adapter.identity(candidate.ref_of(copy.path)) == first:
                raise WrongError(f"it does not change with {position}, which changes the SAE")
    if not compared:
        raise SkippedError("no changed byte gives an SAE that still loads")
    return f"for {compared} of {count} changed bytes; the rest are refused or have no effect"


def _numbers(candidate: AdapterUnderTest, ref: Ref) -> list[Tensor]:
    """Parameters and codes by which two SAEs are compared, in float64.

    In float32 a changed byte may move a code by its last digit or not at all, depending on the
    processor's rounding, so the number of bytes with an effect would differ between machines.
    """
    sae = candidate.adapter.load(ref, dtype="float64")
    numbers = [sae.W_dec, sae.b_dec]
    if getattr(sae.coder, "calibrated", True) and sae.d == candidate.sae.d:
        numbers.append(sae.encode(candidate.probe.to(sae.W_dec.dtype)))
    return [torch.nan_to_num(tensor) for tensor in numbers]


@check("load returns the canonical form")
def canonical(candidate: AdapterUnderTest) -> str:
    """Rows [m, d] of unit norm (0 for a dead latent) and a bias [d], every number finite."""
    sae = candidate.adapter.load(candidate.ref)
    if not isinstance(sae, CanonicalSAE):
        raise WrongError(
            f"load returns a {type(sae).__name__}; saebench_canon.fold makes a CanonicalSAE"
        )
    if sae.W_dec.ndim != 2 or sae.b_dec.shape != sae.W_dec.shape[1:]:
        shapes = f"{list(sae.W_dec.shape)} and {list(sae.b_dec.shape)}"
        raise WrongError(f"W_dec and b_dec have shapes {shapes}, not [m, d] and [d]")
    for name, tensor in (("W_dec", sae.W_dec), ("b_dec", sae.b_dec)):
        if not bool(torch.isfinite(tensor).all()):
            raise WrongError(f"{name} holds a value that is not finite")
    norms = sae.W_dec.norm(dim=1)
    off = float((norms[norms > 0] - 1).abs().max())
    if off > UNIT:
        raise WrongError(
            f"a decoder row's norm differs from 1 by {off:.2g}; saebench_canon.fold makes it 1"
        )
    return f"{int((norms > 0).sum())} rows of norm 1"


@check("codes are at least 0")
def positive(candidate: AdapterUnderTest) -> str:
    """Codes [n, m], finite."""
    if candidate.codes.shape != (TOKENS, candidate.sae.width):
        raise WrongError(f"codes of {TOKENS} tokens have shape {list(candidate.codes.shape)}")
    if not bool(torch.isfinite(candidate.codes).all()):
        raise WrongError("a code is not finite")
    if bool((candidate.codes < 0).any()):
        raise WrongError(f"a code is {float(candidate.codes.min()):.3g}")
    active = float((candidate.codes > 0).float().sum(dim=1).mean())
    if not active:
        raise SkippedError("no latent is active on random activations")
    return f"{active:.1f} active on a random token"


@check("codes times rows plus bias is the reconstruction")
def reconstruction(candidate: AdapterUnderTest) -> str:
    """`decode(codes) == codes @ W_dec + b_dec`."""
    sae = candidate.sae
    return _same(
        sae.decode(candidate.codes), candidate.codes @ sae.W_dec + sae.b_dec,
        "decode is not codes @ W_dec + b_dec",
    )  # fmt: skip


@check("a token's codes depend on no other token")
def independent_tokens(candidate: AdapterUnderTest) -> str:
    """Encoding row by row gives the codes of encoding all rows at once."""
    codes = candidate.codes  # raises SkippedError without codes
    rows = torch.cat([candidate.sae.encode(row[None]) for row in candidate.probe])
    return _same(rows, codes, "encoding row by row gives other codes than encoding all at once")


@check("sparse codes equal dense codes")
def sparse(candidate: AdapterUnderTest) -> str:
    """`encode_sparse` and `encode`."""
    dense = candidate.codes  # raises SkippedError without codes
    sparse_codes = candidate.sae.encode_sparse(candidate.probe).dense()
    return _same(sparse_codes, dense, "encode_sparse gives other codes than encode")


def _same(ours: Tensor, theirs: Tensor, fault: str) -> str:
    """Compare two tensors; raises WrongError with the fault and the error if they differ."""
    if ours.shape != theirs.shape:
        raise WrongError(f"{fault}: shapes {list(ours.shape)} and {list(theirs.shape)}")
    error = float((ours - theirs).norm() / theirs.norm().clamp(min=1e-6))
    if not error <= CLOSE:
        raise WrongError(f"{fault}: relative error {error:.2g}")
    return f"relative error ≤ {CLOSE:g}"  # the error itself differs between processors


@check("dtype and device are as requested")
def dtype_and_device(candidate: AdapterUnderTest) -> str:
    """By name and as torch.dtype, on every kind of device of this machine."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for dtype in ("float64", "bfloat16", torch.float32):
            sae = candidate.adapter.load(candidate.ref, device=device, dtype=dtype)
            torch_dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
            tensors = [("W_dec", sae.W_dec), ("b_dec", sae.b_dec)]
            if sae.encoder is not None:
                tensors.append(("the encoder", sae.encoder))
            for name, tensor in tensors:
                if tensor.dtype != torch_dtype or tensor.device.type != device:
                    raise WrongError(
                        f"load with {torch_dtype} on {device} gives {name} in {tensor.dtype} on"
                        f" {tensor.device.type}"
                    )
    return f"float64, bfloat16, float32 on {' and '.join(devices)}"


@check("the global random state is unchanged")
def random_state(candidate: AdapterUnderTest) -> str:
    """By identity, describe, load and encode."""
    leaves_random_states(
        lambda: candidate.adapter.identity(candidate.ref),
        lambda: candidate.adapter.describe(candidate.ref),
        lambda: candidate.adapter.load(candidate.ref),
        lambda: candidate.codes if getattr(candidate.sae.coder, "calibrated", True) else None,
        lambda: (
            candidate.sae.encode(candidate.probe)
            if getattr(candidate.sae.coder, "calibrated", True)
            else None
        ),
    )
    return "for random, numpy and torch"


@check("a missing path raises a CanonError")
def missing_path(candidate: AdapterUnderTest) -> str:
    """By identity, describe and load."""
    if not candidate.ref.local:
        raise SkippedError("it is on a hub")
    with TemporaryDirectory(prefix="canon-check-") as folder:
        missing = candidate.ref_of(Path(folder) / "no-such-sae")
        for name in ("identity", "describe", "load"):
            try:
                getattr(candidate.adapter, name)(missing)
            except CanonError as error:
                message = error.what
            except Exception as error:
                raise WrongError(f"{name} raises {type(error).__name__}: {error}") from error
            else:
                raise WrongError(f"{name} raises nothing for a missing path")
    return message


@check("truncated files raise a CanonError")
def truncated(candidate: AdapterUnderTest) -> str:
    """Each file is cut to half and to nothing: nothing but a CanonError may be raised."""
    with candidate.copy() as copy:
        sizes = [file.stat().st_size for file in copy.files]
    refused = 0
    for index, size in enumerate(sizes):
        for cut_size in (size // 2, 0):
            with candidate.copy() as copy:
                file = copy.files[index]
                cut(file, cut_size)
                try:
                    candidate.adapter.describe(candidate.ref_of(copy.path))
                    candidate.adapter.load(candidate.ref_of(copy.path))
                except CanonError:
                    refused += 1
                    continue
                except Exception as error:
                    raise WrongError(
                        f"{file.name} cut to {cut_size} bytes raises"
                        f" {type(error).__name__}: {error}"
                    ) from error
                if size == max(sizes):
                    raise WrongError(f"{file.name} cut to {cut_size} of {size} bytes still loads")
    rest = "" if refused == 2 * len(sizes) else "; the others have no effect"
    return f"{refused} of {2 * len(sizes)} truncated files refused{rest}"


CHECKS = [
    scheme, ref, listed, claimed, described, slow_imports, identity_is_stable, identity_changes,
    canonical, positive, reconstruction, independent_tokens, sparse, dtype_and_device,
    random_state, missing_path, truncated,
]  # fmt: skip
