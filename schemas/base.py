"""Base classes of models: our own messages and settings are read strictly, messages of others tolerantly."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer


class Strict(BaseModel):
    """A message of this project: an unknown field or a wrong type is reported as the sender's mistake."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Tolerant(BaseModel):
    """A message that others define. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, populate_by_name=True)


class Section(BaseModel):
    """A table of the configuration. An unknown key is an error. The docstring below a field says what it means."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def iso(moment: datetime) -> str:
    """Format a time as ISO 8601 with offset, as all messages have it."""
    return moment.isoformat()


Time = Annotated[AwareDatetime, PlainSerializer(iso, return_type=str)]
"""A moment: ISO 8601 in UTC with offset."""

MAX_SECONDS = 604_800
"""A week, the longest that a duration on the wire may be."""

Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]
"""A duration in seconds: greater than 0, at most a week."""

Json = dict[str, Any]
