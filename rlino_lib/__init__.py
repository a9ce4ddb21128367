"""RL in Name Only?, the thin library behind the book."""

import os

# Threads of torch that wait for each other spin, unless they are told to sleep before torch is loaded. On a machine
# that has something else to do, a browser for one, spinning makes small models ten times as slow.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
