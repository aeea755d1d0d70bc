"""The export format `sb3`; what it needs is imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from townlet_train_sb3.needed import check_installed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from townlet_train.api import Checkpoint


class SB3Format:
    """A zip that stable_baselines3.PPO.load opens, with the normaliser inside."""

    def __call__(self, checkpoint: Checkpoint, output: Path) -> None:
        """Write the policy of a checkpoint.

        Raises:
            CheckpointError: it is no mlp.
            TownletTrainError: Stable-Baselines3 is not installed.
        """
        check_installed("Export to sb3", "stable_baselines3")
        from townlet_train_sb3.exporting import write

        write(checkpoint, output)

    def act(self, output: Path, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """What the policy in a file puts out for `features` (n, n_features): logits or means, (n, n_actions)."""
        from townlet_train_sb3.exporting import outputs_of

        return outputs_of(output, inputs["features"])
