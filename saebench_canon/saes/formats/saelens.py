"""The scheme `saelens`: folders of SAELens, and the SAEs of the hub that SAELens knows.

SAEs in SAELens' own format are read directly; those in another format are loaded by SAELens.
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
from saebench_canon.saes.checkpoint import CheckpointAdapter, Format, Parameters
from saebench_canon.saes.files import Files
from saebench_canon.saes.formats import saelens_folder as form
from saebench_canon.saes.formats import saelens_releases as hub
from saebench_canon.saes.formats.saelens_config import SaeLensConfig, parse_config
from saebench_canon.saes.hub_download import cached_commit, fetch, hub_errors, unreachable
from saebench_canon.saes.hub_offline import out_of_reach
from saebench_canon.saes.memory_needed import check_memory, sae_bytes
from saebench_canon.saes.weights.json_file import read_json

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
        """A digest of a folder's content; of a hub SAE, its name and revision as written.

        The commit is not part of it: the first download would change it.
        """
        if ref.local:
            return form.LOCAL.identity(ref)
        hub_sae = hub.locate(ref)
        revision = f"@{ref.revision}" if ref.revision else ""
        return f"saelens://{hub_sae.release}/{hub_sae.id}{revision}"

    def repository(self, ref: Ref) -> tuple[str, str]:
        """The hub's repository of a ref, and the folder in it."""
        hub_sae = hub.locate(ref)
        return hub_sae.repository, hub_sae.folder

    def describe(self, ref: Ref) -> Description:
        """What the checkpoint says; of a hub SAE in another format, only what its release says."""
        if ref.local:
            return form.LOCAL.describe(ref)
        hub_sae = hub.locate(ref)
        if hub_sae.loader != hub.SAE_LENS:
            return Description(d=None, width=None, architecture=hub_sae.loader, model=hub_sae.model)
        return form.describe(_config(ref, hub_sae))

    def load(
        self, ref: Ref, *, device: str = "cpu", dtype: str | torch.dtype = "float32"
    ) -> CanonicalSAE:
        """The SAE in canonical form."""
        import torch

        if ref.local:
            return form.LOCAL.load(ref, device=device, dtype=dtype)
        hub_sae = hub.locate(ref)
        if hub_sae.loader == hub.SAE_LENS:
            config = _config(
                ref, hub_sae
            )  # a small file: an SAE that is too large is not downloaded
            _check_memory(config.d, config.width, ref)
            return _saelens_format(hub_sae).load(
                hub_sae.ref(ref.revision), device=device, dtype=dtype
            )
        parameters = form.object_parameters(_through_saelens(ref, hub_sae), where=str(ref))
        if parameters.normalize != "none":
            raise CanonError(
                f"normalize_activations is '{parameters.normalize}', which is known only after "
                "loading, too late for its activations to be normalised",
                where=str(ref),
                hint="Save it in SAELens' format and name its folder.",
            )
        _check_memory(parameters.d, parameters.width, ref)
        sae = form.fold_object(parameters, where=str(ref))
        return sae.to(device, getattr(torch, dtype) if isinstance(dtype, str) else dtype)

    def list(self) -> Iterator[str]:
        """Every SAE that the installed SAELens knows."""
        for release in hub.releases().values():
            for id in release.folders:
                yield f"saelens://{release.name}/{id}"


def _saelens_format(hub_sae: hub.HubSae) -> CheckpointAdapter:
    """The adapter of a hub SAE in SAELens' own format, with what its release says about it."""

    def released(files: Files) -> Parameters:
        parameters = form.read(files, overrides=hub_sae.overrides, scale=hub_sae.scale)
        if parameters.activation == "batchtopk" and parameters.threshold is None:
            raise CanonError(
                "topk_threshold is 0, so the SAE must be calibrated, and an SAE named on the hub "
                "cannot be: it is described without its weights",
                where=str(files.folder),
                hint="Name this folder instead of the hub's name.",
            )
        return parameters

    return CheckpointAdapter(Format("saelens", (form.CONFIG, form.WEIGHTS)), released)


def _config(ref: Ref, hub_sae: hub.HubSae) -> SaeLensConfig:
    """What a hub SAE's cfg.json says, from the hub's cache or else from the hub."""
    folder = fetch(hub_sae.ref(ref.revision), [form.CONFIG])
    raw = {**read_json(folder / form.CONFIG), **hub_sae.overrides}
    return parse_config(raw, where=str(ref), input_scale=hub_sae.scale)


def _check_memory(d: int, width: int, ref: Ref) -> None:
    check_memory(sae_bytes(d, width), f"an SAE of {width} latents", where=str(ref))


def _through_saelens(ref: Ref, hub_sae: hub.HubSae) -> Any:
    """The SAE as SAELens loads it, in evaluation mode."""
    if out_of_reach() and cached_commit(hub_sae.repository, ref.revision) is None:
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
            return SAE.from_pretrained(hub_sae.release, hub_sae.id).eval()
        except OSError:
            raise
        except Exception as error:  # any of SAELens' fifteen loaders
            raise CanonError(
                f"SAELens cannot load the SAE ({type(error).__name__}: {error})", where=str(ref)
            ) from error


@contextmanager
def _pinned(revision: str | None) -> Iterator[None]:
    """Every download inside the block is of the revision; SAELens has no option for it."""
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
    """If the hub is out of reach, its client reads the cache without trying the hub first."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or out_of_reach()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
