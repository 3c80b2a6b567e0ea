"""Lists and results of MCP servers, as a client reads them: with the names of the MCP specification, tolerantly.

A worker passes results on unchanged. These models name only the fields that a client needs. All other fields are kept
as attributes, and ``model_dump(by_alias=True, exclude_unset=True)`` returns the object as it came.
"""

from typing import Any, Literal

from pydantic import ConfigDict, Field

from schemas.base import Json, Tolerant


class _Handed(Tolerant):
    """An object of MCP, passed on unchanged."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)


class Tool(_Handed):
    """A tool as its server lists it; ``input_schema`` is the JSON Schema of its arguments."""

    name: str
    title: str | None = None
    description: str | None = None
    input_schema: Any = Field(default=None, alias="inputSchema")
    output_schema: Any = Field(default=None, alias="outputSchema")
    annotations: Any = None


class Resource(_Handed):
    """A resource as its server lists it."""

    uri: str
    name: str = ""
    title: str | None = None
    description: str | None = None
    mime_type: str | None = Field(default=None, alias="mimeType")
    size: int | None = None


class ResourceTemplate(_Handed):
    """A template of resources as its server lists it; ``uri_template`` is one of RFC 6570."""

    uri_template: str = Field(alias="uriTemplate")
    name: str = ""
    title: str | None = None
    description: str | None = None
    mime_type: str | None = Field(default=None, alias="mimeType")


class ResourceContents(_Handed):
    """The contents of a resource: ``text``, or ``blob`` in base64."""

    uri: str
    mime_type: str | None = Field(default=None, alias="mimeType")
    text: str | None = None
    blob: str | None = None


class PromptArgument(_Handed):
    """An argument of a prompt."""

    name: str
    description: str | None = None
    required: bool | None = None


class Prompt(_Handed):
    """A prompt as its server lists it."""

    name: str
    title: str | None = None
    description: str | None = None
    arguments: list[PromptArgument] | None = None


class PromptMessage(_Handed):
    """A message of a prompt; ``content`` is one content block of MCP."""

    role: Literal["user", "assistant"]
    content: Json


class ListToolsResult(_Handed):
    """Every tool of a session or a service."""

    tools: list[Tool]


class ListResourcesResult(_Handed):
    """One page of a session's resources; ``next_cursor`` asks for the next one."""

    resources: list[Resource]
    next_cursor: str | None = Field(default=None, alias="nextCursor")


class ListResourceTemplatesResult(_Handed):
    """One page of a session's resource templates; ``next_cursor`` asks for the next one."""

    resource_templates: list[ResourceTemplate] = Field(alias="resourceTemplates")
    next_cursor: str | None = Field(default=None, alias="nextCursor")


class ListPromptsResult(_Handed):
    """One page of a session's prompts; ``next_cursor`` asks for the next one."""

    prompts: list[Prompt]
    next_cursor: str | None = Field(default=None, alias="nextCursor")


class Completion(_Handed):
    """Values that complete an argument. ``total`` may be larger than the number of values here."""

    values: list[str]
    total: int | None = None
    has_more: bool | None = Field(default=None, alias="hasMore")


class CompleteResult(_Handed):
    """The result of ``completion/complete``."""

    completion: Completion


class _MayAsk(_Handed):
    result_type: str = Field(default="complete", alias="resultType")
    input_requests: Json | None = Field(default=None, alias="inputRequests")
    request_state: str | None = Field(default=None, alias="requestState")


class ReadResourceResult(_MayAsk):
    """The contents of a resource; with ``result_type`` ``input_required`` the server's questions instead."""

    contents: list[ResourceContents] = Field(default_factory=list)


class GetPromptResult(_MayAsk):
    """A prompt with its arguments filled in; with ``result_type`` ``input_required`` the server's questions instead."""

    description: str | None = None
    messages: list[PromptMessage] = Field(default_factory=list)
