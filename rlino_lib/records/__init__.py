"""Run folders, and how they are read back: `load_run`, `list_runs`, `metrics_frame`."""

from rlino_lib.records.runs import Run, list_runs, load_run, metrics_frame

__all__ = ["Run", "list_runs", "load_run", "metrics_frame"]
