"""The export formats of plugins: how a policy is written in one, and how what was written acts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from townlet_train.errors import PluginError, TownletTrainError
from townlet_train.registry.offers import Offer, failed

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from townlet_train.data.checkpoint import Checkpoint


class Exporter(NamedTuple):
    """A plugin's format: how a policy is written in it, and how what was written acts, where the plugin says."""

    write: Callable[[Path, Checkpoint, Any], None]
    act: Callable[[Path, Mapping[str, NDArray[Any]]], NDArray[Any]] | None


def exporter(offered: Offer) -> Exporter:
    """What writes and acts for a format; both name the plugin where they fail."""
    acts = callable(getattr(offered.value, "act", None))
    return Exporter(partial(_export_by, offered), partial(_act_by, offered) if acts else None)


def _export_by(offered: Offer, output: Path, checkpoint: Checkpoint, inputs: object) -> None:
    """Have a plugin's exporter write a checkpoint to `output`, an empty file; `inputs` are for formats of ours.

    Raises:
        PluginError: it fails, or writes nothing there.
    """
    with _named(offered):
        offered.value(checkpoint, output)
    if not output.is_file() or not output.stat().st_size:
        raise PluginError(
            f"{offered.record.title} wrote nothing to the file it was handed. Nothing was left."
        )


def _act_by(offered: Offer, output: Path, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """What the policy in a file that a plugin wrote puts out, illegal actions masked.

    Raises:
        PluginError: the plugin cannot run it.
    """
    import numpy as np

    from townlet_train.policies.network import ILLEGAL_LOGIT

    with _named(offered):
        outputs = np.asarray(offered.value.act(output, inputs))
    mask = inputs.get("action_mask")
    if mask is None or mask.shape != outputs.shape:
        return outputs
    return np.where(mask, outputs, np.float32(ILLEGAL_LOGIT))


@contextmanager
def _named(offered: Offer) -> Iterator[None]:
    """Say whose exporter raised what is no error of ours."""
    try:
        yield
    except (TownletTrainError, OSError):
        raise
    except (Exception, SystemExit) as error:
        raise failed(offered, error, "Nothing was left.") from error
