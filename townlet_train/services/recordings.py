"""Recordings of any size counted, written anew in the other store, and made one of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from townlet_train.data.checkpoint import task_of
from townlet_train.data.dataset import doubts
from townlet_train.data.features import FeatureRanges
from townlet_train.data.fingerprints import count_repeats
from townlet_train.data.landing import check_output, sole_writer
from townlet_train.data.manifest import SUFFIX, encode_manifest
from townlet_train.data.memmap import Store
from townlet_train.data.metrics import entropy
from townlet_train.data.replay import SampleReplay, open_replay
from townlet_train.data.rewriting import join_stores, seeds_of, write_samples, write_store
from townlet_train.data.survey import Survey
from townlet_train.errors import DataError, UsageError
from townlet_train.files import atomic_directory
from townlet_train.results import ReplayEpisodeDTO, ReplayRewriteDTO, ReplayStatsDTO
from townlet_train.services.replay import OF_THE_WHOLE, ReplayDatasetService, relative_to

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
PREFIX = "rollout_sample"


def recording_stats(path: Path, *, held_out: Path | None = None, per_episode: bool = False) -> ReplayStatsDTO:
    """What a recording holds, frame by frame, and what it shares with one that is `held_out`.

    Raises:
        UsageError: there is no recording.
        DataError: it cannot be read, or the two were made in different environments.
    """
    service = ReplayDatasetService()
    replay = open_replay(service.resolve_manifest(path))
    other = None if held_out is None else open_replay(service.resolve_manifest(held_out))
    if held_out is not None:
        _check_same_env(service, path, held_out)
    survey, features = Survey(), FeatureRanges()
    for block in replay.blocks(with_maps=False):
        survey.feed(block)
        features.feed(block)
    if survey.frames == 0:
        raise DataError(f"{replay.path} holds no frames.")
    slots = replay.capture.n_agents if replay.capture else 1
    whole = {number: total / slots for number, total in survey.whole_returns.items()}
    lengths, cut_off = survey.frames_in_episodes, survey.cut_off
    repeats = count_repeats(replay, other)
    n_theirs = 0 if other is None else other.n_frames
    together = None if other is None else len(_episodes(replay) & _episodes(other))
    warnings = [*doubts(replay)]
    if together:
        warnings.append(f"{held_out} is not held out: {together} of its episodes are in {path}, too.")
    return ReplayStatsDTO(
        path=str(replay.path),
        frames=survey.frames,
        episodes=len(lengths),
        cut_off=len(cut_off),
        action_counts=survey.action_counts,
        action_entropy=entropy(survey.counts) if survey.action_counts else None,
        return_quantiles={f"{share:g}": float(np.quantile([*whole.values()], share)) for share in QUANTILES}
        if whole
        else {},
        episode_frames_min=min((lengths[number] for number in whole), default=None),
        episode_frames_max=max((lengths[number] for number in whole), default=None),
        non_finite=features.non_finite,
        constant=features.constant,
        mask_violations=survey.mask_violations,
        repeated_frames=repeats.within,
        repeated_share=repeats.within / survey.frames,
        held_out=None if held_out is None else str(held_out),
        shared_frames=None if other is None else repeats.shared,
        shared_share=repeats.shared / n_theirs if n_theirs else None,
        shared_episodes=together,
        per_episode=tuple(
            ReplayEpisodeDTO(
                episode=number,
                frames=lengths[number],
                episode_return=total / slots,
                cut_off=number in cut_off,
            )
            for number, total in survey.returns_by_episode.items()
        )
        if per_episode
        else (),
        warnings=tuple(warnings),
    )


def convert_recording(
    path: Path, output: Path, store: Literal["npz", "memmap"], *, overwrite: bool = False
) -> ReplayRewriteDTO:
    """Write a store as samples, or the samples of a capture as a store, in a directory of its own.

    Raises:
        UsageError: the output is in use, or the recording is of that kind already.
        DataError: the recording cannot be laid out so.
    """
    source = ReplayDatasetService().resolve_manifest(path)
    replay = open_replay(source)
    if isinstance(replay, Store) == (store == "memmap"):
        raise UsageError(f"{source} is a recording of kind {store} already. Choose the other --store.")
    prefix = source.name.removesuffix(SUFFIX) if source.name.endswith(SUFFIX) else PREFIX
    with sole_writer(output):
        check_output(output, overwrite=overwrite)
        with atomic_directory(output) as directory:
            if isinstance(replay, Store):
                written = write_samples([replay], directory, replay.metadata, prefix)
            else:
                written = write_store(replay, directory, prefix)
            size = _size(directory)
    return _told([source], output, written.name, store, size)


def merge_recordings(paths: Sequence[Path], output: Path, *, overwrite: bool = False) -> ReplayRewriteDTO:
    """Make one recording of several of one kind: stores side by side, or a manifest of every sample.

    Raises:
        UsageError: the output is in use or holds samples of one of them, there are fewer than two, one is named
            twice, or they are of both kinds.
        DataError: they are not of one environment, layout and length.
    """
    service = ReplayDatasetService()
    sources = [service.resolve_manifest(path) for path in paths]
    if len(sources) < 2:
        raise UsageError("One recording was named; expected two or more to merge.")
    resolved = [source.resolve() for source in sources]
    for path, source in zip(paths, resolved, strict=True):
        if resolved.count(source) > 1:
            raise UsageError(
                f"{path} is named more than once; expected recordings that differ. Leave one out."
            )
    replays = [open_replay(source) for source in sources]
    stores = [replay for replay in replays if isinstance(replay, Store)]
    samples = [replay for replay in replays if isinstance(replay, SampleReplay)]
    if stores and samples:
        raise UsageError(
            f"{stores[0].path} is a store and {samples[0].path} holds samples. Convert one of them."
        )
    for replay in samples:
        _check_apart(replay, output)
    with sole_writer(output):
        check_output(output, overwrite=overwrite)
        with atomic_directory(output) as directory:
            if stores:
                seeds = [seed for each in stores for seed in seeds_of(each)]
                about = _together([each.metadata for each in stores]) | {"n_envs": len(seeds), "seeds": seeds}
                written = join_stores(stores, directory, about, PREFIX)
            else:
                written = directory / f"{PREFIX}{SUFFIX}"
                written.write_bytes(_one_manifest(samples, output))
            size = _size(directory)
    return _told(sources, output, written.name, "memmap" if stores else "npz", size, _shared_seeds(replays))


def _check_same_env(service: ReplayDatasetService, path: Path, held_out: Path) -> None:
    """Raise `DataError` where two recordings say different environments, whatever is before a colon."""
    mine, theirs = service.env_id(path), service.env_id(held_out)
    if mine is not None and theirs is not None and task_of(mine) != task_of(theirs):
        raise DataError(
            f"{path} and {held_out} differ in environment ({mine} and {theirs}); expected the same."
        )


def _check_apart(replay: SampleReplay, output: Path) -> None:
    """Refuse an output that holds samples of the recording: a merge leaves them where they are, and names them."""
    target = output.resolve()
    for entry in replay.manifest.entries:
        if target in entry.sample.resolve().parents:
            raise UsageError(
                f"{output} holds {entry.sample.name}, which is merged and stays where it is. Choose another --output."
            )


def _one_manifest(replays: Sequence[SampleReplay], output: Path) -> bytes:
    """A manifest in `output` of all samples, which stay where they are."""
    first = replays[0]
    for replay in replays:
        if replay.capture is None or first.capture is None:
            raise DataError(
                f"{replay.path} is no capture of townlet-train. List its samples in one manifest by hand instead."
            )
        alike = ("env_id", "feature_names", "action_names", "action_low", "action_high", "map_channels")
        for name in (*alike, "n_agents"):
            if getattr(replay.capture, name) != getattr(first.capture, name):
                raise DataError(f"{first.path} and {replay.path} differ in `{name}`; expected the same.")
    rows = []
    for entry in (entry for replay in replays for entry in replay.manifest.entries):
        row = {"sample": relative_to(entry.sample, output), "meta": relative_to(entry.metadata, output)}
        sums = {"sha256": entry.sample_sha256, "meta_sha256": entry.metadata_sha256}
        rows.append(row | {key: value for key, value in sums.items() if value is not None})
    captures = [replay.capture for replay in replays if replay.capture is not None]
    about = _together([replay.metadata for replay in replays]) | {
        "ticks": max(capture.ticks for capture in captures),
        "n_envs": sum(capture.n_envs for capture in captures),
        "seeds": sorted({seed for replay in replays for seed in replay.seeds}),
        "merged": [relative_to(replay.path, output) for replay in replays],
    }
    return encode_manifest(about, {"samples": rows})


def _together(metadata: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several manifests say alike; policies are named one after the other."""
    first = metadata[0]
    alike = {
        name: value
        for name, value in first.items()
        if name not in OF_THE_WHOLE and all(each.get(name) == value for each in metadata)
    }
    return alike | {"policy": " and ".join(dict.fromkeys(str(each["policy"]) for each in metadata))}


