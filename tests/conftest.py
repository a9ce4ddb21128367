"""Settings for every test: nothing goes to the net."""

import os
from pathlib import Path

import pytest

for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.setdefault(name, "1")  # before any test module imports transformers


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the working tree."""
    return Path(__file__).resolve().parent.parent
