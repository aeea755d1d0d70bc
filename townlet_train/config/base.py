"""What every model of settings is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, model_validator

LARGEST_INT = 2**31 - 1  # counts and ticks; seeds have their own limit
LARGEST_SEED = 2**63 - 1


class ConfigModel(BaseModel):
    """Frozen; an unknown key is an error, and so is a number nobody can count to."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _countable(self) -> ConfigModel:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name != "seed" and isinstance(value, int) and value > LARGEST_INT:
                raise ValueError(f"{name} is {value}, at most {LARGEST_INT} is possible")
        return self
