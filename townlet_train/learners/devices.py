"""Which device learns: the one that was named, or the faster of the CPU and the emptiest GPU, measured."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import torch

from townlet_train.errors import TrainingError

AUTO, CPU = "auto", "cpu"
N_TRIALS = 5
logger = logging.getLogger(__name__)


def choose_device(wanted: str, trial: Callable[[str], Callable[[], object]]) -> str:
    """The name of the device to learn on; for "auto", the one on which a trial takes less time.

    `trial` prepares one gradient of the network at hand on a device, and returns what runs it.

    Raises:
        TrainingError: the device that was named does not work here.
    """
    if wanted != AUTO:
        return str(checked_device(wanted))
    gpu = emptiest_gpu()
    if gpu is None:
        return CPU
    seconds = {name: _best_time(trial(name)) for name in (CPU, gpu)}
    fastest = min(seconds, key=lambda name: seconds[name])
    logger.info(
        "A gradient takes %.2f ms on the CPU and %.2f ms on %s, so %s learns.",
        *(seconds[CPU] * 1e3, seconds[gpu] * 1e3, gpu, fastest),
    )
    return fastest


def emptiest_gpu() -> str | None:
    """The CUDA device with most free memory; None where there is none."""
    if not torch.cuda.is_available():
        return None
    free = [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
    return f"cuda:{free.index(max(free))}" if free else None


def checked_device(name: str) -> torch.device:
    """A torch device by name, on which a gradient and a fused step were tried; `TrainingError` when it fails them."""
    try:
        weight = torch.ones(1, device=name, requires_grad=True)
        torch.autograd.backward(weight.square().sum())
        torch.optim.Adam([weight], fused=True).step()
        weight.item()
    except Exception as error:  # each backend says no with an error of its own: assertion, import, runtime
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"Device {name!r} does not work here ({reason}). Use --device cpu or auto."
        ) from error
    return weight.device


def _best_time(run: Callable[[], object]) -> float:
    """Seconds of the fastest of some runs, after one that warms up; results are read back, so nothing is pending."""
    run()
    taken: list[float] = []
    for _ in range(N_TRIALS):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return min(taken)
