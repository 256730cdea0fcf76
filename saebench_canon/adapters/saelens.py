"""The scheme `saelens`: SAEs of the hub through SAELens, and SAELens folders without it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.adapter import Description
from saebench_canon.adapters import saelens_format as form
from saebench_canon.adapters import saelens_hub as hub
from saebench_canon.errors import CanonError, NotOffline
from saebench_canon.inputs.hub import out_of_reach
from saebench_canon.ref import Ref

if TYPE_CHECKING:
    import torch

    from saebench_canon.sae import CanonicalSAE


class SaeLensAdapter:
    """Loads `saelens://RELEASE/ID[@revision]` and `saelens:FOLDER`."""

    scheme = "saelens"

    def identity(self, ref: Ref) -> str:
        """A digest of a folder's content; a hub SAE's name and revision as they are written.

        The commit behind the name is no part of it: the first download would change it.
        """
        if ref.local:
            return f"saelens-sha256:{form.digest_folder(ref.path)}"
        place = hub.locate(ref)
        revision = f"@{ref.revision}" if ref.revision else ""
        return f"saelens://{place.release}/{place.id}{revision}"

    def describe(self, ref: Ref) -> Description:
        """What the checkpoint says of itself; of a hub SAE of another format, what is known."""
        if ref.local:
            return form.describe(form.read_folder(ref.path)[0])
        place = hub.locate(ref)
        if place.loader != "sae_lens":
            return Description(d=None, width=None, architecture=place.loader, model=place.model)
        raw = {**form.read_json(_config(ref, place)), **place.overrides}
        return form.describe(form.parse_config(raw, where=str(ref), input_scale=place.scale))

    def load(
        self, ref: Ref, *, device: str = "cpu", dtype: str | torch.dtype = "float32"
    ) -> CanonicalSAE:
        """The SAE in canonical form."""
        import torch

        if ref.local:
            sae = form.load_folder(ref.path)
        else:
            sae = form.from_object(_from_hub(ref), where=str(ref))
        return sae.to(device, getattr(torch, dtype) if isinstance(dtype, str) else dtype)

    def list(self) -> Iterator[str]:
        """Every SAE that the installed SAELens knows."""
        for release in hub.releases().values():
            for id in release.folders:
                yield f"saelens://{release.name}/{id}"


def _config(ref: Ref, place: hub.Place) -> Path:
    """The SAE's cfg.json, from the hub's cache or else from the hub."""
    folder = hub.cached_folder(place, ref.revision)
    if folder is not None:
        return folder / form.CONFIG
    from huggingface_hub import hf_hub_download

    name = f"{place.folder}/{form.CONFIG}"
    if out_of_reach():  # known at once; the client would retry for half a minute
        raise _unreachable(ref)
    with _hub_errors(ref):
        return Path(hf_hub_download(place.repository, name, revision=ref.revision))


def _from_hub(ref: Ref) -> Any:
    """The SAE as SAELens loads it, in evaluation mode."""
    place = hub.locate(ref)
    if out_of_reach() and hub.cached_commit(place.repository, ref.revision) is None:
        raise _unreachable(ref)
    with (
        _hub_errors(ref),
        _from_cache_if_offline(),
        _pinned(ref.revision),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        from sae_lens import SAE

        try:
            return SAE.from_pretrained(place.release, place.id).eval()
        except OSError:
            raise
        except Exception as error:  # fifteen loaders of somebody else's
            raise CanonError(
                f"SAELens does not load it ({type(error).__name__}: {error})", where=str(ref)
            ) from error


@contextmanager
def _pinned(revision: str | None) -> Iterator[None]:
    """Every download inside is of the revision; SAELens itself has no word for it."""
    if revision is None:
        yield
        return
    from sae_lens.loading import pretrained_sae_loaders as loaders

    download = loaders.hf_hub_download
    loaders.hf_hub_download = partial(download, revision=revision)
    try:
        yield
    finally:
        loaders.hf_hub_download = download


@contextmanager
def _hub_errors(ref: Ref) -> Iterator[None]:
    """Says in a sentence what the hub's client raises inside."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except CanonError:
        raise
    except (HfHubHTTPError, HFValidationError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CanonError(f"the hub does not give '{ref}' ({first})") from error
    except OSError as error:
        raise _unreachable(ref) from error


def _unreachable(ref: Ref) -> NotOffline:
    return NotOffline(
        f"'{ref}' is not in the hub's cache and the hub cannot be reached",
        hint="Connect, or put the files into the cache that HF_HOME names; "
        "a local folder goes by file:PATH.",
    )


@contextmanager
def _from_cache_if_offline() -> Iterator[None]:
    """Where the hub is out of reach, its client looks into the cache without trying it first."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or out_of_reach()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
