"""Sampling on a CPU is tested three times: token by token, with equal rows merged as of many samples they are, and in
blocks as a GPU does it, by the same code uncaptured."""

import pytest

from rlino_lib.policy import decode, graph, sampling

EACH_WAY = ("test_rollout", "test_stopping", "test_environment", "test_decode")


def pytest_generate_tests(metafunc):
    if metafunc.module.__name__.rpartition(".")[2] in EACH_WAY:
        metafunc.fixturenames.append("in_blocks")
        metafunc.parametrize("in_blocks", ["", "merged", "in blocks"], indirect=True)


@pytest.fixture
def in_blocks(request, monkeypatch):
    """Whether tokens are written in blocks, here short ones, in a cache that grows often and that rows leave."""
    if request.param == "merged":
        monkeypatch.setattr(decode, "MANY", 1)
        monkeypatch.setattr(decode, "DISTINCT", 1)  # to the end
    if request.param == "in blocks":
        for module in (decode, sampling):
            monkeypatch.setattr(module, "in_blocks", lambda device: True)
        for module in (graph, sampling):
            monkeypatch.setattr(module, "BLOCK", 4)
        monkeypatch.setattr(graph, "GROWTH", 8)
        monkeypatch.setattr(decode, "is_small", lambda model: False)
    return request.param == "in blocks"
