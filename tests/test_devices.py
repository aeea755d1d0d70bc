"""Where learning happens: the device that was named, or the one that a trial shows to be faster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from tests.policies import MLP, WITH_MAP  # noqa: E402
from townlet_train.errors import TrainingError  # noqa: E402
from townlet_train.learners.devices import choose_device, emptiest_gpu  # noqa: E402
from townlet_train.learners.learner import gradient_trial  # noqa: E402
from townlet_train.policies.network import NetworkSpec  # noqa: E402


def gpus(monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    """Let torch see GPUs with so many free bytes each."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(free))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], 100))


def takes(**seconds: float) -> Callable[[str], Callable[[], object]]:
    """A trial that sleeps for as long as the device's kind says."""
    return lambda name: lambda: time.sleep(seconds[name.partition(":")[0]])


def test_without_a_gpu_auto_is_the_cpu_and_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch)
    assert emptiest_gpu() is None
    assert choose_device("auto", takes()) == "cpu"


def test_the_gpu_with_most_free_memory_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 10, 90, 50)
    assert emptiest_gpu() == "cuda:1"


@pytest.mark.parametrize(("cpu", "cuda", "chosen"), [(0.02, 0.0, "cuda:0"), (0.0, 0.02, "cpu")])
def test_auto_takes_the_faster_one_and_says_so(
    cpu: float, cuda: float, chosen: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus(monkeypatch, 10)
    with caplog.at_level(logging.INFO):
        assert choose_device("auto", takes(cpu=cpu, cuda=cuda)) == chosen
    assert caplog.messages[-1].endswith(f"on cuda:0, so {chosen} learns.")


def test_a_device_that_does_not_work_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        TrainingError, match=r"Device 'warp' does not work here .* Use --device cpu or auto\."
    ):
        choose_device("warp", takes())


@pytest.mark.parametrize("spec", [MLP, WITH_MAP], ids=["mlp", "with maps"])
def test_a_trial_is_a_real_gradient_of_the_network_at_hand(spec: NetworkSpec) -> None:
    losses = gradient_trial(spec, 32, "cpu")()
    assert losses.entropy > 0  # type: ignore[attr-defined]  # what a gradient returns
