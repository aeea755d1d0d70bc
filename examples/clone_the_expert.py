"""Capture, clone and evaluate from Python; the commands `rollout capture`, `bc` and `evaluate` do the same.

Run again, it replaces what it left.

python examples/clone_the_expert.py --towns 96 --output clone
"""

from __future__ import annotations

import argparse
from pathlib import Path

from townlet_train.config import EvaluationConfig, RolloutConfig, RunConfig
from townlet_train.orchestrator import TrainingOrchestrator
from townlet_train.services.evaluation import evaluate_as_configured
from townlet_train.services.rollout import capture_as_configured


def main(output: Path, towns: int, episodes: int) -> dict[str, float]:
    """Mean episode return on held-out seeds of the clone, its demonstrator and a random policy."""
    config = RunConfig(
        seed=1,
        rollout=RolloutConfig(towns=towns, store="memmap"),
        evaluation=EvaluationConfig(episodes=episodes),
    )
    captured = capture_as_configured(
        config, output=output / "demonstrations", with_maps=False, overwrite=True
    )
    orchestrator = TrainingOrchestrator(config)
    clone = orchestrator.run_bc(manifest=Path(captured.manifest), run_dir=output / "run", overwrite=True)

    evaluations = {name: evaluate_as_configured(config, scripted=name) for name in ("expert", "random")}
    evaluations["clone"] = evaluate_as_configured(config, checkpoint=Path(str(clone.checkpoint)))
    return {name: evaluation.mean for name, evaluation in evaluations.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("clone"))
    parser.add_argument("--towns", type=int, default=96)
    parser.add_argument("--episodes", type=int, default=100)
    for name, mean in main(**vars(parser.parse_args())).items():
        print(f"{name:8} {mean:8.2f}")
