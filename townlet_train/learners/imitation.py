"""How well a policy does what the demonstrator did, and whether demonstrations can teach anything at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.checkpoint import Arrays
from townlet_train.data.dataset import Demonstrations
from townlet_train.errors import DataError
from townlet_train.learners.surrogate import DiagonalGaussian
from townlet_train.policies.network import ILLEGAL_LOGIT, LOG_STD, NetworkSpec, compute_logits

CHUNK = 8192
Index = NDArray[np.int64]


@dataclass(frozen=True)
class ImitationMetrics:
    """Agreement with the demonstrator on some frames; what counts hits is None of vectors."""

    loss: float  # mean negative log-likelihood of the demonstrator's action, nats; below 0 for vectors of small spread
    accuracy: float | None  # share of frames whose action is the most probable one
    accuracy_unforced: float | None  # the same where more than one action is legal
    majority_share: float | None  # share of the commonest action: the accuracy of always saying it
    macro_recall: float | None  # mean recall over the actions that occur
    recall: dict[str, float]  # by action name, for the actions that occur
    mean_absolute_error: float | None = (
        None  # of the distribution's means, over all dimensions; None of indices
    )


def measure_imitation(
    spec: NetworkSpec, weights: Arrays, demonstrations: Demonstrations, index: Index
) -> ImitationMetrics:
    """Metrics on the frames in `index`, with the very forward pass that acts later."""
    if spec.distribution == "gaussian":
        return _measure_vectors(spec, weights, demonstrations, index)
    predicted, losses = np.empty(len(index), np.int64), np.empty(len(index))
    for start in range(0, len(index), CHUNK):
        rows = index[start : start + CHUNK]
        log_probs = _log_probs(spec, weights, demonstrations, rows)
        predicted[start : start + CHUNK] = log_probs.argmax(axis=1)
        losses[start : start + CHUNK] = -log_probs[np.arange(len(rows)), demonstrations.actions[rows]]
    actions = demonstrations.actions[index]
    hits = predicted == actions
    counts = np.bincount(actions, minlength=len(demonstrations.action_names))
    recalled = np.bincount(actions[hits], minlength=len(counts))
    recall = {
        name: float(hit / count)
        for name, hit, count in zip(demonstrations.action_names, recalled, counts, strict=True)
        if count
    }
    return ImitationMetrics(
        loss=float(losses.mean()),
        accuracy=float(hits.mean()),
        accuracy_unforced=float(hits[demonstrations.action_mask[index].sum(axis=1) > 1].mean()),
        majority_share=float(counts.max() / counts.sum()),
        macro_recall=float(np.mean(list(recall.values()))),
        recall=recall,
    )


def _measure_vectors(
    spec: NetworkSpec, weights: Arrays, demonstrations: Demonstrations, index: Index
) -> ImitationMetrics:
    log_std = np.asarray(weights[LOG_STD], np.float32)
    losses, errors = np.empty(len(index)), np.empty(len(index))
    for start in range(0, len(index), CHUNK):
        rows = index[start : start + CHUNK]
        mean, actions = _outputs(spec, weights, demonstrations, rows), demonstrations.actions[rows]
        gaussian = DiagonalGaussian(mean.T, log_std, np.zeros_like(log_std))
        losses[start : start + CHUNK] = -gaussian.log_probs(actions)
        errors[start : start + CHUNK] = np.abs(actions - mean).mean(axis=1)
    return ImitationMetrics(float(losses.mean()), None, None, None, None, {}, float(errors.mean()))


def check_teachable(
    demonstrations: Demonstrations, majority_threshold: float, *, allow_degenerate: bool
) -> list[str]:
    """Refuse what nobody can learn; a nearly constant demonstrator too, or warn of it when that is allowed.

    Raises:
        DataError: one action is everything, or nearly.
    """
    degeneracy = describe_degeneracy(demonstrations, majority_threshold)
    if degeneracy and not allow_degenerate:
        raise DataError(f"{degeneracy} Capture other demonstrations, or insist with --allow-degenerate.")
    return [degeneracy] if degeneracy else []


def check_choices(demonstrations: Demonstrations, split: tuple[Index, Index]) -> None:
    """Raise `DataError` when the training or the held-out frames never leave a choice, so nothing can be measured.

    Vectors always leave one.
    """
    if demonstrations.action_low:
        return
    for part, index in zip(("training", "held-out"), split, strict=True):
        if not (demonstrations.action_mask[index].sum(axis=1) > 1).any():
            raise DataError(
                f"{demonstrations.label}: no frame of the {part} episodes has more than one legal action. "
                f"Capture more towns, or choose another --seed."
            )


def describe_degeneracy(demonstrations: Demonstrations, majority_threshold: float) -> str | None:
    """Why a high accuracy on these demonstrations would mean nothing, in a sentence; None when it would."""
    if demonstrations.action_low:
        first = demonstrations.actions[0]
        return (
            f"{demonstrations.label}: every one of {len(demonstrations)} frames shows the same vector, "
            f"{first.tolist()}."
            if (demonstrations.actions == first).all()
            else None
        )
    counts = np.bincount(demonstrations.actions, minlength=len(demonstrations.action_names))
    commonest = demonstrations.action_names[int(counts.argmax())]
    share = counts.max() / counts.sum()
    if share == 1:
        return f"{demonstrations.label}: every one of {counts.sum()} frames shows the same action, {commonest!r}."
    if share >= majority_threshold:
        return (
            f"{demonstrations.label}: {commonest!r} is {share:.1%} of the frames, the limit is "
            f"{majority_threshold:.1%}; always saying it would score as much."
        )
    return None


def _log_probs(
    spec: NetworkSpec, weights: Arrays, demonstrations: Demonstrations, rows: Index
) -> NDArray[np.float32]:
    """Log probability of every action (n, n_actions)."""
    logits = _outputs(spec, weights, demonstrations, rows)
    logits[~demonstrations.action_mask[rows]] = ILLEGAL_LOGIT
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return logits


def _outputs(
    spec: NetworkSpec, weights: Arrays, demonstrations: Demonstrations, rows: Index
) -> NDArray[np.float32]:
    """What the network puts out for some frames: unmasked logits or means, (n, n_outputs)."""
    maps = np.empty((len(rows), 0), np.uint8) if demonstrations.maps is None else demonstrations.maps[rows]
    return compute_logits(spec, weights, demonstrations.features[rows], maps)
