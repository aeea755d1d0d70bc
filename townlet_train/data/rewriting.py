"""Recordings written anew: a large store as samples, samples as a store, several stores as one.

All of it is done in memory that does not grow with the recording, but for samples, which hold the lives that run.
"""

from __future__ import annotations

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from townlet_train.data.episodes import EpisodeSpan, episodes_ended
from townlet_train.data.layout import Layout
from townlet_train.data.manifest import FORMAT_KEYS, SUFFIX, encode_manifest
from townlet_train.data.memmap import Store, stored_arrays
from townlet_train.data.plan import CapturePlan
from townlet_train.data.replay import SampleReplay
from townlet_train.data.sample_writer import SampleWriter
from townlet_train.data.schema import EpisodeKey
from townlet_train.data.storage import Sample
from townlet_train.data.store_writer import StoreWriter, write_final_features
from townlet_train.errors import DataError

Array = NDArray[Any]
DECISION = ("features", "maps", "action_mask", "actions")
OUTCOME = ("rewards", "terminated", "truncated")
AGENT = re.compile(r"agent(\d+)$")


def write_samples(
    stores: Sequence[Store],
    directory: Path,
    metadata: Mapping[str, Any],
    prefix: str,
    *,
    compress: bool = True,
) -> Path:
    """The lives of stores, as one capture, a sample each; returns the manifest."""
    plan = _plan(stores, prefix, compress=compress)
    repeated = sorted({seed for seed in plan.seeds if plan.seeds.count(seed) > 1})
    if repeated:
        raise DataError(
            f"Seed {repeated[0]} is there more than once, and samples are named by their seeds. Leave one out."
        )
    about = {key: value for key, value in metadata.items() if key not in FORMAT_KEYS}
    return _written(stores, SampleWriter(directory, plan), about)


def join_stores(stores: Sequence[Store], directory: Path, metadata: Mapping[str, Any], prefix: str) -> Path:
    """Stores of equal length side by side as one; returns the manifest."""
    return _written(stores, StoreWriter(directory, _plan(stores, prefix)), metadata)


def write_store(replay: SampleReplay, directory: Path, prefix: str) -> Path:
    """The samples of a capture as a large store; returns the manifest.

    Raises:
        DataError: they are no capture of ours, or do not cover every tick of every agent.
    """
    about = replay.capture
    if about is None:
        raise DataError(
            f"{replay.path} does not say at which ticks its samples were captured; only captures of townlet-train do."
        )
    shape = (about.ticks, about.n_envs, about.n_agents)
    layout = about.layout
    begins, spans = _placed(replay, about.ticks)
    filled = np.zeros(shape, np.bool_)
    arrays: dict[str, Array] = {}
    final: dict[tuple[int, int], Array] = {}
    for sample in replay.samples():
        if not arrays:
            arrays = _mapped(directory, layout, shape, with_maps=sample.trajectory.maps is not None)
        key, agent = _put(sample, begins, arrays, filled)
        if sample.trajectory.final_features is not None:
            unseen = np.full((about.n_agents, len(layout.feature_names)), np.nan, np.float32)
            final.setdefault((key.env, key.index), unseen)[agent] = sample.trajectory.final_features
    if not filled.all():
        raise DataError(
            f"{replay.path} covers {np.count_nonzero(filled)} of {filled.size} frames of its capture; expected all. "
            f"Convert the whole capture and split that."
        )
    ended = episodes_ended(
        arrays["terminated"].reshape(-1, about.n_agents), arrays["truncated"].reshape(-1, about.n_agents)
    ).reshape(shape[:2])
    episodes = [asdict(span) | {"complete": bool(ended[span.stop - 1, span.env])} for span in spans]
    rows = {name: _row(directory / f"{name}.npy", array) for name, array in arrays.items()}
    path = directory / f"{prefix}{SUFFIX}"
    seen = {place: rows for place, rows in final.items() if not np.isnan(rows).any()}
    body = {"arrays": rows, "episodes": episodes, **write_final_features(directory, spans, seen)}
    path.write_bytes(encode_manifest(replay.metadata, body))
    return path


def check_same_capture(stores: Sequence[Store]) -> None:
    """Raise `DataError` where stores cannot stand side by side, naming what differs."""
    first = stores[0]
    for store in stores:
        if not store.whole:
            raise DataError(f"{store.path} is a part of a store. Name the manifest of the whole.")
        for what, mine, other in (
            ("environment", first.layout.env_id, store.layout.env_id),
            ("features", first.layout.feature_names, store.layout.feature_names),
            ("actions", first.action_names, store.action_names),
            ("bounds of actions", first.layout.action_low, store.layout.action_low),
            ("bounds of actions", first.layout.action_high, store.layout.action_high),
            ("maps", "maps" in first.records, "maps" in store.records),
            ("ticks", first.shape[0], store.shape[0]),
            ("agents", first.shape[2], store.shape[2]),
        ):
            if mine != other:
                shown = "" if isinstance(mine, tuple) else f" ({mine} and {other})"
                raise DataError(f"{first.path} and {store.path} differ in {what}{shown}; expected the same.")


def _plan(stores: Sequence[Store], prefix: str, *, compress: bool = True) -> CapturePlan:
    check_same_capture(stores)
    first = stores[0]
    return CapturePlan(
        layout=first.layout,
        seeds=tuple(seed for store in stores for seed in seeds_of(store)),
        n_agents=first.shape[2],
        n_steps=first.shape[0],
        prefix=prefix,
        with_maps="maps" in first.records,
        compress=compress,
    )


