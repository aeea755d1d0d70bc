"""What is known of a capture before its first tick; both stores are written from it."""

from __future__ import annotations

from dataclasses import dataclass

from townlet_train.data.layout import Layout


@dataclass(frozen=True)
class CapturePlan:
    """The shape and the names of a capture."""

    layout: Layout
    seeds: tuple[int, ...]  # one per environment
    n_agents: int
    n_steps: int
    prefix: str
    with_maps: bool
    compress: bool

    @property
    def n_envs(self) -> int:
        return len(self.seeds)

    @property
    def n_frames(self) -> int:
        """Agent-ticks."""
        return self.n_steps * self.n_envs * self.n_agents
