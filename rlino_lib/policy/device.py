"""Where a model computes and in what precision, and what to do when memory runs out (chapter 12)."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import TypeVar

import torch

from rlino_lib.errors import RlinoError, RlinoWarning
from rlino_lib.policy.models import count_parameters

T = TypeVar("T")
SMALL = 50_000_000  # parameters; above, the products with the weights set the pace of everything
TINY = 5_000_000  # parameters; below, a GPU loses more time by casts to bfloat16 than it gains


def pick_device(name: str = "auto") -> str:
    """The device of that name, or for `auto` the first of cuda, mps and cpu; raises RlinoError where it is missing."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    best = next(kind for kind, usable in available.items() if usable)
    if name == "auto":
        return best
    kind, _, place = name.partition(":")
    wrong_place = place and (not place.isdigit() or kind == "cuda" and int(place) >= torch.cuda.device_count())
    if not available.get(kind) or wrong_place:
        raise RlinoError(f"there is no device {name!r} here: --device {best}, or auto")
    return name


def has_bf16(device: torch.device | str) -> bool:
    """Whether the device multiplies in bfloat16 with instructions of its own, and so faster than in float32.

    A CPU without them emulates bfloat16 in software, eight times as slow. That oneDNN takes bfloat16 is not enough: on
    x86 it does from AVX-512 on, and the instructions came later. An Apple GPU counts as one without.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    x86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
    return not x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def machine() -> str:
    """The kind of machine that a measurement was made on: its architecture, widest instructions, and GPU if any."""
    kinds = {
        "AMX": torch.cpu._is_amx_tile_supported(),
        "AVX-512 with bf16": torch.cpu._is_avx512_bf16_supported(),
        "AVX-512": torch.cpu._is_avx512_supported(),
        "AVX2": torch.cpu._is_avx2_supported(),
    }
    widest = next((kind for kind, yes in kinds.items() if yes), torch.backends.cpu.get_cpu_capability())
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    return ", ".join([platform.machine(), widest, *gpu])


def pick_precision(precision: str, device: torch.device | str, gains: bool) -> str:
    """`fp32` or `bf16`: the given precision, or for `auto` the faster one on this device.

    `gains` says whether the work is faster in bfloat16 where there are instructions for it: pretraining is, and
    whatever a large model does; sampling and updating a small one is not, since half of its time is not products.
    An RlinoWarning says so, once per process, where the given precision is the slower one.
    """
    best = "bf16" if gains and has_bf16(device) else "fp32"
    if precision not in ("auto", best):
        _warn_of_cost(precision, best)
    return best if precision == "auto" else precision


@cache
def _warn_of_cost(precision: str, best: str) -> None:
    warnings.warn(f"products in {precision} are slower here than in {best}", RlinoWarning, stacklevel=3)


def policy_precision(precision: str, model: torch.nn.Module) -> str:
    """`pick_precision` for sampling and updating a policy."""
    device = next(model.parameters()).device
    return pick_precision(precision, device, gains=gains_from_bf16(count_parameters(model), device))


def gains_from_bf16(parameters: int, device: torch.device | str) -> bool:
    """Whether sampling and updating a model of that size is faster in bfloat16 where there are instructions for it."""
    return parameters > (TINY if torch.device(device).type == "cuda" else SMALL)


def is_small(model: torch.nn.Module) -> bool:
    """Whether the small operations around the products with the weights take as long as the products themselves."""
    return count_parameters(model) <= SMALL


def casts(precision: str, model: torch.nn.Module) -> bool:
    """Whether a model's products are in bfloat16: where `precision` is `bf16`, but for a tiny model on a GPU."""
    device = next(model.parameters()).device
    return precision == "bf16" and (device.type != "cuda" or gains_from_bf16(count_parameters(model), device))


def autocast(precision: str, model: torch.nn.Module) -> AbstractContextManager:
    """Inside it matrix products are in bfloat16 where the model `casts`; the weights stay as they are.

    bfloat16 has 8 bits of precision, so a weight of 0.02 lies 1.2e-4 from its neighbours, and a step of Adam at a
    learning rate of 1e-6 is rounded away. Hence float32 weights and moments, and only the products in bfloat16. Do not
    hold it across an optimizer's step: the copies of the weights that it keeps would go stale.
    """
    kind = next(model.parameters()).device.type
    return torch.autocast(kind, torch.bfloat16) if casts(precision, model) else nullcontext()


def within_memory(
    compute: Callable[[int], T], size: int, limit: str, undo: Callable[[], object] = lambda: None,
    halve: Callable[[int], int] = lambda size: size // 2, least: int = 1,
) -> tuple[T, int]:  # fmt: skip
    """The result of `compute(size)`, restarted with half the size whenever memory runs out, and the size that fitted.

    `limit` says in the warning what the size is one of: "a micro-batch has {} rows". `undo` throws away what a failed
    attempt left behind. Other exceptions propagate, and so does running out of memory at the size `least`.

        rows, micro_batch = within_memory(lambda n: [f(part) for part in rows.split(n)], 32, "a part has {} rows")
    """
    while True:
        try:
            return compute(size), size
        except RuntimeError as e:
            if not is_out_of_memory(e) or size <= least:
                raise
        undo()
        size = halve(size)
        warnings.warn(f"out of memory: from here on {limit.format(size)}", RlinoWarning, stacklevel=3)


def to_device(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on another device; the CPU does not wait until a GPU has it, and sends it more work."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" and x.is_cpu else x.to(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: a GPU's, which has an exception of its own, or the CPU's or an Apple GPU's."""
    message = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in message or "can't allocate memory" in message)
    )
