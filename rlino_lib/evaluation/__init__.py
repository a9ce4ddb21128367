"""A policy on a split, and the values of prefixes."""
