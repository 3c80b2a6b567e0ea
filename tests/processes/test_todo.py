"""The server that comes with the worker."""

from consumer.processes.client.era import Era

from .helpers import Start, structured, text

COMMAND = ["python3", "-m", "consumer.processes.todo_server"]
MISTAKES: list[tuple[str, dict[str, object], str]] = [
    ("complete_todo", {"id": 9}, "There is no todo 9. The list has 1, 2."),
    ("delete_todo", {"id": 9}, "There is no todo 9. The list has 1, 2."),
    ("add_todo", {"text": " "}, "What is there to do? The text is empty."),
    ("add_todo", {}, "The text is missing."),
    ("complete_todo", {"id": "soon"}, "The id is not valid."),
]
"""Calls with a list of two todos, and what is told of each."""


async def test_a_list_for_a_call(start: Start) -> None:
    client = await start(command=COMMAND)
    assert [tool["name"] for tool in client.tools] == [
        *("add_todo", "list_todos", "complete_todo", "delete_todo", "clear_todos"),
    ]
    assert all(tool["description"] and tool["outputSchema"] for tool in client.tools)
    assert structured(await client.call_tool("add_todo", {"text": " milk "})) == {
        "id": 1,
        "text": "milk",
        "done": False,
    }
    await client.call_tool("add_todo", {"text": "bread"})
    assert structured(await client.call_tool("complete_todo", {"id": 1}))["done"] is True
    listed = structured(await client.call_tool("list_todos"))
    assert [todo["text"] for todo in listed["todos"]] == ["milk", "bread"]
    assert listed["open"] == 1
    assert len(structured(await client.call_tool("delete_todo", {"id": 1}))["todos"]) == 1
    assert structured(await client.call_tool("clear_todos")) == {"todos": [], "open": 0}
    assert structured(await client.call_tool("add_todo", {"text": "eggs"}))["id"] == 3  # ids are not used twice


async def test_mistakes_are_told_in_a_sentence(start: Start) -> None:
    client = await start(command=COMMAND)
    assert text(await client.call_tool("complete_todo", {"id": 1})) == "There is no todo 1. The list is empty."
    for todo in ("milk", "bread"):
        await client.call_tool("add_todo", {"text": todo})
    for tool, arguments, told in MISTAKES:
        result = await client.call_tool(tool, arguments)
        assert result["isError"] is True, told
        assert text(result) == told


async def test_it_speaks_both_eras(start: Start) -> None:
    client = await start(command=COMMAND)
    assert client.era is Era.MODERN
