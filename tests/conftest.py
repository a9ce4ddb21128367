"""Settings for every test: nothing goes to the net, and the CPU computes except in `tests/gpu`."""

import os
from pathlib import Path

import pytest

for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.setdefault(name, "1")  # before any test module imports transformers

GPU = Path(__file__).resolve().parent / "gpu"


def pytest_configure(config: pytest.Config) -> None:
    """Hide GPUs, from the processes that tests start too, unless all that was asked for is in `tests/gpu`.

    Tests hold results to the last digit, and those are the CPU's. CUDA reads the variable once in a process, so the
    tests of the GPU need a process of their own: `python -m pytest tests/gpu`.
    """
    named = [Path(argument.split("::")[0]).resolve() for argument in config.args]
    if not named or any(GPU not in (path, *path.parents) for path in named):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the working tree."""
    return Path(__file__).resolve().parent.parent
