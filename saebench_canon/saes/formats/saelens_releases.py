"""SAELens' releases on the hub: their SAEs and folders, read without importing SAELens."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from saebench_canon.errors import CanonError, nearest
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.hub_download import repository_of

SAE_LENS = "sae_lens"  # the loader of SAELens' own format


@dataclass(frozen=True)
class Release:
    """One release: its repository, the model, the loader, and each SAE's folder by id."""

    name: str
    repository: str
    model: str | None
    loader: str  # by which SAELens reads it
    folders: dict[str, str]
    scales: dict[str, float]  # factors of activations that SAELens folds in on loading
    overrides: dict[str, Any]  # values that replace those of each cfg.json


@dataclass(frozen=True)
class HubSae:
    """The SAE that a hub ref names: one of a release, or any folder of a repository."""

    release: str
    id: str
    repository: str
    folder: str
    model: str | None = None
    loader: str = SAE_LENS
    scale: float | None = None
    overrides: dict[str, Any] = field(default_factory=dict)

    def ref(self, revision: str | None) -> Ref:
        """The ref that names the repository and the folder."""
        return Ref("saelens", f"{self.repository}/{self.folder}", revision)


@cache
def releases() -> dict[str, Release]:
    """Every release that the installed SAELens knows."""
    import yaml  # type: ignore[import-untyped]

    spec = importlib.util.find_spec("sae_lens")
    if spec is None or spec.origin is None:
        raise CanonError("SAELens is not installed", hint="Install the package 'sae-lens'.")
    text = Path(spec.origin).with_name("pretrained_saes.yaml").read_bytes()
    table = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return {
        name: Release(
            name,
            entry["repo_id"],
            entry.get("model"),
            entry.get("conversion_func") or SAE_LENS,
            {str(sae["id"]): str(sae["path"]) for sae in entry["saes"]},
            {
                str(sae["id"]): float(sae["norm_scaling_factor"])
                for sae in entry["saes"]
                if "norm_scaling_factor" in sae
            },
            entry.get("config_overrides") or {},
        )
        for name, entry in table.items()
    }


def locate(ref: Ref) -> HubSae:
    """The SAE that a ref names; raises CanonError with the nearest names if there is none."""
    first, slash, rest = ref.target.partition("/")
    known = releases()
    if first in known:
        release = known[first]
        if rest not in release.folders:
            raise CanonError(
                f"the release '{first}' has no SAE '{rest}'" if slash else f"'{ref}' names no SAE",
                where=str(ref),
                hint=nearest(rest, release.folders),
            )
        return HubSae(
            first,
            rest,
            release.repository,
            release.folders[rest],
            release.model,
            release.loader,
            release.scales.get(rest),
            release.overrides,
        )
    _, slash, folder = rest.partition("/")
    if slash and folder:
        repository, folder = repository_of(ref)
        return HubSae(repository, folder, repository, folder)
    raise CanonError(
        f"SAELens has no release '{first}'",
        where=str(ref),
        hint=nearest(first, known),
    )
