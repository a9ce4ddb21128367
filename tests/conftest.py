"""Settings for every test: nothing goes to the net, and the CPU computes except in `tests/gpu`."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

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


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that the workers of a session share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def judgement(shared) -> pd.DataFrame:
    """The shipped ledger, judged from the recorded runs once for all workers; not to be changed."""
    from rlino_lib.claims.judge import judge_all

    path = shared / "judgement.json"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            judge_all().to_json(path, orient="split")
    return pd.read_json(path, orient="split", dtype=False)


@pytest.fixture(scope="session")
def site(root, shared) -> Path:
    """The folder of the book's web pages, built without network, once for all workers; `log` beside it has the output.

    The seconds of computing are in `seconds`; a busy machine's clock would say little.
    """
    folder = shared / "site"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            alone = ["unshare", "--map-root-user", "--net"]  # a network of its own, with nothing in it
            if not shutil.which("unshare") or subprocess.run([*alone, "true"], capture_output=True).returncode:
                alone = []
            poisoned = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
            command = [*alone, sys.executable, "-m", "tools.site", "--out", str(folder / "site")]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            built = subprocess.run(command, cwd=root, env=os.environ | poisoned, capture_output=True, text=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            (folder / "log").write_text(built.stdout + built.stderr, encoding="utf-8")
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            (folder / "seconds").write_text(str(seconds), encoding="utf-8")
    assert (folder / "site" / "index.html").exists(), (folder / "log").read_text(encoding="utf-8")
    return folder / "site"
