"""Files of a hub's repository: in the hub client's cache, or downloaded into it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from saebench_canon.errors import CanonError, NotOffline, message_of
from saebench_canon.plugin.ref import Ref
from saebench_canon.saes.hub_offline import out_of_reach


def cached_commit(repository: str, revision: str | None) -> str | None:
    """The commit that the hub's cache has for a revision of a repository, if any."""
    folder = cache_folder() / f"models--{repository.replace('/', '--')}"
    name = revision or "main"
    if (folder / "snapshots" / name).is_dir():
        return name
    reference = folder / "refs" / name
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else None


def cached_files(repository: str, folder: str, revision: str | None) -> Path | None:
    """A folder of a repository in the hub's cache, if the cache has it."""
    commit = cached_commit(repository, revision)
    if commit is None:
        return None
    name = f"models--{repository.replace('/', '--')}"
    path = cache_folder() / name / "snapshots" / commit / folder
    return path if path.is_dir() else None


def repository_of(ref: Ref) -> tuple[str, str]:
    """The repository of a ref `SCHEME://OWNER/NAME[/FOLDER]` and the folder within it."""
    owner, _, rest = ref.target.partition("/")
    name, _, folder = rest.partition("/")
    if not name or ".." in folder.split("/"):
        raise CanonError(
            f"'{ref}' names no repository", hint=f"Write {ref.scheme}://OWNER/NAME/FOLDER."
        )
    return f"{owner}/{name}", folder


def fetch(ref: Ref, names: Sequence[str], *, optional: Sequence[str] = ()) -> Path:
    """The folder in the hub's cache that holds the files of a ref, downloaded if need be."""
    repository, folder = repository_of(ref)
    snapshot = cached_files(repository, folder, ref.revision)
    if snapshot is not None and all((snapshot / name).is_file() for name in names):
        return snapshot
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    if out_of_reach():  # checked first: the client would retry for half a minute
        raise unreachable(ref)
    inside = f"{folder}/" if folder else ""
    with hub_errors(ref):
        paths = [
            Path(hf_hub_download(repository, f"{inside}{name}", revision=ref.revision))
            for name in names
        ]
        for name in optional:
            try:
                hf_hub_download(repository, f"{inside}{name}", revision=ref.revision)
            except EntryNotFoundError:
                continue
    return paths[0].parent


@contextmanager
def hub_errors(ref: Ref) -> Iterator[None]:
    """Turn what the hub's client raises inside the block into a CanonError."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except CanonError:
        raise
    except (HfHubHTTPError, HFValidationError) as error:
        raise CanonError(f"the hub refuses '{ref}' ({message_of(error)})") from error
    except OSError as error:
        raise unreachable(ref) from error


def unreachable(ref: Ref) -> NotOffline:
    """The error for a ref that is not in the cache while the hub cannot be reached."""
    return NotOffline(
        f"'{ref}' is not in the hub's cache and the hub cannot be reached",
        hint="Go online, or put the files into the cache that HF_HOME names. "
        "Name a local folder as file:PATH.",
    )


def cache_folder() -> Path:
    """The hub client's cache folder, by its own environment variables."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if path := os.environ.get(variable):
            return Path(path).expanduser()
    home = os.environ.get("HF_HOME")
    if home is None:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")
    return Path(home).expanduser() / "hub"
