"""What an adapter promises, looked at on one SAE that it loads."""

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
from saebench_canon.kit.damage import LARGEST, Copy, copy_of, cut, places, size_of
from saebench_canon.kit.findings import SkippedError, WrongError, check
from saebench_canon.kit.surroundings import (
    SLOW,
    fresh_imports,
    imports_noted,
    leaves_random_states,
    module_name,
)
from saebench_canon.plugin.adapter import Adapter, Description
from saebench_canon.plugin.ref import Ref
from saebench_canon.plugin.sae import CanonicalSAE

if TYPE_CHECKING:
    from torch import Tensor

Claim = Callable[[Path], str | None]

UNIT = 1e-4  # how far a row's norm may be from 1
CLOSE = 1e-4  # relative error between two ways to the same codes or reconstructions
TOKENS = 48
LISTED = 20  # refs of `list` that are looked at


@dataclass
class Opened:
    """An adapter with a ref of its scheme, and what both give."""

    adapter: Adapter
    ref: Ref
    claim: Claim | None

    @cached_property
    def told(self) -> Description:
        """What `describe` says."""
        try:
            return self.adapter.describe(self.ref)
        except Exception as error:
            raise SkippedError("describe fails") from error

    @cached_property
    def sae(self) -> CanonicalSAE:
        """What `load` gives."""
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
            raise SkippedError("it stores no threshold, so it has no codes before it is calibrated")
        return self.sae.encode(self.probe)

    def at(self, path: Path) -> Ref:
        """The ref of another path."""
        return Ref(self.ref.scheme, str(path), local=True)

    @contextmanager
    def copy(self) -> Iterator[Copy]:
        """A copy of the checkpoint elsewhere."""
        if not self.ref.local:
            raise SkippedError("it is on a hub")
        size = size_of(self.ref.path)
        if size > LARGEST:
            raise SkippedError(f"{size / 2**20:.0f} MiB are too much to copy")
        with TemporaryDirectory(prefix="canon-check-") as folder:
            yield copy_of(
                self.ref.path, Path(folder) / "elsewhere",
                lambda path: self.adapter.identity(self.at(path)),
            )  # fmt: skip


@check("its scheme is a word for refs")
def scheme(it: Opened) -> str:
    """Lower-case, two letters at least: so `Ref.parse` finds it, and a drive is none."""
    if not re.fullmatch(r"[a-z][a-z0-9+.-]+", str(it.adapter.scheme)):
        raise WrongError(f"'{it.adapter.scheme}' is not letters, digits, +, - and . in lower case")
    return f"{it.adapter.scheme}:"


@check("the ref is read back as it is written")
def ref(it: Opened) -> str:
    """The ref is of the adapter's scheme."""
    if it.ref.scheme != it.adapter.scheme:
        raise WrongError(f"'{it.ref}' is not of the scheme '{it.adapter.scheme}'")
    if Ref.parse(str(it.ref)) != it.ref:
        raise WrongError(f"'{it.ref}' is read back as another ref")
    return str(it.ref)


@check("what it lists are refs of its scheme")
def listed(it: Opened) -> str:
    """The first few of them."""
    refs = list(islice(it.adapter.list(), LISTED))
    for each in refs:
        if not isinstance(each, str) or Ref.parse(each).scheme != it.adapter.scheme:
            raise WrongError(f"it lists {each!r}, which is no ref of '{it.adapter.scheme}'")
    return f"{len(refs)} looked at" if refs else "it lists none"


@check("a bare path leads back to it")
def claimed(it: Opened) -> str:
    """`canon_claim` knows the checkpoint, and does not claim an empty folder."""
    if not it.ref.local:
        raise SkippedError("it is on a hub")
    if it.claim is None:
        raise SkippedError("nobody claims it: a bare path does not find it")
    found = it.claim(it.ref.path)
    if found is None:
        raise WrongError(f"nobody claims '{it.ref.path}'")
    claimed = Ref.parse(found)
    if claimed.scheme != it.adapter.scheme:
        raise WrongError(f"the path is claimed as '{found}'")
    if it.adapter.identity(claimed) != it.adapter.identity(it.ref):
        raise WrongError(f"the path is claimed as '{found}', which is another SAE")
    with TemporaryDirectory(prefix="canon-check-") as folder:
        if (empty := it.claim(Path(folder))) is not None:
            raise WrongError(f"an empty folder is claimed, too, as '{empty}'")
    return found


@check("describe says what load gives")
def described(it: Opened) -> str:
    """Widths, and whether codes wait for a threshold."""
    told = it.adapter.describe(it.ref)
    if not isinstance(told, Description):
        raise WrongError(f"describe gives a {type(told).__name__}, not a Description")
    if it.ref.local and None in (told.d, told.width):
        raise WrongError("describe does not tell d and width of a checkpoint on disk")
    for name, said, is_so in (
        ("d", told.d, it.sae.d),
        ("width", told.width, it.sae.width),
        ("calibrated", told.calibrated, getattr(it.sae.coder, "calibrated", True)),
    ):
        if said is not None and said != is_so:
            raise WrongError(f"describe says {name} = {said}, and load gives {is_so}")
    return f"{told.architecture}, d = {it.sae.d}, width = {it.sae.width}"