def _shared_seeds(replays: Sequence[Store | SampleReplay]) -> tuple[str, ...]:
    """A warning where several have episodes of the same seed, which begin alike."""
    every = [seed for replay in replays for seed in replay.seeds]
    shared = sorted({seed for seed in every if every.count(seed) > 1})
    if not shared:
        return ()
    return (
        f"{len(shared)} seeds are in more than one of the recordings, {shared[0]} the first; their episodes begin "
        f"alike, so a split may not keep them apart.",
    )


def _episodes(replay: Store | SampleReplay) -> set[tuple[int, int]]:
    """Seed and number of every episode that says them."""
    if isinstance(replay, Store):
        return {(span.seed, span.index) for span in replay.selected_episodes}
    keys = [header.episode for header in replay.headers]
    return {(key.seed, key.index) for key in keys if key is not None and key.seed is not None}


def _told(
    sources: Sequence[Path], output: Path, name: str, store: str, size: int, warnings: tuple[str, ...] = ()
) -> ReplayRewriteDTO:
    """What was written, read back."""
    replay = open_replay(output / name)
    return ReplayRewriteDTO(
        sources=tuple(map(str, sources)),
        output=str(output),
        manifest=str(output / name),
        store=store,
        frames=replay.n_frames,
        episodes=replay.n_episodes,
        seeds=replay.seeds,
        bytes=size,
        warnings=warnings,
    )


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())
