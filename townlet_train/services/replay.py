"""Recordings read back: found, described, checked, split and loaded to learn from."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from townlet_train.data.batches import TrajectoryBatch, TrajectoryDataset
from townlet_train.data.checkpoint import Bounds, bounds_of, task_of
from townlet_train.data.dataset import (
    Demonstrations,
    FrameBatch,
    choose_episodes,
    doubts,
    load_demonstrations,
    stream_batches,
)
from townlet_train.data.landing import check_file
from townlet_train.data.layout import describe_features
from townlet_train.data.manifest import (
    SUFFIX,
    Entry,
    encode_manifest,
    find_manifest,
    load_document,
    parse_manifest,
)
from townlet_train.data.memmap import FINAL_FEATURES, Store
from townlet_train.data.metrics import baseline_metrics, entropy, sample_metrics
from townlet_train.data.replay import SampleReplay, block_of, open_replay
from townlet_train.data.storage import Sample, load_header
from townlet_train.data.survey import Survey
from townlet_train.errors import DataError, UsageError
from townlet_train.files import REPLACED, beside, write_bytes
from townlet_train.results import ReplayInspectDTO, ReplayProblem, ReplaySplitDTO, ReplayValidateDTO

OF_THE_WHOLE = ("events", "metrics")  # what a manifest says of all its episodes, and no part of it may repeat
HOW_TO_CAPTURE = "Capture one with `townlet-train rollout capture --output DIR`."


class ReplayDatasetService:
    """Everything that is done with a recording; `path` is a manifest, a capture directory or one sample."""

    def resolve_manifest(self, path: Path | None) -> Path:
        """The manifest (or sample) that `path` means. Raises `UsageError` when there is none."""
        if path is None:
            raise UsageError(f"A manifest of demonstrations is needed and none was named. {HOW_TO_CAPTURE}")
        if not path.exists():
            raise UsageError(
                f"{path} does not exist; expected a manifest, a capture or a sample. "
                f"{_how_to_get_back(path) or HOW_TO_CAPTURE}"
            )
        return find_manifest(path) if path.is_dir() else path

    def check(self, path: Path | None) -> Path:
        """The manifest (or sample) that `path` means, opened and its first sample read: cheap, before long work.

        Raises `UsageError` when there is none, `DataError` when it is no recording.
        """
        source = self.resolve_manifest(path)
        replay = open_replay(source)
        if isinstance(replay, SampleReplay):
            next(replay.samples())
        return source

    def size(self, path: Path) -> tuple[int, int]:
        """Frames and seeds of a recording."""
        replay = open_replay(self.resolve_manifest(path))
        return replay.n_frames, len(replay.seeds)

    def env_id(self, path: Path) -> str | None:
        """The environment a recording was made in; None when it does not say, as Townlet's own do not."""
        replay = open_replay(self.resolve_manifest(path))
        if replay.capture is not None:
            return replay.capture.env_id
        return replay.headers[0].env_id

    def action_bounds(self, path: Path) -> tuple[Bounds, ...]:
        """Lowest and highest value of each dimension of its vectors; empty where its actions are indices."""
        replay = open_replay(self.resolve_manifest(path))
        if isinstance(replay, Store):
            return bounds_of(replay.layout)
        first = replay.manifest.entries[0]
        facts = load_header(first.sample, first.metadata).facts
        return tuple(zip(facts.action_low, facts.action_high, strict=True))

    def check_env(self, path: Path, env: str) -> str | None:
        """As `env_id`; raises `UsageError` when it says another environment than `env`, whatever is before a colon."""
        recorded = self.env_id(path)
        if recorded is not None and task_of(recorded) != task_of(env):
            raise UsageError(
                f"{path} was recorded in environment {recorded!r}, the config says {env!r}. Pass --env {recorded}."
            )
        return recorded

    def load(
        self,
        path: Path,
        *,
        with_maps: bool = True,
        feature_names: Sequence[str] | None = None,
        action_names: Sequence[str] | None = None,
    ) -> Demonstrations:
        """Every frame of a recording, to learn from; `DataError` where it has other names than those given.

        Actions are numbered by `action_names` when given, otherwise in the order of first sight.
        """
        source = self.resolve_manifest(path)
        return load_demonstrations(
            source, with_maps=with_maps, feature_names=feature_names, action_names=action_names
        )

    def stream(
        self,
        path: Path,
        batch_size: int,
        rng: np.random.Generator | None = None,
        *,
        action_names: Sequence[str] | None = None,
        with_maps: bool = True,
        drop_last: bool = False,
    ) -> Iterator[FrameBatch]:
        """One epoch of batches (batch_size, ...) over a recording of any size, in memory that does not grow with it.

        Actions are numbered by `action_names` when given, otherwise in the order of first sight. With `rng`, frames are
        shuffled within blocks that come in random order. Each frame is checked as it passes; that a store's bytes are
        those that were captured is left to `validate`.
        """
        replay = open_replay(self.resolve_manifest(path))
        names = replay.action_names if action_names is None else action_names
        return stream_batches(replay, batch_size, names, rng=rng, with_maps=with_maps, drop_last=drop_last)

    def build_dataset(
        self,
        path: Path,
        *,
        batch_size: int = 1,
        rng: np.random.Generator | None = None,
        drop_last: bool = False,
        streaming: bool = False,
    ) -> TrajectoryDataset:
        """Whole trajectories in batches."""
        replay = open_replay(self.resolve_manifest(path))
        if isinstance(replay, Store):
            raise DataError(
                f"{path} is a memmap store, which streams frames; trajectory batches need npz samples."
            )
        return TrajectoryDataset(
            replay, batch_size=batch_size, rng=rng, drop_last=drop_last, streaming=streaming
        )

    def summarize_sample(self, sample: Sample) -> dict[str, float]:
        """Metrics of one sample."""
        return sample_metrics(sample.trajectory, sample.layout)

    def summarize_batch(self, batch: TrajectoryBatch, number: int) -> dict[str, float]:
        """Size, feature width and conflict statistics of one batch."""
        return batch.summary(number)

    def summarize_dataset(self, dataset: TrajectoryDataset) -> list[dict[str, float]]:
        """The summary of every batch, in order, counted from 1."""
        return [self.summarize_batch(batch, number) for number, batch in enumerate(dataset, start=1)]

    def inspect(self, path: Path) -> ReplayInspectDTO:
        """What a recording holds."""
        source = self.resolve_manifest(path)
        replay = open_replay(source)
        rows: list[dict[str, float]] = []
        survey = Survey.of(
            replay.blocks()
            if isinstance(replay, Store)
            else replay.blocks(visit=lambda sample: rows.append(self.summarize_sample(sample)))
        )
        layout = survey.layout
        if layout is None:
            raise DataError(f"{source} holds no frames.")
        slots = replay.capture.n_agents if replay.capture else 1
        returns = np.array([*survey.whole_returns.values()]) / slots
        manifest = None if isinstance(replay, Store) else replay.manifest
        return ReplayInspectDTO(
            warnings=tuple(doubts(replay)),
            path=str(source),
            store="memmap" if isinstance(replay, Store) else "npz",
            layout=describe_features(layout.feature_names, layout.env_id),
            n_features=len(layout.feature_names),
            map_shape=survey.map_shape,
            action_names=tuple(survey.action_counts) if layout.action_names else (),
            action_bounds=bounds_of(layout),
            action_range=survey.action_range,
            has_masks=survey.masked_frames == survey.frames,
            frames=survey.frames,
            trajectories=survey.trajectories,
            episodes=len(survey.frames_in_episodes),
            cut_off=len(survey.cut_off),
            seeds=replay.seeds,
            policy=replay.capture.policy if replay.capture else None,
            action_counts=survey.action_counts,
            action_entropy=entropy(survey.counts) if survey.action_counts else None,
            majority_share=survey.majority_share,
            reward_mean=survey.reward_sum / survey.frames,
            episode_return_mean=float(returns.mean()) if len(returns) else None,
            episode_return_std=float(returns.std()) if len(returns) else None,
            episode_return_min=float(returns.min()) if len(returns) else None,
            episode_return_max=float(returns.max()) if len(returns) else None,
            terminations=survey.terminations,
            truncations=survey.truncations,
            forced_share=survey.forced_frames / survey.masked_frames if survey.masked_frames else None,
            mask_violations=survey.mask_violations,
            non_finite=survey.non_finite,
            conflict=survey.conflict,
            baseline=baseline_metrics(rows) if rows else {},
            rejected=len(manifest.rejected) if manifest else 0,
            duplicates=len(manifest.duplicates) if manifest else 0,
        )

    def validate(self, path: Path) -> ReplayValidateDTO:
        """Every problem of a recording, as a sentence each; reading goes on after the first."""
        source = self.resolve_manifest(path)
        problems: list[str] = []
        survey = Survey()
        warnings: tuple[str, ...] = ()
        try:
            warnings = _survey_with_problems(source, survey, problems)
        except DataError as error:
            problems.append(str(error))
        problems += _problems_of(survey, source)
        return ReplayValidateDTO(
            warnings=warnings,
            path=str(source),
            valid=not problems,
            problems=tuple(ReplayProblem(problem=sentence) for sentence in problems),
            frames=survey.frames,
        )

    def split(
        self, path: Path, *, fraction: float, seed: int, output: Path | None = None, overwrite: bool = False
    ) -> ReplaySplitDTO:
        """Write two manifests beside the recording (or into `output`) that share no episode and copy no data."""
        if not 0 < fraction < 1:
            raise UsageError(f"The held-out share is {fraction}; expected a number between 0 and 1.")
        source = self.resolve_manifest(path)
        stem = source.name.removesuffix(SUFFIX).removesuffix(".json")
        paths = {name: (output or source.parent) / f"{stem}_{name}.json" for name in ("train", "held_out")}
        for target in paths.values():
            check_file(target, overwrite=overwrite)
        replay = open_replay(source)
        survey = Survey()
        episode_of: dict[str, int] = {}  # the episode each sample is part of
        for block in replay.blocks(with_maps=False):
            survey.feed(block)
            episode_of[block.source] = int(block.episode[0])
        frames = survey.frames_in_episodes
        episodes = np.array(sorted(frames), np.int64)
        held_out = set(choose_episodes(episodes, fraction, np.random.default_rng(seed), str(source)).tolist())
        parts = {"train": set(frames) - held_out, "held_out": held_out}
        for name, chosen in parts.items():
            body, seeds = (
                _store_part(replay, chosen, paths[name].parent)
                if isinstance(replay, Store)
                else _samples_part(replay, chosen, episode_of, paths[name].parent)
            )
            whole = {key: value for key, value in replay.metadata.items() if key not in OF_THE_WHOLE}
            about = {"part": name, "of": source.name, "seed": seed, "fraction": fraction}
            write_bytes(paths[name], encode_manifest({**whole, "seeds": seeds, "split": about}, body))
        return ReplaySplitDTO(
            warnings=tuple(doubts(replay)),
            path=str(source),
            train=str(paths["train"]),
            held_out=str(paths["held_out"]),
            seed=seed,
            fraction=fraction,
            train_episodes=len(parts["train"]),
            held_out_episodes=len(parts["held_out"]),
            train_frames=sum(frames[number] for number in parts["train"]),
            held_out_frames=sum(frames[number] for number in parts["held_out"]),
        )


