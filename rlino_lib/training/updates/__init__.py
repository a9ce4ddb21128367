"""Kinds of update by the names that a method's row has for them: its gradient, a data set, a critic too, or pairs.

Each takes the trainer, a batch of rollouts and random numbers for its mini-batches, makes the batch's updates, and
returns the advantages [N] and token weights [N, T] of its rows, as `trace_rows` takes them.
"""

from rlino_lib.training.updates.critic import critic
from rlino_lib.training.updates.policy_gradient import policy_gradient
from rlino_lib.training.updates.preference import preference
from rlino_lib.training.updates.supervised import supervised

UPDATES = {"policy_gradient": policy_gradient, "supervised": supervised, "critic": critic, "preference": preference}