@check("identity and describe do without torch")
def light(it: Opened) -> str:
    """`plan` and `show` import no slow library, so neither may an adapter before it loads."""
    with imports_noted() as noted:
        it.adapter.describe(it.ref)
        it.adapter.identity(it.ref)
    if noted:
        raise WrongError(f"they import {' and '.join(noted)}: import inside load")
    maker = getattr(it.adapter, "_read", type(it.adapter))
    try:
        at_import, after = fresh_imports(maker, (it.adapter.scheme, str(it.ref)))
    except SkippedError as reason:
        return f"they do ({reason})"
    if at_import:
        raise WrongError(f"importing {module_name(maker)} imports {' and '.join(at_import)}")
    if after:
        raise WrongError(f"describe imports {' and '.join(after)}")
    return f"neither {SLOW[0]} nor {', '.join(SLOW[1:])}"


@check("identity stays the same")
def stable(it: Opened) -> str:
    """A text, at every call, wherever the checkpoint lies."""
    first = it.adapter.identity(it.ref)
    if not isinstance(first, str) or not first:
        raise WrongError(f"it is {first!r}, not a text")
    if it.adapter.identity(it.ref) != first:
        raise WrongError("it is another at the second call")
    if not it.ref.local or size_of(it.ref.path) > LARGEST:
        return "at a second call"
    with it.copy() as copy:
        if it.adapter.identity(it.at(copy.path)) != first:
            raise WrongError("it is another for a copy in another folder: leave out the path")
    return "at a second call, and for a copy elsewhere"


@check("identity changes when the SAE does")
def changing(it: Opened) -> str:
    """A byte is changed at several places; where the loaded SAE differs, so must its identity."""
    first, tried = it.adapter.identity(it.ref), 0
    mine = _numbers(it, it.ref)
    with it.copy() as whole:
        spots = places(whole)
    for index in range(len(spots)):
        with it.copy() as copy:
            spot = places(copy)[index]
            spot.flip()
            try:
                changed = _numbers(it, it.at(copy.path))
            except CanonError:
                continue  # it is seen to be damaged
            if len(changed) == len(mine) and all(map(torch.equal, mine, changed)):
                continue  # padding, or what does not count
            tried += 1
            if it.adapter.identity(it.at(copy.path)) == first:
                raise WrongError(f"it stays when {spot} is changed, which changes the SAE")
    if not tried:
        raise SkippedError("no changed byte gives an SAE that still loads")
    return f"for {tried} of {len(spots)} changed bytes; the others are refused or do not count"


def _numbers(it: Opened, ref: Ref) -> list[Tensor]:
    """What two SAEs are told apart by, in float64.

    In float32 a changed byte may move a code by its last digit or not at all, as the processor
    rounds: how many bytes count would differ between machines.
    """
    sae = it.adapter.load(ref, dtype="float64")
    numbers = [sae.W_dec, sae.b_dec]
    if getattr(sae.coder, "calibrated", True) and sae.d == it.sae.d:
        numbers.append(sae.encode(it.probe.to(sae.W_dec.dtype)))
    return [torch.nan_to_num(each) for each in numbers]


@check("load gives the canonical form")
def canonical(it: Opened) -> str:
    """Unit-norm rows [m, d] and a bias [d], every number finite."""
    sae = it.adapter.load(it.ref)
    if not isinstance(sae, CanonicalSAE):
        raise WrongError(f"load gives a {type(sae).__name__}; saebench_canon.fold makes one")
    if sae.W_dec.ndim != 2 or sae.b_dec.shape != sae.W_dec.shape[1:]:
        shapes = f"{list(sae.W_dec.shape)} and {list(sae.b_dec.shape)}"
        raise WrongError(f"W_dec and b_dec have shapes {shapes}, not [m, d] and [d]")
    for name, tensor in (("W_dec", sae.W_dec), ("b_dec", sae.b_dec)):
        if not bool(torch.isfinite(tensor).all()):
            raise WrongError(f"{name} holds a value that is not finite")
    off = float((sae.W_dec.norm(dim=1) - 1).abs().max())
    if off > UNIT:
        raise WrongError(f"a decoder row's norm is {off:.2g} off 1; saebench_canon.fold helps")
    return f"{sae.width} rows of norm 1"


@check("codes are at least 0")
def positive(it: Opened) -> str:
    """Codes [n, m], finite."""
    if it.codes.shape != (TOKENS, it.sae.width):
        raise WrongError(f"codes of {TOKENS} tokens have shape {list(it.codes.shape)}")
    if not bool(torch.isfinite(it.codes).all()):
        raise WrongError("a code is not finite")
    if bool((it.codes < 0).any()):
        raise WrongError(f"a code is {float(it.codes.min()):.3g}")
    active = float((it.codes > 0).float().sum(dim=1).mean())
    if not active:
        raise SkippedError("no latent is active on random activations")
    return f"{active:.1f} active on a random token"