def _survey_with_problems(source: Path, survey: Survey, problems: list[str]) -> tuple[str, ...]:
    """Feed everything readable to `survey`, note what is not, and return what is merely doubtful."""
    document = load_document(source) if source.suffix != ".npz" else None
    if source.suffix == ".npz" or (isinstance(document, dict) and "arrays" in document):
        replay = open_replay(source)
    else:
        replay = SampleReplay(parse_manifest(source, document, lambda error: problems.append(str(error))))
    if isinstance(replay, Store):
        problems += replay.check_sums()
        for block in replay.blocks():
            survey.feed(block)
        return ()

    problems += replay.check_sums()
    refused: set[Entry] = set()

    def refuse(entry: Entry, error: DataError) -> None:
        refused.add(entry)
        problems.append(str(error) if entry.sample == source else f"{source}, entry {entry.number}: {error}")

    for sample in replay.samples(refuse=refuse):
        dead = sample.trajectory.n_dead
        if dead:
            problems.append(
                f"{sample.path}: {dead} of {sample.trajectory.n_steps} frames come after the agent's life ended."
            )
        if not sample.layout.action_names and not sample.layout.action_low:
            problems.append(
                f"{sample.path} has no `action_lookup`, so its action ids have no names to learn."
            )
        survey.feed(block_of(sample))
    readable = tuple(entry for entry in replay.manifest.entries if entry not in refused)
    return tuple(doubts(SampleReplay(replace(replay.manifest, entries=readable))))


