"""What is measured of one policy, recorded in a folder by the rule for folders: `rlino evaluate` and `chains`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rlino_lib.folders import Kind, asked_and_found, begun_precision, output_folder, refuse_other, write_json
from rlino_lib.policy.device import policy_precision
from rlino_lib.policy.models import Policy, weights_hash


def measured(
    out: Path, kind: Kind, settings: Mapping[str, Any], defaults: Mapping[str, Any],
    load: Callable[[], Policy], measure: Callable[[Policy, str], dict[str, Any]],
) -> dict[str, Any]:  # fmt: skip
    """What `measure(policy, precision)` finds, recorded in `<kind's name>.json` beside the settings that it was asked
    with; what is complete there is not measured again.

    The weights and the precision that `auto` stands for join the settings, once the policy is loaded. Where measuring
    stops before it has written anything, nothing is left. Raises RlinoError as `output_folder` does, before anything is
    written.
    """
    record = out / f"{kind.name}.json"
    with output_folder(out, kind, settings, defaults) as complete:
        policy = load()
        recorded, _ = kind.read(out)
        precision = policy_precision(begun_precision(settings["precision"], recorded), policy.model)
        complete_settings = {**settings, "weights_sha256_16": weights_hash(policy.model), "precision": precision}
        if recorded is None:
            write_json(record, {"asked": complete_settings})
        else:
            refuse_other(out, kind, recorded, complete_settings, defaults, complete)
        if not complete:
            try:
                found = measure(policy, precision)
            except BaseException:
                if not any((out / name).exists() for name in kind.writes):
                    record.unlink()
                raise
            write_json(record, {"asked": complete_settings, "found": found})
        return asked_and_found(record)[1] or {}
