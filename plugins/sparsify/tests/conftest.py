"""Lets the tests run in a clone, where the plugin need not be installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
