"""Where a model computes and in what precision, and what to do when memory runs out (chapter 12)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from rlino_lib.errors import RlinoError


def pick_device(name: str = "auto") -> str:
    """The device of that name, or for `auto` the first of cuda, mps and cpu; raises RlinoError where it is not here."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    best = next(kind for kind, yes in here.items() if yes)
    if name == "auto":
        return best
    kind, _, place = name.partition(":")
    if not here.get(kind) or (place and (not place.isdigit() or kind == "cuda" and int(place) >= _gpus())):
        raise RlinoError(f"there is no device {name!r} here: --device {best}, or auto")
    return name


def _gpus() -> int:
    return torch.cuda.device_count()


def autocast(precision: str, device: torch.device | str) -> AbstractContextManager:
    """Inside it matrix products are in bfloat16 where precision is `bf16`; the weights stay as they are.

    bfloat16 has 8 bits of precision, so a weight of 0.02 lies 1.2e-4 from its neighbours, and a step of Adam at a
    learning rate of 1e-6 is rounded away. Hence float32 weights and moments, and only the products in bfloat16. Not to
    be held across an optimizer's step: the copies of the weights that it keeps would go stale.
    """
    return torch.autocast(torch.device(device).type, torch.bfloat16) if precision == "bf16" else nullcontext()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a GPU's, which has an exception of its own, or the CPU's or an Apple GPU's."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    )
