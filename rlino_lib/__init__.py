"""RL in Name Only?, the thin library behind the book.

What a notebook of your own needs, each by one path:

    from rlino_lib.policy.models import load_policy          # a model and its tokenizer, from a folder or the hub
    from rlino_lib.tasks import get_task                     # problems, prompts and the verifier, by the task's name
    from rlino_lib.policy.sampling import sample             # prompts in, groups of responses out
    from rlino_lib.evaluation.evaluate import evaluate       # a row for each problem: samples, right ones, lengths
    from rlino_lib.training.run import train                 # a configuration in, a recorded run out
    from rlino_lib.records.runs import load_run, list_runs   # recorded runs as data frames
    from rlino_lib.methods.catalogue import OBJECTIVES       # each method as a row of choices; it prints its formula
    from rlino_lib.methods.advantages import advantages      # rewards of groups in, advantages out
    from rlino_lib.methods.loss import policy_loss           # the loss of a batch, and what is measured beside it
    from rlino_lib.methods.loss import token_weights         # the weight of every token in that loss
    from rlino_lib.widgets.inspector import trace_inspector  # responses token by token, coloured by their weights
"""

import os

# Threads of torch that wait for each other spin, unless they are told to sleep before torch is loaded. On a machine
# that has something else to do, a browser for one, spinning makes small models ten times as slow.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
