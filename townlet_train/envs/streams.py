"""Named random streams: one seed, one stream per purpose, none of them global."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

TICKS_AT_ONCE = 64  # drawn together; the numbers do not depend on it


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator for one purpose of a run or an environment, e.g. "training", "policy".

    Streams of different names or seeds are independent; the same pair gives the same numbers for ever.
    """
    return np.random.Generator(np.random.PCG64(_sequence(seed, name)))


def policy_uniforms(seeds: Sequence[int], shape: tuple[int, ...]) -> Iterator[NDArray[np.float64]]:
    """Uniforms (n_envs, *shape), tick after tick without end; row i is of the "policy" stream of `seeds[i]` alone."""
    streams = [stream(int(seed), "policy") for seed in seeds]
    while True:
        yield from np.stack([own.random((TICKS_AT_ONCE, *shape)) for own in streams], axis=1)


def stream_word(seed: int, name: str) -> int:
    """64 bits of the named stream, to start a counter-based generator inside a compiled kernel."""
    return int(_sequence(seed, name).generate_state(1, np.uint64)[0])


def _sequence(seed: int, name: str) -> np.random.SeedSequence:
    """The seed sequence keyed by the seed and the name's hash."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    return np.random.SeedSequence([seed, key])
