"""One side of the bc benchmark: `python bc_ours.py FRAMES THREADS BATCH_SIZE...` prints samples per second as JSON."""

from __future__ import annotations

import json
import sys

import numpy as np

from townlet_train.data.dataset import Demonstrations
from townlet_train.learners.bc import BCLearner, BCSettings, network_for


def main(frames: str, n_threads: str, *batch_sizes: str) -> None:
    """Train two epochs per batch size, time the second."""
    arrays = np.load(frames, allow_pickle=False)
    n_frames, n_features = arrays["features"].shape
    n_actions = arrays["masks"].shape[1]
    demonstrations = Demonstrations(
        features=arrays["features"],
        maps=None,
        actions=arrays["actions"],
        action_mask=arrays["masks"],
        episode=np.zeros(n_frames, np.int64),
        feature_names=tuple(f"feature_{i}" for i in range(n_features)),
        action_names=tuple(f"action_{i}" for i in range(n_actions)),
        map_channels=(),
        seeds=(),
        label="benchmark",
    )
    everything, few = np.arange(n_frames), np.arange(1024)
    spec = network_for(demonstrations, "mlp")
    rates = {}
    for batch_size in map(int, batch_sizes):
        settings = BCSettings(2e-3, batch_size, n_epochs=2, n_threads=int(n_threads))
        learner = BCLearner(spec, settings, demonstrations, (everything, few), np.random.default_rng(1))
        rates[batch_size] = [learner.train_epoch().samples_per_sec for _ in range(2)][1]
    print(json.dumps(rates))


if __name__ == "__main__":
    main(*sys.argv[1:])
