"""Where learning happens: on the device that was named, or the faster of the CPU and the emptiest GPU, measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from townlet_train.errors import TrainingError
from townlet_train.learners.optimisers import FlatAdam

AUTO, CPU = "auto", "cpu"
N_WARM_UPS, N_TRIALS = 3, 5  # compiled, captured, and replayed for the first time
TOO_SOON_FOR_A_GPU = 3e-4  # seconds; a guess at what it takes to ask a GPU for an update and hear of it
WORTH_BFLOAT16 = 1.2  # times the speed; less is not worth the digits
Precision = Literal["float32", "bfloat16"]
logger = logging.getLogger(__name__)


class Placement(NamedTuple):
    """Where a network learns, and how precisely its layers are computed there."""

    device: str = CPU
    precision: Precision = "float32"


ON_CPU = Placement()
Trial = Callable[[Placement], Callable[[], object]]  # prepares one update; what it returns runs it


def select_placement(device: str, precision: Literal["auto"] | Precision, trial: Trial) -> Placement:
    """Where to learn, as named or as `trial` shows to be faster; "auto" takes bfloat16 on a GPU alone.

    Raises:
        TrainingError: the device that was named does not work here.
    """
    named: Precision = "bfloat16" if precision == "bfloat16" else "float32"
    placement = Placement(select_device(device, lambda name: trial(Placement(name, named))), named)
    if precision != AUTO or torch.device(placement.device).type == CPU:
        return placement
    narrow = placement._replace(precision="bfloat16")
    try:
        gain = _best_time(trial(placement)) / _best_time(trial(narrow))
    except Exception as error:  # what a device cannot do it says by an error of its own
        logger.warning(
            "bfloat16 does not work on %s (%s); float32 it is.", placement.device, reason_of(error)
        )
        return placement
    selected = narrow if gain >= WORTH_BFLOAT16 else placement
    logger.info(
        "In bfloat16 an update is %.2f times as fast, so layers compute in %s.", gain, selected.precision
    )
    return selected


def select_device(wanted: str, trial: Callable[[str], Callable[[], object]]) -> str:
    """The name of the device to learn on; for "auto", the one on which a trial takes less time.

    `trial` prepares one update of the network at hand on a device, and returns what runs it. A GPU that fails it is
    left alone.

    Raises:
        TrainingError: the device that was named does not work here.
    """
    if wanted != AUTO:
        return str(checked_device(wanted))
    if not torch.cuda.is_available():
        return CPU
    on_cpu = _best_time(trial(CPU))
    if on_cpu < TOO_SOON_FOR_A_GPU:
        logger.info("An update takes %.2f ms on the CPU, too little for a GPU, so cpu learns.", on_cpu * 1e3)
        return CPU
    try:
        gpu = emptiest_gpu()
        on_gpu = _best_time(trial(gpu))
    except Exception as error:  # no memory, no kernels for it, a driver too old: each has an error of its own
        logger.warning("A GPU is here and does not work (%s), so cpu learns.", reason_of(error))
        return CPU
    fastest = gpu if on_gpu < on_cpu else CPU
    logger.info(
        "An update takes %.2f ms on the CPU and %.2f ms on %s, so %s learns.",
        *(on_cpu * 1e3, on_gpu * 1e3, gpu, fastest),
    )
    return fastest


def emptiest_gpu() -> str:
    """The CUDA device with most free memory; there must be one."""
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    return f"cuda:{free.index(max(free))}"


def checked_device(name: str) -> torch.device:
    """A torch device by name, on which a gradient and a fused step were tried; `TrainingError` when it fails them."""
    try:
        weight = torch.ones(1, device=name, requires_grad=True)
        torch.autograd.backward(weight.square().sum())
        FlatAdam(weight.detach(), torch.ones_like(weight), eps=1e-8).step(1e-3)
        weight.item()
    except Exception as error:  # each backend says no with an error of its own: assertion, import, runtime
        raise TrainingError(
            f"Device {name!r} does not work here ({reason_of(error)}). Use --device cpu or auto."
        ) from error
    return weight.device


def _best_time(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs, after those that warm up; results are read back, so nothing is pending."""
    for _ in range(N_WARM_UPS):
        run()
    taken: list[float] = []
    for _ in range(N_TRIALS):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)


def reason_of(error: Exception) -> str:
    """An error's first line, and the second where the first announces it; its kind where it has none.

    >>> reason_of(RuntimeError("the backend raised:\\nno compiler\\nat length"))
    'the backend raised: no compiler'
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(lines[:2] if lines[0].endswith(":") else lines[:1])
