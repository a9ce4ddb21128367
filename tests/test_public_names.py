"""What a reader imports in a notebook of their own is listed in one place, and can be imported from there."""

from __future__ import annotations

import importlib
import re

import rlino_lib

NAMES = set(
    "load_policy sample train evaluate load_run list_runs OBJECTIVES policy_loss token_weights advantages "
    "trace_inspector get_task".split()
)


def test_each_public_name_has_one_path_that_leads_to_it():
    lines = re.findall(r"^    from (rlino_lib[.\w]*) import (\w+(?:, \w+)*)  ", rlino_lib.__doc__ or "", re.M)
    listed = [(module, name) for module, names in lines for name in names.split(", ")]
    assert len(listed) == len(NAMES) and {name for _, name in listed} == NAMES
    for module, name in listed:
        value = getattr(importlib.import_module(module), name)
        assert name.isupper() or value.__module__ == module, f"{module}.{name} is defined in {value.__module__}"
