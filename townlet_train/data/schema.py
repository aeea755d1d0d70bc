"""What the documents of a recording may say, as strict types: the manifests we write and the JSON beside a sample.

JSON has no defaults of its own here: a key that is missing, of another type or out of range is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    Strict,
    ValidationError,
    model_validator,
)

from townlet_train.data.layout import Layout
from townlet_train.errors import DataError

Model = TypeVar("Model", bound=BaseModel)


def _all_different(items: tuple[Any, ...]) -> tuple[Any, ...]:
    repeated = [item for item in dict.fromkeys(items) if items.count(item) > 1]
    if repeated:
        raise ValueError(f"expected each once, {repeated[0]!r} is there more than once")
    return items


MOST = 1 << 40  # more than any recording counts, and few enough for every NumPy integer
Count = Annotated[int, Field(ge=0, le=MOST)]
Size = Annotated[int, Field(ge=1, le=MOST)]
Seed = Annotated[int, Field(ge=0, lt=1 << 64)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
# A JSON array is a list; only the tuple itself is lax, what is in it stays strict.
Listing = Strict(False)
Names = Annotated[tuple[str, ...], Listing, AfterValidator(_all_different)]
Limits = Annotated[tuple[FiniteFloat | None, ...], Listing]  # None: unbounded


class Strictly(BaseModel):
    """No coercion and no change afterwards."""

    model_config = ConfigDict(strict=True, frozen=True)


class Bounded(Strictly):
    """Whose actions may be vectors within bounds; without any they are indices."""

    action_low: Limits = ()  # (n_dimensions,)
    action_high: Limits = ()

    @model_validator(mode="after")
    def _from_low_to_high(self) -> Self:
        low, high = self.limits
        if len(low) != len(high):
            raise ValueError(f"action_low has {len(low)} bounds, action_high {len(high)}, expected as many")
        if any(least > most for least, most in zip(low, high, strict=True)):
            raise ValueError("a bound of action_low is above that of action_high")
        return self

    @property
    def limits(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The lowest and the highest values of a vector, infinite where nothing bounds them; empty of indices."""
        low = tuple(-inf if least is None else least for least in self.action_low)
        return low, tuple(inf if most is None else most for most in self.action_high)


class CaptureMetadata(Bounded):
    """What our manifests say of a capture as a whole, as far as readers rely on it."""

    format_version: int
    env_id: str
    policy: str
    ticks: Size
    n_envs: Size
    n_agents: Size
    feature_names: Names
    action_names: Names
    map_channels: Names
    map_size: Count

    @model_validator(mode="after")
    def _names_or_bounds(self) -> Self:
        if bool(self.action_names) == bool(self.action_low):
            raise ValueError(
                "expected names of actions, or else bounds of vectors, action_low and action_high"
            )
        return self

    @property
    def layout(self) -> Layout:
        """The names of what was captured."""
        names = self.feature_names, self.action_names, self.map_channels
        return Layout(*names, self.map_size, self.env_id, *self.limits)


class EpisodeRow(Strictly):
    """Ticks [start, stop) of one environment that belong to one episode."""

    env: Count
    index: Count
    seed: Seed
    start: Count
    stop: Count
    complete: bool


class ArrayRow(Strictly):
    """One array of a large store."""

    file: str
    dtype: str
    shape: Annotated[tuple[Count, ...], Listing]
    bytes: Count
    crc32: Annotated[str, Field(pattern="^[0-9a-f]{8}$")]


class FinalRow(ArrayRow):
    """The array of what was seen last, (n_rows, n_agents, n_features), and whose episode each row is of."""

    episodes: Annotated[tuple[Count, ...], Listing, AfterValidator(_all_different)]  # (n_rows,)


class StoreManifest(Strictly):
    """The manifest of a large store."""

    metadata: CaptureMetadata
    arrays: dict[str, ArrayRow]
    final_features: FinalRow | None = None  # None in stores that do not hold what was seen last
    episodes: Annotated[tuple[EpisodeRow, ...], Listing, Field(min_length=1)]
    selected: (
        Annotated[tuple[Count, ...], Listing, Field(min_length=1), AfterValidator(_all_different)] | None
    ) = None  # numbers of the episodes that are part of the dataset; None: all of them


class SampleRow(Strictly):
    """One entry of a manifest, in any dialect that names samples by objects."""

    sample: str
    meta: str | None = None
    accepted: bool = True
    sha256: Sha256 | None = None  # of the sample's bytes, in captures of ours
    meta_sha256: Sha256 | None = None  # of its JSON


class SampleManifest(Strictly):
    """The manifest of a capture of samples."""

    metadata: CaptureMetadata
    samples: Annotated[tuple[SampleRow, ...], Listing, Field(min_length=1)]


class EpisodeKey(Strictly):
    """Which town-episode a trajectory is part of; frames of one never stand on both sides of a split."""

    env: Count  # number of the environment within its capture
    index: Count  # number of the episode within that environment
    seed: Seed | None  # what the environment was reset with; None where nobody wrote it down


class SampleMetadata(Bounded):
    """What the JSON beside a sample says, ours or Townlet's, but for the names of its axes."""

    format: str | None = None
    format_version: int | None = None
    env_id: str | None = None
    agent_id: str | None = None
    timesteps: Size | None = None
    placeholder_arrays: Names = ()
    action_lookup: dict[str, int] | None = None
    episode: EpisodeKey | None = None  # None in files that do not say


def check_document(model: type[Model], document: Any, where: str) -> Model:
    """`document` as `model`; `DataError` says which key of what `where` names is wrong, and what was expected."""
    if not isinstance(document, Mapping):
        raise DataError(f"{where} is a {type(document).__name__}; expected an object.")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise DataError(f"{where}: {_problem(error)}.") from error


def check_format(document: Mapping[str, Any], name: str, version: int, path: Path) -> bool:
    """Whether `document` says it is of the format `name`; raises `DataError` when it is of another version."""
    if document.get("format") != name:
        return False
    if document.get("format_version") != version:
        raise DataError(
            f"{path} has format version {document.get('format_version')!r}; this release reads {version}. "
            f"Update townlet-train or capture it again."
        )
    return True


def _problem(error: ValidationError) -> str:
    """The first thing pydantic refused, as most of a sentence."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"the key `{key}` is missing"
    expected = first["msg"].removeprefix("Value error, ").replace("Input should", "it should", 1)
    expected = expected.replace("tuple", "list").replace("dictionary", "object")
    return f"`{key}` is {first['input']!r:.60}; {expected}"
