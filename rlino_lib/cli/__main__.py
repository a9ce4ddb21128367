"""`python -m rlino_lib.cli`: what the command `rlino` runs."""

import sys

from rlino_lib.cli.main import main

sys.exit(main())
