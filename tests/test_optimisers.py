"""An optimiser of one flat vector takes the steps that torch's own would."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.optimisers import FlatAdam  # noqa: E402

N = 1001


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("fresh_after", [None, 7])
def test_adam_is_torchs(fresh_after: int | None, weight_decay: float) -> None:
    generator = torch.Generator().manual_seed(0)
    vector, gradient = torch.randn(N, generator=generator), torch.zeros(N)
    theirs = torch.nn.Parameter(vector.clone())
    adam = FlatAdam(vector, gradient, eps=1e-5, weight_decay=weight_decay)
    expected = torch.optim.Adam([theirs], lr=3e-3, eps=1e-5, weight_decay=weight_decay)
    for step in range(30):
        if step == fresh_after:
            adam.reset()
            expected = torch.optim.Adam([theirs], lr=3e-3, eps=1e-5, weight_decay=weight_decay)
        gradient.copy_(torch.randn(N, generator=generator))
        theirs.grad = gradient.clone()
        adam.step(3e-3)
        expected.step()
    torch.testing.assert_close(vector, theirs.detach(), rtol=0, atol=1e-6)


def test_what_is_saved_goes_on_as_it_was() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(N, generator=generator) for _ in range(6)]
    vector, gradient = torch.zeros(N), torch.zeros(N)
    whole = FlatAdam(vector, gradient, eps=1e-5)
    for number, drawn in enumerate(gradients):
        gradient.copy_(drawn)
        whole.step(1e-2)
        if number == 2:
            saved, there = whole.arrays(), vector.clone()
    resumed = FlatAdam(there, gradient, eps=1e-5)
    resumed.restore(saved)
    for drawn in gradients[3:]:
        gradient.copy_(drawn)
        resumed.step(1e-2)
    assert torch.equal(there, vector)
