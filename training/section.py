"""What every section of a recipe is: closed to unknown keys, immutable, finite."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