def seeds_of(store: Store) -> list[int]:
    """(n_envs,): what each environment was reset with."""
    return [next(span.seed for span in store.episodes if span.env == env) for env in range(store.shape[1])]


def _written(
    stores: Sequence[Store], writer: SampleWriter | StoreWriter, metadata: Mapping[str, Any]
) -> Path:
    final = _final_features(stores)
    with closing(writer):
        for number, tick in enumerate(_ticks(stores)):
            decision = {name: tick[name] for name in DECISION if name in tick}
            unknown = {"maps": np.zeros(0, np.uint8), "action_mask": np.zeros(0, np.bool_)}
            writer.append_decision(**{**unknown, **decision})
            outcome = {name: tick[name] for name in OUTCOME}
            writer.append_outcome(**outcome, final_features=final.get(number, {}))
        return writer.finish(metadata)


def _final_features(stores: Sequence[Store]) -> dict[int, dict[int, Array]]:
    """What was seen last, (n_agents, n_features), by the episode's last tick and the number of its environment."""
    found: dict[int, dict[int, Array]] = defaultdict(dict)
    n_envs = 0
    for store in stores:
        for number, seen in store.final_features().items():
            span = store.episodes[number]
            found[span.stop - 1][n_envs + span.env] = seen
        n_envs += store.shape[1]
    return found


def _ticks(stores: Sequence[Store]) -> Iterator[dict[str, Array]]:
    """Tick by tick what every store holds, side by side: (n_envs, n_agents, ...)."""
    n_ticks = max(1, (1 << 15) // sum(store.shape[1] * store.shape[2] for store in stores))
    with ExitStack() as stack:
        blocks = [
            stack.enter_context(closing(store.ticks(n_frames=n_ticks * store.shape[1] * store.shape[2])))
            for store in stores
        ]
        for together in zip(*blocks, strict=True):
            parts = [ticks for _, ticks in together]
            joined = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
            for index in range(len(joined["actions"])):
                yield {name: np.ascontiguousarray(array[index]) for name, array in joined.items()}


def _placed(replay: SampleReplay, n_ticks: int) -> tuple[dict[tuple[int, int], int], list[EpisodeSpan]]:
    """The first tick of every episode by (environment, number), and all of them as spans, from the headers alone."""
    lengths: dict[int, dict[int, int]] = defaultdict(dict)
    seeds: dict[int, int] = {}
    for entry, header in zip(replay.manifest.entries, replay.headers, strict=True):
        key, start = header.episode, header.start_tick
        if key is None or key.seed is None or start is None or header.timesteps is None:
            raise DataError(
                f"{entry.metadata} does not say of which seed and ticks its sample is, so it has no place in a store."
            )
        stop = start + header.timesteps
        lengths[key.env][key.index] = max(lengths[key.env].get(key.index, 0), stop)
        seeds[key.env] = key.seed
    begins: dict[tuple[int, int], int] = {}
    spans: list[EpisodeSpan] = []
    for env, episodes in sorted(lengths.items()):
        begin = 0
        for index, length in sorted(episodes.items()):
            begins[env, index] = begin
            spans.append(EpisodeSpan(env, index, seeds[env], begin, begin + length, complete=True))
            begin += length
        if begin != n_ticks:
            raise DataError(
                f"{replay.path} holds {begin} ticks of environment {env}, its capture has {n_ticks}; expected all. "
                f"Convert the whole capture and split that."
            )
    return begins, spans


def _put(
    sample: Sample,
    begins: Mapping[tuple[int, int], int],
    arrays: Mapping[str, Array],
    filled: NDArray[np.bool_],
) -> tuple[EpisodeKey, int]:
    """Write a sample to its place in the arrays; returns its episode and whose life it is."""
    key, agent = sample.episode, AGENT.search(sample.agent_id or "")
    start = sample.metadata["episode"]["start_tick"]
    if key is None or agent is None or int(agent[1]) >= filled.shape[2] or key.env >= filled.shape[1]:
        raise DataError(
            f"{sample.path} does not say whose life it is ({sample.agent_id!r}). Capture it again."
        )
    begin = begins[key.env, key.index] + start
    place = (slice(begin, begin + sample.trajectory.n_steps), key.env, int(agent[1]))
    for name, array in arrays.items():
        array[place] = getattr(sample.trajectory, name)
    filled[place] = True
    return key, int(agent[1])


def _mapped(
    directory: Path, layout: Layout, shape: tuple[int, int, int], *, with_maps: bool
) -> dict[str, Array]:
    """New arrays of a store on disk, that pages of are in memory only while they are written."""
    return {
        name: np.lib.format.open_memmap(directory / f"{name}.npy", "w+", dtype, (*shape, *tail))
        for name, (tail, dtype) in stored_arrays(layout, with_maps=with_maps).items()
    }


def _row(path: Path, array: Array) -> dict[str, Any]:
    """What the manifest says about an array that was written."""
    checksum = 0
    for tick in array:
        checksum = zlib.crc32(tick.tobytes(), checksum)
    if isinstance(array, np.memmap):
        array.flush()
    return {
        "file": path.name,
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "bytes": path.stat().st_size,
        "crc32": f"{checksum:08x}",
    }
