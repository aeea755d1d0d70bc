"""What went from or to a Minari dataset."""

from __future__ import annotations

from pydantic import Field

from townlet_train.results.base import ResultDTO


class MinariDTO(ResultDTO):
    """A Minari dataset and the recording it was made of, or made into."""

    dataset: str = Field(description="its id in the local Minari database")
    recording: str = Field(description="the recording")
    env: str = Field(description="environment id")
    episodes: int
    frames: int = Field(description="transitions written")
    left_out: int = Field(description="last actions of lives, where nothing was recorded after them")
