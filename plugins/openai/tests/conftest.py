"""Lets the tests run in a clone, where the plugin may be installed and need not be."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))


@pytest.fixture(scope="session", autouse=True)
def _no_installed_plugins() -> Iterator[None]:
    """The file under test is loaded by its path, and an installed copy would be a second one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CANON_PLUGINS", "")
        yield
