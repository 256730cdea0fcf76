"""What plugin code must leave alone: global random numbers, and slow imports before their time."""

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

from saebench_canon.kit.findings import SkippedError, WrongError
from saebench_canon.plugin.registry import PREFIX

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
at_import = [each for each in slow if each in sys.modules]
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
print(json.dumps([at_import, [each for each in slow if each in sys.modules]]))
"""


def fresh_imports(
    made_by: Callable[..., Any], call: tuple[str, str] | None = None
) -> list[list[str]]:
    """The slow libraries that importing the module of a function or class loads.

    With `call`, a scheme and a ref, those after describing the ref follow. The module is imported
    by a new process, since here they are loaded already.
    """
    name = made_by.__module__
    try:
        file = inspect.getsourcefile(made_by)
    except TypeError:
        file = None
    last = name.rpartition(".")[2]
    if file is None or name == "__main__" or last == "conftest" or last.startswith("test_"):
        raise SkippedError("it is defined in a test or in no file, whose imports are its own")
    told = json.dumps([name, file, sys.path, SLOW, call])
    done = subprocess.run(
        [sys.executable, "-P", "-c", _FRESH, told], capture_output=True, text=True, check=False
    )
    if done.returncode:
        line = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        raise WrongError(f"a new process cannot import {name} and describe the SAE: {line}")
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def module_name(made_by: Callable[..., Any]) -> str:
    """The module of a function or class, as its author named the file."""
    return made_by.__module__.removeprefix(PREFIX)


@contextmanager
def imports_noted() -> Iterator[list[str]]:
    """The slow libraries that statements inside the block import, loaded already or not."""
    noted: list[str] = []
    real = builtins.__import__

    def noting(name: str, *rest: Any, **named: Any) -> ModuleType:
        level = named.get("level", rest[3] if len(rest) > 3 else 0)
        root = name.partition(".")[0]
        if level == 0 and root in SLOW and root not in noted:
            noted.append(root)
        return real(name, *rest, **named)

    builtins.__import__ = noting
    try:
        yield noted
    finally:
        builtins.__import__ = real


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Every global generator is afterwards as it was, and inside in a state of its own."""
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
    """Call what is given; raises if a global generator is not then as it was.

    The generators start in a state that nobody else seeds them with: one that is seeded anew at
    every call would else look untouched at the second.
    """
    with random_states_kept():
        before = random_states()
        for call in calls:
            call()
        after = random_states()
    moved = [name for name, state in before.items() if after[name] != state]
    if moved:
        raise WrongError(
            f"it draws from the global generator of {' and '.join(moved)}: take a"
            " torch.Generator of its own, or torch.random.fork_rng"
        )