def _problems_of(survey: Survey, source: Path) -> Iterator[str]:
    """What is wrong with a recording as a whole."""
    if survey.frames == 0:
        return
    if survey.non_finite:
        yield f"{source}: {survey.non_finite} values of features or rewards are NaN or infinite."
    if survey.mask_violations:
        wrong = (
            "lie outside of their bounds"
            if survey.action_range
            else "are forbidden by the mask of their own frame"
        )
        yield f"{source}: {survey.mask_violations} actions {wrong}."
    used = [name for name, count in survey.action_counts.items() if count]
    if survey.action_range and all(low == high for low, high in survey.action_range):
        used = [str([low for low, _ in survey.action_range])]
    if len(used) == 1:
        yield f"{source}: every one of {survey.frames} actions is {used[0]!r}, so there is nothing to learn."


def _store_part(store: Store, chosen: set[int], directory: Path) -> tuple[dict[str, Any], list[int]]:
    """A store's manifest that selects some episodes of the same arrays, and their seeds."""
    arrays = {
        name: {**row.model_dump(), "file": relative_to(store.path.parent / row.file, directory)}
        for name, row in store.records.items()
    }
    episodes = [asdict(episode) for episode in store.episodes]
    seeds = sorted({store.episodes[number].seed for number in chosen})
    body: dict[str, Any] = {"arrays": arrays, "episodes": episodes, "selected": sorted(chosen)}
    if store.final_record is not None:
        file = relative_to(store.path.parent / store.final_record.file, directory)
        body[FINAL_FEATURES] = {**store.final_record.model_dump(), "file": file}
    return body, seeds


