"""Cloning: the written-out gradient is autograd's, equal seeds give equal bytes, and what cannot teach is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.policies import MLP, WITH_MAP, random_weights, rule_demonstrations
from townlet_train.cli import main
from townlet_train.config import RunConfig
from townlet_train.contract import Progress, TrainingContext
from townlet_train.data.checkpoint import load_checkpoint
from townlet_train.data.dataset import Demonstrations, split_by_episode
from townlet_train.errors import DataError, Interrupted, TownletTrainError, TrainingError, UsageError
from townlet_train.files import sha256_of
from townlet_train.policies.network import NetworkSpec
from townlet_train.results import Comparison
from townlet_train.services import TrainingServices
from townlet_train.services.scoring import EvaluationService
from townlet_train.strategies.bc import BCParams, BCStrategy

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from townlet_train.learners.bc import BCLearner, BCSettings, limited_threads  # noqa: E402
from townlet_train.learners.gradients import AutogradGradient, Frames, MlpGradient  # noqa: E402
from townlet_train.learners.imitation import measure_imitation  # noqa: E402
from townlet_train.learners.networks import FlatParameters, build_network  # noqa: E402


class FakeReplay:
    """A replay service that knows one recording."""

    def __init__(self, demonstrations: Demonstrations, manifest: Path) -> None:
        self.demonstrations, self.manifest = demonstrations, manifest
        self.recorded_in: str | None = None
        manifest.write_text("{}")

    def resolve_manifest(self, path: Path | None) -> Path:
        if path is None:
            raise UsageError("no manifest")
        return self.manifest

    def check_env(self, path: Path, env: str) -> str | None:
        return self.recorded_in

    def load(self, path: Path, *, with_maps: bool = True) -> Demonstrations:
        return self.demonstrations if with_maps else replace(self.demonstrations, maps=None, map_channels=())


class Run:
    """One run of the strategy on some demonstrations, with what it reported and recorded."""

    def __init__(
        self, folder: Path, demonstrations: Demonstrations, *, stop_after: int | None = None, **params: Any
    ):
        folder.mkdir(exist_ok=True)
        self.lines: list[dict[str, Any]] = []
        self.reports: list[Progress] = []
        self._stop_after = stop_after
        self.replay = FakeReplay(demonstrations, folder / "demos.json")
        self.strategy = BCStrategy(BCParams(manifest=folder, **params))
        self.context = TrainingContext(
            config=RunConfig(),
            services=TrainingServices(
                rollout=None,  # type: ignore[arg-type]  # a service nobody calls
                replay=self.replay,  # type: ignore[arg-type]  # a fake
                evaluation=EvaluationService(RunConfig()),
            ),
            config_hash="0" * 64,
            seed=5,
            rng=np.random.default_rng(5),
            run_dir=folder,
            report=self._report,
            record=lambda line: self.lines.append(dict(line)),
            build_strategy=lambda name, params: self.strategy,
        )

    def _report(self, progress: Progress) -> None:
        self.reports.append(progress)
        if self._stop_after is not None and len(self.reports) > self._stop_after:
            raise Interrupted("Stopped.")


def frames_of(demonstrations: Demonstrations, n: int) -> Frames:
    assert demonstrations.maps is not None
    rows = slice(1, n + 1)  # the very first frame leaves no choice, so its gradient is zero
    return Frames(
        demonstrations.features[rows],
        demonstrations.maps[rows],
        np.ascontiguousarray(~demonstrations.action_mask[rows].T),
        demonstrations.actions[rows],
    )


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden_sizes", [(8, 4), (6,), (5, 7, 3)])
@pytest.mark.parametrize("n", [1, 64, 257])
def test_the_written_out_gradient_is_autograds(
    activation: Any, hidden_sizes: tuple[int, ...], n: int
) -> None:
    spec = replace(MLP, activation=activation, hidden_sizes=hidden_sizes)
    network = build_network(spec, np.random.default_rng(0))
    weights = {name: torch.from_numpy(array) for name, array in random_weights(spec).items()}
    network.load_state_dict(weights)
    parameters = FlatParameters(network, list(spec.actor_shapes()))
    frames = frames_of(rule_demonstrations(), n)
    loss = MlpGradient(spec, parameters)(frames)
    written_out = parameters.gradient.numpy().copy()
    assert AutogradGradient(network, parameters)(frames) == pytest.approx(loss, rel=1e-5)
    by_autograd = parameters.gradient.numpy()
    assert np.abs(by_autograd).max() > 1e-3
    np.testing.assert_allclose(
        written_out, by_autograd, atol=1e-5 * max(1.0, float(np.abs(by_autograd).max()))
    )


@pytest.mark.parametrize("spec", [MLP, WITH_MAP], ids=["mlp", "conflict aware"])
def test_flat_parameters_are_the_networks_own(spec: NetworkSpec) -> None:
    network = build_network(spec, np.random.default_rng(0))
    parameters = FlatParameters(network, list(spec.actor_shapes()))
    parameters.vector.zero_()
    named = dict(network.named_parameters())
    assert all(not named[name].any() for name in spec.actor_shapes())
    assert any(named[name].any() for name in spec.parameter_shapes().keys() - spec.actor_shapes().keys())


@pytest.mark.parametrize("network", ["mlp", "conflict_aware"])
def test_a_simple_rule_is_cloned_and_the_checkpoint_says_so(network: str, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", rule_demonstrations(20), network=network, n_epochs=10, batch_size=64)
    result = run.strategy.run(run.context)
    assert result.val_accuracy is not None
    assert result.val_accuracy > 0.95
    assert result.majority_share < 0.5
    assert result.checkpoint_sha256 == sha256_of(Path(str(result.checkpoint)))
    checkpoint = load_checkpoint(Path(str(result.checkpoint)))
    demonstrations = rule_demonstrations(20)
    spec = NetworkSpec.from_document(checkpoint.info.network)
    everything = np.arange(len(demonstrations))
    measured = measure_imitation(spec, checkpoint.weights, demonstrations, everything)
    blended = (result.accuracy * result.n_train + result.val_accuracy * result.n_val) / len(demonstrations)
    assert measured.accuracy == pytest.approx(blended, abs=1e-6)
    assert checkpoint.info.lineage.training_seeds == ((100, 119),)
    assert checkpoint.info.lineage.demonstrations_sha256 == sha256_of(tmp_path / "run/demos.json")


@pytest.mark.parametrize("network", ["mlp", "conflict_aware"])
def test_equal_seeds_give_equal_bytes(network: str, tmp_path: Path) -> None:
    digests = set()
    for name in ("run", "again"):
        run = Run(tmp_path / "run", rule_demonstrations(), network=network, n_epochs=2)
        digests.add(run.strategy.run(run.context).checkpoint_sha256)
        (tmp_path / "run").rename(tmp_path / f"{name}_done")
    assert len(digests) == 1


def test_the_best_epoch_is_kept_and_training_stops_when_none_helps(tmp_path: Path) -> None:
    few_and_noisy = rule_demonstrations(4, 40)
    few_and_noisy.actions[:] = np.where(few_and_noisy.action_mask[:, 2], np.arange(160) % 3 // 2 * 2, 0)
    run = Run(tmp_path / "run", few_and_noisy, n_epochs=60, patience=4, batch_size=16, learning_rate=0.02)
    result = run.strategy.run(run.context)
    losses = [line["val_loss"] for line in run.lines]
    assert result.epochs == len(losses) < 60
    assert result.best_epoch == int(np.argmin(losses)) + 1 == result.epochs - 4
    assert result.val_loss == min(losses)
    best = tmp_path / f"run/checkpoint_{run.lines[result.best_epoch - 1]['timestep']}.zip"
    found, saved = load_checkpoint(Path(str(result.checkpoint))), load_checkpoint(best)
    assert saved.weights.keys() == found.weights.keys()
    assert all(np.array_equal(found.weights[name], saved.weights[name]) for name in saved.weights)
    assert found.optimizer is found.training is None
    assert any("Held-out accuracy" in warning for warning in result.warnings)


def test_held_out_episodes_are_whole_and_never_trained_on(rng: np.random.Generator) -> None:
    demonstrations = rule_demonstrations()
    split = split_by_episode(demonstrations, 0.25, rng)
    learner = BCLearner(MLP, BCSettings(1e-3, 64, 1), demonstrations, split, rng)
    assert learner.n_episodes(learner.train) + learner.n_episodes(learner.val) == 8
    assert len(learner.train) + len(learner.val) == len(demonstrations)
    assert not set(demonstrations.episode[learner.train]) & set(demonstrations.episode[learner.val])


@pytest.mark.parametrize("fits", [False, True])
def test_a_learner_begins_with_the_weights_it_is_given_and_says_what_they_say(
    fits: bool, rng: np.random.Generator
) -> None:
    demonstrations = rule_demonstrations()
    split = split_by_episode(demonstrations, 0.25, rng)
    first = BCLearner(MLP, BCSettings(1e-2, 16, 3), demonstrations, split, rng)
    first.train_epoch()
    given = first.clone()
    spread = replace(demonstrations, features=demonstrations.features * 1.5 + 1)
    settings = BCSettings(1e-3, 64, 1)
    learner = BCLearner(MLP, settings, spread, split, rng, weights=given.weights, fits_normaliser=fits)
    ours = learner.clone().weights
    kept = np.array_equal(ours["normaliser.mean"], given.weights["normaliser.mean"])
    assert kept is not fits
    assert first.measure(ours, first.val).loss == pytest.approx(given.held_out.loss, rel=1e-4)


def test_metrics_are_those_counted_by_hand(rng: np.random.Generator) -> None:
    demonstrations = rule_demonstrations(2, 200)
    weights, everything = random_weights(MLP), np.arange(400)
    measured = measure_imitation(MLP, weights, demonstrations, everything)
    from townlet_train.policies.network import compute_logits

    hits, losses, unforced = [], [], []
    for row in range(400):
        logits = compute_logits(MLP, weights, demonstrations.features[[row]], np.empty((1, 0)))[0].astype(
            np.float64
        )
        logits[~demonstrations.action_mask[row]] = -np.inf
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        action = demonstrations.actions[row]
        hits.append(int(probabilities.argmax()) == action)
        losses.append(-np.log(max(probabilities[action], 1e-300)))
        unforced.append(demonstrations.action_mask[row].sum() > 1)
    assert measured.accuracy == pytest.approx(np.mean(hits))
    assert measured.loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert measured.accuracy_unforced == pytest.approx(np.mean(np.array(hits)[unforced]))
    shares = np.bincount(demonstrations.actions, minlength=3) / 400
    assert measured.majority_share == pytest.approx(shares.max())
    recalls = [np.mean(np.array(hits)[demonstrations.actions == action]) for action in range(3)]
    assert list(measured.recall.values()) == pytest.approx(recalls)
    assert measured.macro_recall == pytest.approx(np.mean(recalls))


def test_progress_is_told_while_an_epoch_lasts_and_once_with_numbers_when_it_ends(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", rule_demonstrations(20, 1500), n_epochs=2)
    run.strategy.run(run.context)
    with_numbers = [report for report in run.reports if report.metrics]
    assert len(with_numbers) == 2
    assert len(run.reports) > 6
    assert [report.done for report in run.reports] == sorted(report.done for report in run.reports)
    assert run.reports[-1].done == run.reports[-1].total == 2 * 24_000
    assert [line["epoch"] for line in run.lines] == [1, 2]


@pytest.mark.parametrize("stop_after", [0, 3], ids=["in the first epoch", "later"])
def test_an_interrupted_run_says_how_to_go_on(stop_after: int, tmp_path: Path) -> None:
    run = Run(tmp_path / "run", rule_demonstrations(), n_epochs=5, stop_after=stop_after)
    with pytest.raises(
        Interrupted, match=r"Stopped\. Go on with --resume-from .*checkpoint_\d+\.zip$"
    ) as stop:
        run.strategy.run(run.context)
    assert stop.value.exit_code == 7
    checkpoint = load_checkpoint(Path(str(stop.value).split("--resume-from ")[1]))
    assert checkpoint.info.algorithm == "bc"
    assert (checkpoint.state["epoch"] == 0) == (stop_after == 0)


class StoppedEvaluation:
    """An evaluation during which the user asks to stop."""

    def compare(self, checkpoint: Path, **options: Any) -> Comparison:
        raise Interrupted("Stopped.")


def test_a_run_stopped_while_it_evaluates_says_where_the_trained_clone_is(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", rule_demonstrations(), n_epochs=1)
    run.replay.recorded_in = "town"
    services = replace(run.context.services, evaluation=StoppedEvaluation())  # type: ignore[arg-type]  # a fake
    with pytest.raises(Interrupted, match="Training had ended; the clone is") as stop:
        run.strategy.run(replace(run.context, services=services))
    assert load_checkpoint(Path(str(stop.value).split(" is ")[1])).state["epoch"] == 1


def test_a_clone_of_another_layout_is_kept_and_not_evaluated(tmp_path: Path) -> None:
    run = Run(tmp_path / "run", rule_demonstrations(), n_epochs=1)
    run.replay.recorded_in = "town"
    result = run.strategy.run(run.context)
    assert any("The clone was not evaluated" in warning for warning in result.warnings)
    assert (result.policies, result.return_score_sampled) == ((), None)
    assert Path(str(result.checkpoint)).exists()


def degenerate(share: float) -> Demonstrations:
    demonstrations = rule_demonstrations()
    waits = np.random.default_rng(1).random(len(demonstrations)) < share
    demonstrations.actions[waits] = 0
    return demonstrations


def test_a_degenerate_demonstrator_is_refused_unless_allowed(tmp_path: Path) -> None:
    for share, sentence in ((1.0, "shows the same action, 'wait'"), (0.97, "'wait' is 9.* of the frames")):
        run = Run(tmp_path / "run", degenerate(share))
        with pytest.raises(DataError, match=sentence) as refusal:
            run.strategy.run(run.context)
        assert refusal.value.exit_code == 2
    allowed = Run(tmp_path / "run", degenerate(0.97), allow_degenerate=True, n_epochs=1)
    assert "of the frames" in allowed.strategy.run(allowed.context).warnings[0]


def never_a_choice() -> Demonstrations:
    demonstrations = rule_demonstrations()
    demonstrations.action_mask[:] = np.eye(3, dtype=np.bool_)[demonstrations.actions]
    return demonstrations


def a_choice_in_one_episode() -> Demonstrations:
    demonstrations = rule_demonstrations(4)
    first = demonstrations.episode == 0  # which seed 5 trains on
    demonstrations.action_mask[~first] = np.eye(3, dtype=np.bool_)[demonstrations.actions[~first]]
    return demonstrations


@pytest.mark.parametrize(
    ("demonstrations", "params", "error", "sentence"),
    [
        (never_a_choice, {}, DataError, "no frame of the training episodes has more than one legal action"),
        (a_choice_in_one_episode, {}, DataError, "no frame of the held-out episodes has more than one"),
        (lambda: rule_demonstrations(1), {}, DataError, "at least 2"),
        (
            lambda: replace(rule_demonstrations(), maps=None),
            {"network": "conflict_aware"},
            DataError,
            "holds no maps",
        ),
        (rule_demonstrations, {"device": "cuda:99"}, TrainingError, "Device 'cuda:99' does not work here"),
        (rule_demonstrations, {"device": "meta"}, TrainingError, "Device 'meta' does not work here"),
        (rule_demonstrations, {"device": "toaster"}, TrainingError, "Device 'toaster' does not work here"),
        (rule_demonstrations, {"learning_rate": 1e39}, TrainingError, "Lower the learning rate"),
    ],
    ids=[
        "no choice",
        "no choice held out",
        "one episode",
        "no maps",
        "no such device",
        "no memory",
        "no device",
        "divergence",
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_cannot_teach_is_refused(
    demonstrations: Any, params: dict[str, Any], error: type[TownletTrainError], sentence: str, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run", demonstrations(), **params)
    with pytest.raises(error, match=sentence) as refusal:
        run.strategy.run(run.context)
    assert refusal.value.exit_code == 2


def test_training_restores_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    with limited_threads(torch_threads=before + 1, numpy_threads=1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_bc_without_a_manifest_says_how_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["bc", "--output-dir", str(tmp_path / "run"), "--json"])
    error = json.loads(capsys.readouterr().out)["error"]
    assert (code, error["exit_code"]) == (3, 3)
    assert "townlet-train rollout capture" in error["message"]
    assert not (tmp_path / "run").exists()
