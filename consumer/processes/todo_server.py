"""A todo list that lasts as long as its session: ``python -m consumer.processes.todo_server``.

The server that comes with the worker, for the demo and for trying things out. It is written as anybody would write a
server on the SDK, and imports nothing else of this project.
"""

from typing import Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from pydantic import BaseModel, ValidationError


class Todo(BaseModel):
    """One thing to do."""

    id: int
    text: str
    done: bool = False


class TodoList(BaseModel):
    """The whole list, and how much of it is left to do."""

    todos: list[Todo]
    open: int


class TodoServer(MCPServer):
    """An MCP server whose tools fail with a sentence that an agent can say."""

    async def call_tool(self, *arguments: Any, **more: Any) -> Any:
        """Call a tool. An error has the tool's own message, without the words that the SDK puts before it."""
        try:
            return await super().call_tool(*arguments, **more)
        except UnexpectedToolError:
            raise
        except ToolError as error:
            cause = error.__cause__
            told = _sentence(cause) if isinstance(cause, ValidationError) else str(cause or error)
            raise ToolError(told) from cause


def _sentence(fault: ValidationError) -> str:
    """What is wrong with arguments, for people."""
    return " ".join(
        f"The {'.'.join(map(str, one['loc']))} is {'missing' if one['type'] == 'missing' else 'not valid'}."
        for one in fault.errors()
    )


server = TodoServer("todo", instructions="A todo list for this call. It is forgotten when the call ends.")
todos: dict[int, Todo] = {}
last_id = 0


def _the(todo_id: int) -> Todo:
    if todo_id not in todos:
        ids = f"has {', '.join(map(str, todos))}" if todos else "is empty"
        raise ToolError(f"There is no todo {todo_id}. The list {ids}.")
    return todos[todo_id]


def _all() -> TodoList:
    return TodoList(todos=list(todos.values()), open=sum(not todo.done for todo in todos.values()))


@server.tool()
def add_todo(text: str) -> Todo:
    """Add something to the list. Returns it with the id that the other tools want."""
    global last_id  # noqa: PLW0603 - the process is the session, and this its state
    if not text.strip():
        raise ToolError("What is there to do? The text is empty.")
    last_id += 1
    todos[last_id] = Todo(id=last_id, text=text.strip())
    return todos[last_id]


@server.tool()
def list_todos() -> TodoList:
    """The whole list, in the order in which it was written."""
    return _all()


@server.tool()
def complete_todo(id: int) -> Todo:  # noqa: A002 - the name that callers see
    """Mark something as done."""
    _the(id).done = True
    return todos[id]


@server.tool()
def delete_todo(id: int) -> TodoList:  # noqa: A002 - the name that callers see
    """Remove a todo from the list, done or not. Returns the remaining ones."""
    _the(id)
    del todos[id]
    return _all()


@server.tool()
def clear_todos() -> TodoList:
    """Empty the list. Returns the empty list."""
    todos.clear()
    return _all()


if __name__ == "__main__":
    server.run()