def _samples_part(
    replay: SampleReplay, chosen: set[int], episode_of: Mapping[str, int], directory: Path
) -> tuple[dict[str, Any], list[int]]:
    """A manifest of some samples, and the seeds of their episodes where they say."""
    rows: list[dict[str, str]] = []
    seeds: set[int] = set()
    for entry, header in zip(replay.manifest.entries, replay.headers, strict=True):
        if episode_of[str(entry.sample)] not in chosen:
            continue
        row = {"sample": relative_to(entry.sample, directory), "meta": relative_to(entry.metadata, directory)}
        sums = {"sha256": entry.sample_sha256, "meta_sha256": entry.metadata_sha256}
        rows.append(row | {key: value for key, value in sums.items() if value is not None})
        key = header.episode
        seeds |= {key.seed} if key is not None and key.seed is not None else set()
    return {"samples": rows}, sorted(seeds)


def _how_to_get_back(path: Path) -> str | None:
    """How to put back a capture that was set aside and never replaced; None when none was."""
    for missing in (path, path.parent):
        set_aside = [] if missing.exists() else beside(missing, REPLACED)
        if set_aside:
            move = shlex.join(["mv", str(set_aside[-1]), str(missing)])
            return f"A capture that was to replace it was killed; put it back with: {move}"
    return None


def relative_to(path: Path, directory: Path) -> str:
    """`path` as written in a manifest in `directory`."""
    return os.path.relpath(path.resolve(), directory.resolve())
