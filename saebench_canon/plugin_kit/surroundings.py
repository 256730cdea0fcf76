"""What plugin code must not do: change the global random state, or import slow libraries early."""

from __future__ import annotations

import builtins
import inspect
import json
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from saebench_canon.plugin.registry import PREFIX
from saebench_canon.plugin_kit.findings import SkippedError, WrongError

ODD = 20_261_121
SLOW = ("torch", "transformers", "sae_lens", "datasets")

_FRESH = """
import importlib, importlib.util, json, sys
name, file, path, slow, call = json.loads(sys.argv[1])
sys.path[:] = path
try:
    spec = importlib.util.find_spec(name)
except (ImportError, ValueError):
    spec = None
if spec is None or spec.origin != file:
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
else:
    module = importlib.import_module(name)
at_import = [library for library in slow if library in sys.modules]
if call and not at_import:
    from saebench_canon.plugin.ref import Ref
    scheme, text = call
    nouns = list(vars(module).values())
    if hasattr(module, "canon_adapters"):
        nouns += list(module.canon_adapters())
    for noun in nouns:
        if not isinstance(noun, type) and getattr(noun, "scheme", None) == scheme:
            noun.describe(Ref.parse(text))
            break
print(json.dumps([at_import, [library for library in slow if library in sys.modules]]))
"""


def fresh_imports(
    maker: Callable[..., Any], call: tuple[str, str] | None = None
) -> list[list[str]]:
    """The slow libraries that importing the module of a function or class loads.

    With `call`, a scheme and a ref, a second list has those loaded after describing the ref. A new
    process imports the module, since this one has loaded them already.
    """
    name = maker.__module__
    try:
        file = inspect.getsourcefile(maker)
    except TypeError:
        file = None
    last = name.rpartition(".")[2]
    if file is None or name == "__main__" or last == "conftest" or last.startswith("test_"):
        raise SkippedError("it is defined in a test or in no file, whose imports do not count")
    request = json.dumps([name, file, sys.path, SLOW, call])
    done = subprocess.run(
        [sys.executable, "-P", "-c", _FRESH, request], capture_output=True, text=True, check=False
    )
    if done.returncode:
        line = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        raise WrongError(f"a new process cannot import {name} and describe the SAE: {line}")
    imports: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return imports


def module_name(maker: Callable[..., Any]) -> str:
    """The module of a function or class, by the name of its file."""
    return maker.__module__.removeprefix(PREFIX)


@contextmanager
def recorded_imports() -> Iterator[list[str]]:
    """The slow libraries that statements inside the block import, loaded already or not."""
    imported: list[str] = []
    real = builtins.__import__

    def recording_import(name: str, *rest: Any, **named: Any) -> ModuleType:
        level = named.get("level", rest[3] if len(rest) > 3 else 0)
        root = name.partition(".")[0]
        if level == 0 and root in SLOW and root not in imported:
            imported.append(root)
        return real(name, *rest, **named)

    builtins.__import__ = recording_import
    try:
        yield imported
    finally:
        builtins.__import__ = real


@contextmanager
def random_states_restored() -> Iterator[None]:
    """Set every global generator to a fixed state, and restore it afterwards."""
    import numpy
    import torch

    python, array = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        random.seed(ODD)
        numpy.random.seed(ODD)
        torch.manual_seed(ODD)
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(array)


def random_states() -> dict[str, bytes]:
    """The states of every global generator."""
    import numpy
    import torch

    states = {
        "random": pickle.dumps(random.getstate()),
        "numpy.random": pickle.dumps(numpy.random.get_state()),
        "torch": torch.random.get_rng_state().numpy().tobytes(),
    }
    if torch.cuda.is_available():
        states["torch.cuda"] = torch.cuda.get_rng_state().numpy().tobytes()
    return states


def leaves_random_states(*calls: Callable[[], object]) -> None:
    """Make the calls; raises WrongError if they change the state of a global generator.

    The generators start in a state that no other code seeds them with: a generator that each call
    seeds alike would otherwise look unchanged at the second call.
    """
    with random_states_restored():
        before = random_states()
        for call in calls:
            call()
        after = random_states()
    moved = [name for name, state in before.items() if after[name] != state]
    if moved:
        raise WrongError(
            f"it draws from the global generator of {' and '.join(moved)}: use a"
            " torch.Generator, or torch.random.fork_rng"
        )
