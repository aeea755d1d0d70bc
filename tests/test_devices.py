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
from townlet_train.learners.devices import (  # noqa: E402
    Placement,
    emptiest_gpu,
    select_device,
    select_placement,
)
from townlet_train.learners.learner import update_trial  # noqa: E402
from townlet_train.policies.network import NetworkSpec  # noqa: E402

GPU, GPU_NARROW = Placement("cuda:0"), Placement("cuda:0", "bfloat16")


def gpus(monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    """Let torch see GPUs with so many free bytes each."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(free))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(free))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (free[index], 100))


def takes(**seconds: float) -> Callable[[str], Callable[[], object]]:
    """A trial that sleeps for as long as the device's kind says."""
    return lambda name: lambda: time.sleep(seconds[name.partition(":")[0]])


def takes_at(seconds: dict[Placement, float]) -> Callable[[Placement], Callable[[], object]]:
    """A trial that sleeps for as long as is said of the place, and breaks where nothing is said."""

    def run(placement: Placement) -> None:
        if placement not in seconds:
            raise RuntimeError("no kernel image is available for execution on the device\nmore about it")
        time.sleep(seconds[placement])

    return lambda placement: lambda: run(placement)


def test_without_a_gpu_auto_is_the_cpu_and_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch)
    assert select_device("auto", takes()) == "cpu"


def test_the_gpu_with_most_free_memory_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 10, 90, 50)
    assert emptiest_gpu() == "cuda:1"


@pytest.mark.parametrize(("cpu", "cuda", "chosen"), [(0.02, 0.0, "cuda:0"), (0.01, 0.03, "cpu")])
def test_auto_takes_the_faster_one_and_says_so(
    cpu: float, cuda: float, chosen: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus(monkeypatch, 10)
    with caplog.at_level(logging.INFO):
        assert select_device("auto", takes(cpu=cpu, cuda=cuda)) == chosen
    assert caplog.messages[-1].endswith(f"on cuda:0, so {chosen} learns.")


def test_a_gpu_is_not_even_tried_for_what_the_cpu_does_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus(monkeypatch, 10)
    with caplog.at_level(logging.INFO):
        assert select_device("auto", lambda name: {"cpu": lambda: None}[name]) == "cpu"
    assert "too little for a GPU" in caplog.messages[-1]


def test_a_gpu_that_fails_its_trial_leaves_the_work_to_the_cpu_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus(monkeypatch, 10)
    assert select_placement("auto", "auto", takes_at({Placement(): 0.01})) == Placement()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages[0].startswith("A GPU is here and does not work (no kernel image is available")
    assert "more about it" not in caplog.messages[0]


@pytest.mark.parametrize(("narrow", "selected"), [(0.01, GPU_NARROW), (0.03, GPU)])
def test_auto_takes_bfloat16_where_it_is_much_faster_on_the_gpu(
    narrow: float, selected: Placement, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus(monkeypatch, 10)
    with caplog.at_level(logging.INFO):
        trial = takes_at({Placement(): 0.05, GPU: 0.03, GPU_NARROW: narrow})
        assert select_placement("auto", "auto", trial) == selected
    assert caplog.messages[-1].endswith(f"layers compute in {selected.precision}.")


def test_a_gpu_without_bfloat16_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpus(monkeypatch, 10)
    assert select_placement("auto", "auto", takes_at({Placement(): 0.02, GPU: 0.0})) == GPU
    assert caplog.messages[-1:] == [
        "bfloat16 does not work on cuda:0 (no kernel image is available for execution on the device); float32 it is."
    ]


def test_what_was_named_is_taken_untried_and_the_cpu_stays_at_float32_unless_told() -> None:
    assert select_placement("cpu", "auto", takes_at({})) == Placement("cpu", "float32")
    assert select_placement("cpu", "bfloat16", takes_at({})) == Placement("cpu", "bfloat16")


def test_a_device_that_does_not_work_is_refused_with_the_way_out() -> None:
    with pytest.raises(
        TrainingError, match=r"Device 'warp' does not work here .* Use --device cpu or auto\."
    ):
        select_device("warp", takes())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("spec", [MLP, WITH_MAP], ids=["mlp", "with maps"])
def test_a_trial_is_a_real_update_of_the_network_at_hand(
    spec: NetworkSpec, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from townlet_train.learners.descent import GuardedDescent

    steps: list[float | None] = []
    step = GuardedDescent.step
    monkeypatch.setattr(
        GuardedDescent, "step", lambda *arguments: steps.append(step(*arguments)) or steps[-1]
    )
    update_trial(spec, 32, Placement("cpu", precision))()  # type: ignore[arg-type]  # one of the two
    assert len(steps) == 1
    assert steps[0] is not None
    assert steps[0] > 0
