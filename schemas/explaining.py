"""Pydantic's errors as sentences that name the fields of a message."""

from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.base import Json
from schemas.text import problem_of, unknown_field


def explain(error: ValidationError, model: type[BaseModel]) -> tuple[str, list[Json]]:
    """Return a validation error of a model as one sentence that names the fields, and as a list for programs."""
    known = [field.serialization_alias or name for name, field in model.model_fields.items()]
    faults: list[dict[str, Any]] = [
        {
            "field": ".".join(str(part) for part in fault["loc"]) or "body",
            "problem": unknown_field(str(fault["loc"][0]), known)
            if fault["type"] == "extra_forbidden" and len(fault["loc"]) == 1
            else problem_of(fault["msg"]),
        }
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    return "; ".join(f"{fault['field']}: {fault['problem']}" for fault in faults), faults
