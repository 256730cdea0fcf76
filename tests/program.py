"""The program in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SLOW = ("torch", "transformers", "sae_lens", "datasets")
CALL = """
import sys
from saebench_canon.cli.main import main
code = main({words!r})
slow = [name for name in {slow!r} if name in sys.modules]
print("IMPORTED", slow, file=sys.stderr)
sys.exit(code)
"""


def call(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The program in a fresh process that tells which slow libraries it imported."""
    code = CALL.format(words=list(words), slow=SLOW)
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
