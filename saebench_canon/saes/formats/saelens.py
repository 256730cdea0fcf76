"""The scheme `saelens`: folders of SAELens, and the SAEs of the hub that SAELens knows.

What is in SAELens' own format is read as it stands; what is in another goes through the loader
that SAELens has for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saebench_canon.errors import CanonError
from saebench_canon.plugin.adapter import Description
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.checkpoint import CheckpointAdapter, Parameters
from saebench_canon.saes.files import Files, read_json
from saebench_canon.saes.formats import saelens_folder as form
from saebench_canon.saes.formats import saelens_hub as hub
from saebench_canon.saes.formats.saelens_config import Config, parse_config
from saebench_canon.saes.hub import out_of_reach
from saebench_canon.saes.hub_files import cached_commit, fetch, hub_errors, unreachable
from saebench_canon.saes.memory import check_memory, sae_bytes

if TYPE_CHECKING:
    import torch

    from saebench_canon.plugin.sae import CanonicalSAE


class SaeLensAdapter:
    """Loads `saelens:FOLDER`, `saelens://RELEASE/ID[@revision]`, `saelens://OWNER/NAME/FOLDER`."""

    scheme = "saelens"

    def claim(self, path: Path) -> str | None:
        """The ref of a folder of SAELens, or of one of its files."""
        return form.LOCAL.claim(path)

    def identity(self, ref: Ref) -> str:
        """A digest of a folder's content; a hub SAE's name and revision as they are written.

        The commit behind the name is no part of it: the first download would change it.
        """
        if ref.local:
            return form.LOCAL.identity(ref)
        place = hub.locate(ref)
        revision = f"@{ref.revision}" if ref.revision else ""
        return f"saelens://{place.release}/{place.id}{revision}"

    def repository(self, ref: Ref) -> tuple[str, str]:
        """The hub's repository of a ref, a release's among them, and the folder in it."""
        place = hub.locate(ref)
        return place.repository, place.folder

    def describe(self, ref: Ref) -> Description:
        """What the checkpoint says of itself; of a hub SAE of another format, what is known."""
        if ref.local:
            return form.LOCAL.describe(ref)
        place = hub.locate(ref)
        if place.loader != hub.OWN:
            return Description(d=None, width=None, architecture=place.loader, model=place.model)
        return form.describe(_config(ref, place))

    def load(
        self, ref: Ref, *, device: str = "cpu", dtype: str | torch.dtype = "float32"
    ) -> CanonicalSAE:
        """The SAE in canonical form."""
        import torch

        if ref.local:
            return form.LOCAL.load(ref, device=device, dtype=dtype)
        place = hub.locate(ref)
        if place.loader == hub.OWN:
            config = _config(ref, place)  # a small file: what is too large is not downloaded
            _check_memory(config.d, config.width, ref)
            return _own(place).load(place.ref(ref.revision), device=device, dtype=dtype)
        told = form.object_parameters(_through_saelens(ref, place), where=str(ref))
        if told.normalize != "none":
            raise CanonError(
                f"normalize_activations is '{told.normalize}', which is known only once it is "
                "loaded, when its activations have been taken",
                where=str(ref),
                hint="Save it in SAELens' format and name its folder.",
            )
        _check_memory(told.d, told.width, ref)
        sae = form.fold_object(told, where=str(ref))
        return sae.to(device, getattr(torch, dtype) if isinstance(dtype, str) else dtype)

    def list(self) -> Iterator[str]:
        """Every SAE that the installed SAELens knows."""
        for release in hub.releases().values():
            for id in release.folders:
                yield f"saelens://{release.name}/{id}"


def _own(place: hub.Place) -> CheckpointAdapter:
    """What reads a place in SAELens' own format, with what its release says beside the files."""

    def released(files: Files) -> Parameters:
        told = form.read(files, overrides=place.overrides, scale=place.scale)
        if told.activation == "batchtopk" and told.threshold is None:
            raise CanonError(
                "topk_threshold is 0, so it has to be calibrated on data, which goes by its "
                "description and a hub's SAE is described without its weights",
                where=str(files.folder),
                hint="Name this folder in the place of the hub's name.",
            )
        return told

    return CheckpointAdapter("saelens", released, (form.CONFIG, form.WEIGHTS))


def _config(ref: Ref, place: hub.Place) -> Config:
    """What a hub SAE's cfg.json says, from the hub's cache or else from the hub."""
    folder = fetch(place.ref(ref.revision), [form.CONFIG])
    raw = {**read_json(folder / form.CONFIG), **place.overrides}
    return parse_config(raw, where=str(ref), input_scale=place.scale)


def _check_memory(d: int, width: int, ref: Ref) -> None:
    check_memory(sae_bytes(d, width), f"an SAE of {width} latents", where=str(ref))


def _through_saelens(ref: Ref, place: hub.Place) -> Any:
    """The SAE as SAELens loads it, in evaluation mode."""
    if out_of_reach() and cached_commit(place.repository, ref.revision) is None:
        raise unreachable(ref)
    with (
        hub_errors(ref),
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
def _from_cache_if_offline() -> Iterator[None]:
    """Where the hub is out of reach, its client looks into the cache without trying it first."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or out_of_reach()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
