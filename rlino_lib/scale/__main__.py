"""`accelerate launch -m rlino_lib.scale`."""

import sys

from rlino_lib.scale.run import main

sys.exit(main())
