"""A search that may not give up makes its attempts, and the first hit is counted as it is."""

import math

from rlino_lib.evaluation.forced import forced_hits
from rlino_lib.policy.models import load_policy
from rlino_lib.tasks import get_task


def test_a_forced_search_hits_more_often_the_more_attempts_it_makes():
    task = get_task("countdown")
    problems = task.problems("test", 24)
    policy = load_policy()
    one, four = (forced_hits(policy, task, problems, attempts) for attempts in (1, 4))
    assert len(four) == 24 and set(one) <= {1.0, math.inf}
    assert all(hit == math.inf or 1 <= hit <= 4 for hit in four)
    assert (four < math.inf).sum() > (one < math.inf).sum()
    assert ((one == 1) == (four == 1)).all()  # the first attempts are the same
    assert forced_hits(policy, task, problems, 4).equals(four)
