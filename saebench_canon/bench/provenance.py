"""Where numbers come from: versions, git state, hardware. None of it is part of an identity."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("saebench-canon", "torch", "transformers", "sae-lens", "numpy", "scipy", "pandas")


@cache
def versions() -> dict[str, str]:
    """The versions of the packages that compute scores, from their metadata."""
    by_package = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_package[package] = version(package)
        except PackageNotFoundError:
            by_package[package] = "not installed"
    return by_package


HARMLESS = (
    "--no-pager", "--no-replace-objects",
    "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}",
)  # fmt: skip
FETCHES_NOTHING = {
    "GIT_ALLOW_PROTOCOL": "none",  # a missing object would be fetched by the repository's command
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
}


def git_state(suite: Path | None) -> dict[str, str] | None:
    """Commit and origin of the repository around a suite file, and whether the file differs.

    Without a file: of the repository around the working folder. None outside of a repository. The
    repository may be hostile: commands that run its filters or hooks (`git status`) are not used.
    """
    path = None if suite is None else suite.resolve()
    folder = Path() if path is None else path.parent
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    if commit is None:
        return None
    origin = _git(folder, "config", "--get", "remote.origin.url") or ""
    state = {"commit": commit, "origin": without_credentials(origin)}
    if path is None:
        return state
    blob = _git(folder, "rev-parse", "--verify", "--quiet", f"{commit}:./{path.name}")
    return {**state, "dirty": "no" if blob in _blobs(path.read_bytes(), commit) else "yes"}


def _blobs(content: bytes, commit: str) -> list[str]:
    """Git's names of a file's content: as it is, and with line ends as git may store them."""
    kind = "sha256" if len(commit) == 64 else "sha1"
    return [
        hashlib.new(kind, b"blob %d\0%b" % (len(text), text), usedforsecurity=False).hexdigest()
        for text in (content, content.replace(b"\r\n", b"\n"))
    ]


UNKNOWN = "…"
SCHEMES = ("http", "https", "ssh", "git")
HOST = re.compile(r"(?:\w[\w.-]+|\[[\dA-Fa-f:.]+\])(?::\d+)?", re.ASCII)
PATH = re.compile(r"(?:[\w.~+/-]|%20)*")  # what ends it, such as ?, ; or =, begins parameters


def without_credentials(url: str) -> str:
    """Scheme, host and path of an address of http, https, ssh or git; of other addresses nothing.

    The others may be commands. User, password and parameters are left out; a password may hold
    `/`, `?`, `#` or `@`, so "…" stands for all that cannot be told from one. The user `git` of an
    address without a scheme (`git@HOST:PATH`, which is ssh) is no secret and stays.
    """
    if not url:
        return ""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _short(url)
    if scheme.lower() not in SCHEMES or "://" in rest:
        return UNKNOWN
    authority, slash, path = rest.partition("/")
    host = authority.rpartition("@")[2]
    kept = PATH.match(path)
    if "@" in path or set("?#;") & set(authority) or not HOST.fullmatch(host) or not kept:
        return f"{scheme}{separator}{UNKNOWN}"
    return f"{scheme}{separator}{host}{slash}{kept[0]}"


def _short(address: str) -> str:
    """The same of an address without a scheme; a path on this machine is none."""
    user, _, place = address.rpartition("@")
    host, colon, path = place.partition(":")
    kept = PATH.match(path)
    if "::" in address or "/" in user or not colon or not HOST.fullmatch(host) or not kept:
        return UNKNOWN
    return f"{'git@' if user == 'git' else ''}{host}:{kept[0]}"


def _git(folder: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None or not Path(git).is_absolute():  # never a program in the working folder
        return None
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            [git, *HARMLESS, "-C", str(folder), *arguments],
            capture_output=True, env={**environment, **FETCHES_NOTHING}, errors="replace",
            stdin=subprocess.DEVNULL, text=True, timeout=5,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hardware() -> dict[str, Any]:
    """The machine: architecture, system, cores, memory, Python."""
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "memory_bytes": memory,
        "python": sys.version.split()[0],
    }
