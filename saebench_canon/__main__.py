"""`python -m saebench_canon` is `saebench-canon`."""

import sys

from saebench_canon.cli.main import main

sys.exit(main())
