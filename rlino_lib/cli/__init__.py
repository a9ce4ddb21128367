"""The command `rlino`."""
