"""Named settings of `rlino train`, from data/presets.toml: what the paper gives and what is our choice (chapter 12)."""

import tomllib
from functools import lru_cache
from typing import Any, NamedTuple

from rlino_lib.errors import chosen
from rlino_lib.paths import DATA
from rlino_lib.settings import as_tuples


class Preset(NamedTuple):
    """A set-up: `paper` holds settings that the paper gives, `ours` those that it leaves open, each with a reason."""

    name: str
    paper: dict[str, Any]
    ours: dict[str, tuple[Any, str]]

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of a `TrainConfig`."""
        return self.paper | {name: value for name, (value, _) in self.ours.items()}

    def table(self) -> str:
        """A line per setting: its value, and whose choice it is."""
        lines = [f"  {name:24}{value!s:44}the paper's" for name, value in self.paper.items()]
        lines += [f"  {name:24}{value!s:44}our choice: {why}" for name, (value, why) in self.ours.items()]
        return "\n".join([self.name, *lines])


@lru_cache(maxsize=1)
def presets() -> dict[str, Preset]:
    """Every preset by name."""
    with (DATA / "presets.toml").open("rb") as f:
        tables = tomllib.load(f)
    read = {}
    for name, table in tables["presets"].items():
        choices = tables["ours"] | table.get("ours", {})
        values = {k: as_tuples(v["is"]) if isinstance(v["is"], dict) else v["is"] for k, v in choices.items()}
        ours = {k: (values[k], choices[k]["why"]) for k in choices}
        read[name] = Preset(name, table.get("paper", {}) | tables["paper"], ours)
    return read


def find_preset(name: str) -> Preset:
    """One preset; raises RlinoError for an unknown name."""
    return presets()[chosen(name, presets(), "preset")]
