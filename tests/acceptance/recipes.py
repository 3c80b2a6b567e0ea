"""Recipes as a worker writes them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from consumer.broker.message import CALL_HEADER, Message
from schemas.ids import CallId, ServiceName, SessionId, WorkerId, call_id_of
from schemas.internal import Recipe, SessionRecipe


def recipe_of(
    worker_id: str, *names: str, at: datetime, revision: int = 1, metadata: Mapping[str, Any] | None = None
) -> Message:
    """The recipe of a call with these sessions of the service ``echo``, all opened at that time."""
    sessions = [
        SessionRecipe(
            session_id=SessionId(name),
            service_name=ServiceName("echo"),
            created_at=at,
            last_accessed=at,
            timeout=60.0,
            metadata=dict(metadata or {}),
            life=f"life-{number}",
        )
        for number, name in enumerate(names, 1)
    ]
    call_id = CallId(call_id_of(names[0]))
    recipe = Recipe(call_id=call_id, worker_id=WorkerId(worker_id), revision=revision, sessions=sessions)
    return Message(recipe.model_dump_json().encode(), type=Recipe.type, headers={CALL_HEADER: call_id})
