"""The figure of the entropy law holds the law's numbers, and tells runs apart without colour."""

import numpy as np
import pytest

from rlino_lib.analysis.entropy_law import entropy_accuracy, entropy_law_table, fit_entropy_law
from rlino_lib.errors import RlinoError
from rlino_lib.figures.entropy import entropy_law_figure
from rlino_lib.records.runs import list_runs

RUNS = list_runs("countdown")[:2]


@pytest.mark.parametrize("source", ["training", "held out"])
def test_points_laws_and_ends(source):
    (axis,) = entropy_law_figure(RUNS, source).axes
    parts = [axis.lines[k : k + 7] for k in range(0, len(axis.lines), 7)]
    assert len(parts) == len(RUNS)
    for run, (first, rest, dashed, full, error, measured, predicted) in zip(RUNS, parts, strict=True):
        table = entropy_accuracy(run, source)
        assert first.get_ydata().tolist() == table.loc[table["fitted"], "accuracy"].tolist()
        assert rest.get_ydata().tolist() == table.loc[~table["fitted"], "accuracy"].tolist()
        assert first.get_linestyle() == rest.get_linestyle() == "None" and dashed.is_dashed() and not full.is_dashed()
        law = fit_entropy_law(first.get_xdata(), first.get_ydata())
        for line in (dashed, full):
            assert np.allclose(line.get_ydata(), law.predict(line.get_xdata()))
        (row,) = entropy_law_table([run], source).itertuples()
        assert error.get_ydata() == pytest.approx([row.measured, row.predicted])
        assert (measured.get_ydata()[0], predicted.get_ydata()[0]) == pytest.approx((row.measured, row.predicted))
    assert len({part[0].get_marker() for part in parts}) == len(RUNS)
    assert [text.get_text() for text in axis.figure.legends[0].get_texts()][0].startswith("countdown, ")


def test_more_runs_than_looks_are_refused():
    for runs in ([], RUNS[:1] * 5):
        with pytest.raises(RlinoError, match="1 to 4 runs"):
            entropy_law_figure(runs)
