"""Where numbers come from: versions, git state, hardware. None of it is part of an identity."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("saebench-canon", "torch", "transformers", "sae-lens", "numpy", "scipy", "pandas")


@cache
def versions() -> dict[str, str]:
    """The versions of what computes scores; read from metadata, without importing anything."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_state(folder: Path) -> dict[str, str] | None:
    """Commit, cleanliness and origin of the folder's repository; None outside of one."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    origin = _git(folder, "remote", "get-url", "origin") or ""
    dirty = "yes" if _git(folder, "status", "--porcelain") else "no"
    return {"commit": commit, "dirty": dirty, "origin": without_credentials(origin)}


def without_credentials(url: str) -> str:
    """A remote's address without user, password or token."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def hardware() -> dict[str, Any]:
    """The machine in a few words."""
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