@check("codes times rows plus bias is the reconstruction")
def decodes(it: Opened) -> str:
    """`decode(codes) == codes @ W_dec + b_dec`."""
    return _same(
        it.sae.decode(it.codes), it.codes @ it.sae.W_dec + it.sae.b_dec,
        "decode is not codes @ W_dec + b_dec",
    )  # fmt: skip


@check("a token's codes depend on no other token")
def alone(it: Opened) -> str:
    """Row by row they are as all at once."""
    codes = it.codes  # refuses what has none
    rows = torch.cat([it.sae.encode(row[None]) for row in it.probe])
    return _same(rows, codes, "encoding row by row gives other codes than all at once")


@check("sparse codes are the dense ones")
def sparse(it: Opened) -> str:
    """`encode_sparse` and `encode`."""
    dense = it.codes  # refuses what has none
    found = it.sae.encode_sparse(it.probe).dense()
    return _same(found, dense, "encode_sparse gives other codes than encode")


def _same(ours: Tensor, theirs: Tensor, told: str) -> str:
    if ours.shape != theirs.shape:
        raise WrongError(f"{told}: shapes {list(ours.shape)} and {list(theirs.shape)}")
    error = float((ours - theirs).norm() / theirs.norm().clamp(min=1e-6))
    if not error <= CLOSE:
        raise WrongError(f"{told}: relative error {error:.2g}")
    return f"relative error ≤ {CLOSE:g}"  # the error itself differs between processors


@check("dtype and device are as asked")
def placed(it: Opened) -> str:
    """By name and as torch.dtype, on every kind of device there is."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for dtype in ("float64", "bfloat16", torch.float32):
            sae = it.adapter.load(it.ref, device=device, dtype=dtype)
            wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
            tensors = [("W_dec", sae.W_dec), ("b_dec", sae.b_dec)]
            if sae.encoder is not None:
                tensors.append(("the encoder", sae.encoder))
            for name, tensor in tensors:
                if tensor.dtype != wanted or tensor.device.type != device:
                    raise WrongError(
                        f"asked for {wanted} on {device}, {name} is {tensor.dtype} on"
                        f" {tensor.device.type}"
                    )
    return f"float64, bfloat16, float32 on {' and '.join(devices)}"


@check("global random numbers are left alone")
def quiet(it: Opened) -> str:
    """By identity, describe, load and encode."""
    leaves_random_states(
        lambda: it.adapter.identity(it.ref),
        lambda: it.adapter.describe(it.ref),
        lambda: it.adapter.load(it.ref),
        lambda: it.codes if getattr(it.sae.coder, "calibrated", True) else None,
        lambda: it.sae.encode(it.probe) if getattr(it.sae.coder, "calibrated", True) else None,
    )
    return "of random, numpy and torch"


@check("a path that is not there is a CanonError")
def absent(it: Opened) -> str:
    """By identity, describe and load."""
    if not it.ref.local:
        raise SkippedError("it is on a hub")
    with TemporaryDirectory(prefix="canon-check-") as folder:
        nowhere = it.at(Path(folder) / "no-such-sae")
        for name in ("identity", "describe", "load"):
            try:
                getattr(it.adapter, name)(nowhere)
            except CanonError as error:
                told = error.what
            except Exception as error:
                raise WrongError(f"{name} raises {type(error).__name__}: {error}") from error
            else:
                raise WrongError(f"{name} answers for a path that is not there")
    return told


@check("files cut short are a CanonError")
def truncated(it: Opened) -> str:
    """Each file is cut to half and to nothing; the largest must not load, none may fail else."""
    with it.copy() as whole:
        sizes = [file.stat().st_size for file in whole.files]
    refused = 0
    for index, size in enumerate(sizes):
        for kept in (size // 2, 0):
            with it.copy() as copy:
                file = copy.files[index]
                cut(file, kept)
                try:
                    it.adapter.describe(it.at(copy.path))
                    it.adapter.load(it.at(copy.path))
                except CanonError:
                    refused += 1
                    continue
                except Exception as error:
                    raise WrongError(
                        f"{file.name} cut to {kept} bytes raises {type(error).__name__}: {error}"
                    ) from error
                if size == max(sizes):
                    raise WrongError(f"{file.name} cut to {kept} of {size} bytes still loads")
    rest = "" if refused == 2 * len(sizes) else "; the others do not count"
    return f"{refused} of {2 * len(sizes)} cut files refused{rest}"


CHECKS = [
    scheme, ref, listed, claimed, described, light, stable, changing, canonical, positive, decodes,
    alone, sparse, placed, quiet, absent, truncated,
]  # fmt: skip
