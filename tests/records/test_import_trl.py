"""A fresh run of TRL on the small base, imported: the folder opens in the inspector and in the figures of lengths."""

import pytest

from rlino_lib.figures.curves import learning_curves, length_curves
from rlino_lib.paths import DEFAULT_BASE
from rlino_lib.policy.models import load_policy
from rlino_lib.records.importers import import_run
from rlino_lib.records.runs import load_run, metrics_frame
from rlino_lib.tasks import get_task
from rlino_lib.widgets.inspector import trace_inspector

pytest.importorskip("trl", minversion="1.16")
from datasets import Dataset  # noqa: E402
from trl import GRPOConfig, GRPOTrainer  # noqa: E402

STEPS = 3


class Quiet(GRPOTrainer):
    def _send_telemetry(self):
        """None: TRL would report every run to its makers."""

    def create_model_card(self, *args, **kwargs):
        """None."""


@pytest.fixture(scope="module")
def trl_run(tmp_path_factory):
    """The output folder of TRL's own trainer: three steps of two prompts, evaluated at the second and the last."""
    folder = tmp_path_factory.mktemp("trl")
    task = get_task("countdown")
    problems = {task.prompt(problem): problem for problem in task.problems("train", 6)}

    def countdown_reward(prompts, completions, **_):
        return [task.grade(problems[q], o).reward for q, o in zip(prompts, completions, strict=True)]

    settings = GRPOConfig(
        output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=8, num_generations=4, logging_steps=1,
        max_completion_length=48, log_completions=True, num_completions_to_print=0, report_to=[], save_steps=STEPS,
        eval_strategy="steps", eval_steps=2, per_device_eval_batch_size=4, use_cpu=True, disable_tqdm=True, seed=1,
    )  # fmt: skip
    policy = load_policy(DEFAULT_BASE)
    data = Dataset.from_list([{"prompt": prompt} for prompt in problems])
    trainer = Quiet(policy.model, countdown_reward, settings, data, data.select(range(2)), policy.tokenizer)
    trainer.train()
    return folder


@pytest.mark.slow
def test_a_fresh_run_of_trl_opens_in_the_inspector_and_the_length_figures(trl_run, tmp_path):
    settings = {"method": "grpo", "task": "countdown", "seed": 1}
    _, report = import_run([trl_run], tmp_path / "run", settings=settings)
    assert report["format"] == "trl" and (report["steps"], report["responses"]) == (STEPS, 8 * STEPS)
    assert report["columns"]["correct"] == "countdown_reward" and report["unknown"] == ["model", "truncated", "length"]
    assert report["training or held out"] == 16  # TRL wrote those of the evaluations over those of steps 2 and 3
    run = load_run(tmp_path / "run")
    assert run.metrics["accuracy"].equals(run.metrics["reward"]) and run.metrics["eval/accuracy"].notna().tolist() == [
        False,
        True,
        True,
    ]
    first = run.responses[run.responses["step"] == 1]
    assert run.metrics["accuracy"][0] == pytest.approx(first["correct"].mean())
    assert run.metrics["characters/mean"][0] == pytest.approx(first["characters"].mean())
    assert first["characters"].gt(run.metrics["completions/min_length"][0]).all()  # characters, and not tokens
    task = get_task("countdown")
    graded = [
        task.grade(task.problem_from_record(problem_of(q)), o).correct
        for q, o in zip(run.rollouts["prompt"], run.rollouts["response"], strict=True)
    ]
    assert graded == run.rollouts["correct"].tolist()
    page = trace_inspector(run)
    assert "characters</strong>" in page and "Numbers" in page and all(f"Step {k} ·" in page for k in (1, 2, 3))
    figure = length_curves(metrics_frame([run]))
    assert "characters" in figure.get_supylabel() and figure.axes[0].lines
    assert (
        learning_curves(metrics_frame([run]), "completions/mean_length").axes[0].get_ylabel() == "mean length (tokens)"
    )


def problem_of(prompt):
    """The problem that a prompt of Countdown states."""
    words = prompt.split()
    return {
        "nums": [int(word) for word in words[1 : words.index("target")]],
        "target": int(words[words.index("target") + 1]),
    }
