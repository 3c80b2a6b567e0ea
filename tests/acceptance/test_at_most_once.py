"""Two thousand random calls, with servers that die under them and keys that are repeated: none is executed twice."""

import asyncio
import random
from collections import Counter

from schemas.errors import SessionsError
from tests.harness import ECHO, Cluster

CALLS = 2_000
PHONES = 12


async def test_two_thousand_calls_with_deaths_and_duplicates_execute_each_key_at_most_once(mcp: Cluster):
    unlimited = {"kind": "none"}  # the server writes outside its own folder here
    await mcp.start({"services": {"echo": {"command": ECHO, "sandbox": unlimited, "max_calls": 64}}})
    ledger = mcp.folder / "executed"
    ledger.touch()
    chance = random.Random(11)
    outcomes: Counter[str] = Counter()
    answered: set[str] = set()
    room = asyncio.Semaphore(60)

    async def use(phone: int, key: str, *, die: bool) -> None:
        async with room:
            try:
                answer = await mcp.client.call_tool(
                    f"phone-{phone}",
                    "append",
                    {"path": str(ledger), "line": key, "die": die},
                    service_name="echo",
                    idempotency_key=key,
                    timeout=60,
                )
            except SessionsError as error:
                outcomes[type(error).__name__] += 1
            else:
                assert answer.text == key
                outcomes["answered"] += 1
                answered.add(key)

    keys = [f"key-{number}" for number in range(CALLS * 3 // 4)]
    work = [(key, chance.random() <= 0.03) for key in keys]
    repeated = [(key, die) for key, die in work if chance.random() < 1 / 3]
    plan = work + repeated
    chance.shuffle(plan)
    phones = {key: chance.randrange(PHONES) for key in keys}
    await asyncio.gather(*(use(phones[key], key, die=die) for key, die in plan))

    executed = Counter(ledger.read_text().split())
    print(f"{len(plan)} calls, {len(executed)} keys executed, outcomes: {dict(outcomes)}")  # noqa: T201
    assert executed.most_common(1)[0][1] == 1, "a key was executed twice"
    assert answered <= set(executed)
    assert set(outcomes) <= {"answered", "OutcomeUnknown", "SessionDied", "SessionNotFound"}
    assert outcomes["OutcomeUnknown"] > 20
    assert len(mcp.of("died")) > 20
