"""`python -m saebench_canon` is `saebench-canon`."""

import os
import sys

# `-m` puts the working folder first, and a file json.py there before Python's: leave it out, but
# for a checkout that is run in place.
_home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not sys.flags.safe_path and sys.path[0] == os.getcwd() != _home:
    del sys.path[0]

from saebench_canon.cli.main import main  # noqa: E402

sys.exit(main())
