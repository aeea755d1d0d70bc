"""PPO on the town with the map-and-features network, beside what its matrix products alone would allow.

The roof is every product of a rollout and its epochs and nothing else: forward for each tick and each batch, backward
for each batch, on operands that lie ready; no biases, no activations, no loss, no optimiser, no environment, and
threads that never wait for each other. It is measured as two threads with half of the rows each and as one product at
a time on both cores; the faster counts. Ours multiplies a map's set cells only, so the share of all products could
exceed 1; the stricter share is of the other layers' products, as if the map's were free. Sides alternate.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from townlet_train.config import RunConfig
from townlet_train.config.town import TownConfig
from townlet_train.orchestrator import run_strategy
from townlet_train.registry import discover
from townlet_train.sim.layout import MAP_CHANNELS, MAP_SIZE, N_ACTIONS, N_FEATURES

WIDTH, N_THREADS = 256, 2
N_ENVS, N_STEPS, N_EPOCHS = 128, 32, 4
BATCH_SIZES = (1024, 2048)
N_AGENTS = TownConfig().n_agents
ROLLOUT = N_ENVS * N_STEPS * N_AGENTS
N_RUNS, ROLLOUTS_OF_A_RUN, TARGET = 5, 4, 0.70
ROLLOUTS_ON_A_GPU = 100  # each run compiles its update, which counts

Layers = dict[str, tuple[int, int]]  # (n_out, n_in)
LAYERS: Layers = {
    "map": (WIDTH, len(MAP_CHANNELS) * MAP_SIZE**2),
    "features": (WIDTH, N_FEATURES),
    "shared": (WIDTH, 2 * WIDTH),
    "heads": (N_ACTIONS + 1, WIDTH),
}
PASSES_SLOPES_ON = ("shared", "heads")  # the encoders' inputs are given, so no slope in them is needed
WITHOUT_MAP = {name: shape for name, shape in LAYERS.items() if name != "map"}


def main(device: str = "cpu") -> dict[str, float]:
    """Print steps per second of both and the shares for each batch size; on another device, ours on the CPU as well."""
    results: dict[str, float] = {}
    for batch_size in BATCH_SIZES:
        _train(batch_size, 0, device)  # compiles kernels, wakes threads
        sides: dict[str, Callable[[int], float]] = {
            "all": lambda _, batch_size=batch_size: roof(LAYERS, batch_size, torch.float32, device),
            "ours": lambda seed, batch_size=batch_size: _train(batch_size, seed, device),
            "no_map": lambda _, batch_size=batch_size: roof(WITHOUT_MAP, batch_size, torch.float32, device),
            "bfloat16": lambda _, batch_size=batch_size: roof(LAYERS, batch_size, torch.bfloat16, device),
        }
        if device != "cpu":
            sides["cpu"] = lambda seed, batch_size=batch_size: _train(batch_size, seed, "cpu")
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for seed in range(N_RUNS):
            for name, measure in sides.items():
                rates[name].append(measure(seed))
        results |= {
            f"{name}_{batch_size}": value for name, value in report(batch_size, rates, device).items()
        }
    return results


def roof(layers: Layers, batch_size: int, precision: torch.dtype, device: str) -> float:
    """Steps per second of the products alone, in the faster arrangement; a GPU has one."""
    rows = N_ENVS * N_AGENTS
    most = max(rows, batch_size)
    if device != "cpu":
        products = _Products(layers, most, precision, device)
        _seconds(lambda: products.finished(rows, batch_size))  # wakes the device
        return ROLLOUT / _seconds(lambda: products.finished(rows, batch_size))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        halves = [_Products(layers, most // N_THREADS, precision, device) for _ in range(N_THREADS)]
        with ThreadPoolExecutor(N_THREADS) as threads:
            works = [lambda p=p: p.rollout(rows // N_THREADS, batch_size // N_THREADS) for p in halves]
            seconds = [_seconds(lambda: [f.result() for f in [threads.submit(w) for w in works]])]
        torch.set_num_threads(N_THREADS)
        whole = _Products(layers, most, precision, device)
        seconds.append(_seconds(lambda: whole.rollout(rows, batch_size)))
    finally:
        torch.set_num_threads(before)
    return ROLLOUT / min(seconds)


class _Products:
    """Operands and results of some layers' products, for up to `rows` rows."""

    def __init__(self, layers: Layers, rows: int, precision: torch.dtype, device: str) -> None:
        def filled(*shape: int) -> Tensor:
            return torch.rand(shape).to(device, precision)

        self._layers = [
            (
                name in PASSES_SLOPES_ON,
                filled(n_out, n_in),
                filled(rows, n_in),
                filled(rows, n_out),
                filled(n_out, n_in),
            )
            for name, (n_out, n_in) in layers.items()
        ]

    def rollout(self, rows: int, batch_rows: int) -> None:
        """All products of `N_STEPS` ticks of `rows` and `N_EPOCHS` passes over them."""
        for _ in range(N_STEPS):
            self._forward(rows)
        for _ in range(N_EPOCHS * (N_STEPS * rows // batch_rows)):
            self._forward(batch_rows)
            self._backward(batch_rows)

    def finished(self, rows: int, batch_rows: int) -> float:
        """As `rollout`, and read a result back, so that nothing is pending."""
        self.rollout(rows, batch_rows)
        return float(self._layers[0][-1][0, 0])

    def _forward(self, n: int) -> None:
        for _, weight, inputs, outputs, _ in self._layers:
            torch.mm(inputs[:n], weight.t(), out=outputs[:n])

    def _backward(self, n: int) -> None:
        for passes_on, weight, inputs, outputs, of_weight in reversed(self._layers):
            torch.mm(outputs[:n].t(), inputs[:n], out=of_weight)
            if passes_on:
                torch.mm(outputs[:n], weight, out=inputs[:n])


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _train(batch_size: int, seed: int, device: str) -> float:
    """Steps per second of a short run of `townlet-train ppo`, collecting and updating."""
    params = {
        "network": "conflict_aware",
        "hidden_sizes": [WIDTH],
        "timesteps": (ROLLOUTS_OF_A_RUN if device == "cpu" else ROLLOUTS_ON_A_GPU) * ROLLOUT,
        "n_envs": N_ENVS,
        "n_steps": N_STEPS,
        "batch_size": batch_size,
        "n_epochs": N_EPOCHS,
        "normalize_rewards": True,
        "checkpoint_interval": 50_000,
        "evaluation_episodes": 0,
        "device": device,
        "precision": "float32",
    }
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(env="town", seed=seed)
        quiet = replace(discover(), loggers=())  # what is installed beside must not count
        result = run_strategy("ppo", params, config=config, run_dir=Path(folder) / "run", registry=quiet)
    rate: float = result.steps_per_sec  # type: ignore[attr-defined]  # the result of ppo has it
    return rate


def report(batch_size: int, rates: dict[str, list[float]], device: str) -> dict[str, float]:
    """Print one batch size's table; returns medians and shares by name."""
    shares = {
        name: statistics.median(ours / other for ours, other in zip(rates["ours"], rates[name], strict=True))
        for name in ("all", "no_map")
    }
    print(f"town_ppo: {N_ENVS} towns of {N_AGENTS}, width {WIDTH}, n_steps {N_STEPS}, ", end="")
    where = f"{N_THREADS} threads" if device == "cpu" else device
    print(f"batch {batch_size}, {N_EPOCHS} epochs, float32, {where}, steps/s, {N_RUNS} runs")
    rows = {
        "collecting and updating": "ours",
        "matrix products alone": "all",
        "  without the map layer's": "no_map",
        "  in bfloat16": "bfloat16",
        "ours on the CPU": "cpu",
    }
    for title, name in rows.items():
        if name in rates:
            print(f"  {title:26s} {_spread(rates[name])}")
    print(f"  share {shares['all']:.2f} of all products (asked {TARGET:.2f}), ", end="")
    print(f"{shares['no_map']:.2f} of those without the map layer's", flush=True)
    medians = {f"{name}_steps_per_sec": statistics.median(values) for name, values in rates.items()}
    return medians | {f"share_of_{name}": share for name, share in shares.items()}


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} [{min(values):.0f}, {max(values):.0f}]"


if __name__ == "__main__":
    main()
