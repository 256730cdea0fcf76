"""Where things lie in a clone."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PLUGINS = ROOT / "plugins"
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"  # data that a clone may have beside it
