"""Orders of events that are written down, not drawn: what leads to what cannot be guaranteed, by name.

They show what ``docs/concepts.md`` says of it, whatever a change does to the order that a seed leads to. Others were
holes once; they are open again with the mistake that ``MENDED`` names. A few seeds of each, because what takes how long
is still drawn.
"""

from tests.simulation.handling_orders import HANDLING, MENDED_IN_HANDLING
from tests.simulation.order_steps import ALONE, SIX_CALLS, aim
from tests.simulation.world.plan import Conditions, Plan

ORDERS = HANDLING | {
    "closed by command": Plan(
        seed=1,
        conditions=ALONE,
        # Its recipe expires a second after the link has gone, and is two more on its way to the placer.
        calls={"c0": ((2.0, "start", {"to": "1"}), (7.5, "close", {}))},
        faults=(
            (5.0, "cut", {"which": 0, "how": "both", "away": 1.8}),
            (7.7, "kill", {"which": 0, "again": 0.5}),
        ),
    ),
    "closed while its recipe was away": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # The owner has a link again, and answers the command. Its recipes are with RabbitMQ until 8.0.
        calls={name: (*steps, (6.75, "close", {})) for name, steps in SIX_CALLS.items()},
        faults=(
            (5.0, "cut", {"which": 0, "how": "both", "away": 0.7}),
            (6.98, "kill", {"which": 0, "again": None}),
        ),
    ),
    "closed while another worker had opened it cut off": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # The start becomes an orphan, and the next owner has it at 8.1. That one closes the session and gives the call
        # up before the first one is back.
        calls={"c0": ((2.0, "start", {"to": "1"}), (9.0, "close", {}))},
        faults=(aim("deliver call.started placed", "cut", delay=0.02, how="both", away=8.0, sharp=True),),
    ),
    "a start that waited for longer than the tombstone": Plan(
        seed=1,
        conditions=ALONE,
        calls={"c0": ((2.0, "start", {"to": "1"}), (4.0, "end", {}), (5.0, "start", {"to": "1"}))},
        # Nobody takes it before the broker can be reached again.
        faults=((4.5, "cut", {"which": 0, "how": "both", "away": 10.0}),),
    ),
    "ended while its recipe was away": Plan(
        seed=1,
        conditions=ALONE,
        # The owner has a link again, and answers the end. Its recipe is with RabbitMQ until 7.0.
        calls={"c0": ((2.0, "start", {"to": "1"}), (5.5, "end", {}))},
        faults=(
            (5.0, "cut", {"which": 0, "how": "both", "away": 0.0}),
            (6.3, "kill", {"which": 0, "again": 0.5}),
        ),
    ),
    "a tool call whose placer lost its acknowledgement": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        calls={"c0": ((2.0, "tool", {"service": "echo"}),)},
        faults=(
            # The placer sends it on, and RabbitMQ gives it to the next one, who is slow.
            aim("ack tools.call resent", "cut", before=True, only=True, how="both", away=0.0, sharp=True),
            aim("deliver tools.call resent again", "stall", lasts=1.3),
            # Its owner executes it, answers, and dies.
            aim("tools.call.reply", "kill", sharp=True),
        ),
    ),
    "a tool call whose owner lost its acknowledgement": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # Its owner executes it, and has it again over the next link.
        calls={"c0": ((2.0, "tool", {"service": "echo"}),)},
        faults=(aim("ack tools.call placed", "cut", before=True, only=True, how="both", away=0.0, sharp=True),),
    ),
    "killed while its tool call runs": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        calls={"c0": ((2.0, "tool", {"service": "echo", "takes": 1.0}),)},
        faults=(aim("deliver tools.call placed", "kill", delay=0.6, sharp=True),),
    ),
    "killed when nobody wants anything": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # Nothing but its orphans makes the placer ask who lives.
        calls=SIX_CALLS,
        faults=((5.0, "kill", {"which": 0, "again": None}),),
    ),
    "a message comes through the binding before the one placed": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # The call's progress is at its owner 0.2 s before its start.
        calls={"c0": ((2.0, "start", {"to": "1"}),)},
        faults=(aim("bind", "slow", lasts=0.3), aim("bind", "progress", delay=0.1)),
    ),
    "a message that is returned before the one placed has come": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # The call's progress is at its owner 0.8 s before its start, and waits for half a second.
        calls={"c0": ((2.0, "start", {"to": "1"}),)},
        faults=(aim("bind", "slow", lasts=0.9), aim("bind", "progress", delay=0.1)),
    ),
    "killed between created and terminal": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        calls={"c0": ((2.0, "start", {"to": "2"}),)},
        faults=(
            # One server dies while the other one starts: there is no recipe yet.
            *((2.02 + 0.005 * step, "server dies", {"which": which}) for step in range(60) for which in (1,)),
            aim("mcp.session.created", "kill", sharp=True),
        ),
    ),
    "killed before its recipes are written anew": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # Each new recipe waits behind an event that RabbitMQ does not take. The old ones come back at 10.1.
        calls=SIX_CALLS | {f"late{number}": ((7.95, "start", {"to": "1"}),) for number in range(4)},
        faults=(
            (7.9, "events wait", {"which": 0, "lasts": 5.0}),
            (8.05, "cut", {"which": 0, "how": "both", "away": 0.3}),
            (11.0, "kill", {"which": 0, "again": None}),
        ),
    ),
    "leaves its recipes to a placer that has not got them": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # RabbitMQ gives the recipes up at 8.2, finds no queue for them, and tries again after three minutes. The calls
        # end at 13.0, without their owner. It gives them up when it is back, at 16.0.
        calls={name: (*steps, (10.0, "end", {})) for name, steps in SIX_CALLS.items()},
        faults=(
            (7.99, "freeze", {"which": 0, "lasts": 8.0}),
            (8.0, "restart broker", {"which": 0, "down": 0.2, "late": {"mcp.orphans": 1.0}}),
            (18.0, "leave", {"which": 0}),
        ),
    ),
    "told over a link that RabbitMQ has given up": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # Its session is idle four seconds after its start. By then its recipe is an orphan, and it does not know.
        calls={"c0": ((2.0, "start", {"to": "3"}),)},
        faults=(aim("deliver call.recipe", "cut", delay=2.9, only=True, how="server", away=0.0, sharp=True),),
    ),
    "back when its sessions were told lost": Plan(
        seed=1,
        # Its recipes find no room elsewhere. It is back at 12.0, and RabbitMQ has no recipe of it any more.
        conditions=Conditions(workers=2, room=2, late=0.0),
        calls={
            name: ((2.0 + 0.3 * number, "start", {"to": "1"}), *(((14.0, "end", {}),) if number < 2 else ()))
            for number, name in enumerate(("c0", "c1", "c2", "c3"))
        },
        faults=((5.0, "cut", {"which": 0, "how": "both", "away": 6.0}),),
    ),
    "a connection that RabbitMQ has not given up gets recipes": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # The owner has a new link, and its inbox two consumers. RabbitMQ gives the old one up from 8.0 on. Of the calls
        # between, some recipes are with it, and become orphans then.
        calls={"c0": ((2.0, "start", {"to": "1"}),)}
        | {f"c{number}": ((3.5 + 0.1 * number, "start", {"to": "1"}), (5.5, "end", {})) for number in range(1, 17)},
        faults=(
            aim("deliver call.recipe", "cut", only=True, how="client", away=0.0),
            (6.5, "kill", {"which": 1, "again": None}),
        ),
    ),
    "a recipe whose confirmation is lost": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # RabbitMQ has the recipe, and a placer gets it. The worker does not know, and is back after six seconds. By
        # then its session is over.
        calls={"c0": ((2.0, "start", {"to": "3"}),)},
        faults=(aim("call.recipe", "cut", how="server", away=0.0, sharp=True),),
    ),
    "a late message of a dead worker": Plan(
        seed=1,
        conditions=Conditions(workers=4, late=0.0),
        # Its recipes reach the placer at 8.0, which places the calls elsewhere. By then its inbox has their progress,
        # which the next placer gets at 9.8, and that one has placed none of them.
        calls={
            f"c{number}": ((2.0 + 0.05 * number, "start", {"to": "1"}), (6.8, "progress", {"to": "1"}))
            for number in range(20)
        },
        faults=((5.0, "kill", {"which": 1, "again": None}), (8.6, "kill", {"placer": True, "again": None})),
    ),
    "killed before its ends are told": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # RabbitMQ does not take the events before 12.0, and by then it has lost those of the dead worker.
        calls={name: (*steps, (8.0, "end", {})) for name, steps in SIX_CALLS.items()},
        faults=(
            (7.5, "events wait", {"which": 0, "lasts": 4.5}),
            (9.0, "kill", {"which": 0, "again": None}),
        ),
    ),
    "killed when it tells what ended meanwhile": Plan(
        seed=1,
        conditions=ALONE,
        # RabbitMQ does not get the recipe. The session is idle after four seconds, and the worker is back after six.
        calls={"c0": ((2.0, "start", {"to": "3"}),)},
        faults=(
            aim("call.recipe", "cut", before=True, only=True, how="both", away=6.0, sharp=True),
            aim("mcp.session.created", "kill", sharp=True, again=0.5),
        ),
    ),
    "killed while it comes back": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # It counts as dead when its recipes reach the placer, at 10.07. Before the placer has unbound its calls, it has
        # reported; so its recipes are sent again, for another worker may own the calls. Then it is dead after all.
        calls=SIX_CALLS,
        faults=(
            (8.0, "cut", {"which": 0, "how": "both", "away": 0.0}),
            (8.001, "freeze", {"which": 0, "lasts": 2.1}),
            (10.1, "freeze", {"which": 0, "placer": True, "lasts": 0.88}),
            (10.4, "kill", {"which": 0, "again": None}),
        ),
    ),
    "back while its calls are taken away": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # It counts as dead when its recipes reach the placer. The placer has taken one call away when its links become
        # slow. Before it takes the next one away, the worker is back, asks for that call, and gets its own answer.
        calls=SIX_CALLS,
        faults=(
            (8.0, "cut", {"which": 0, "how": "both", "away": 0.0}),
            (8.001, "freeze", {"which": 0, "lasts": 20.0}),
            aim("unbind", "slow", lasts=1.5),
            aim("unbind", "come back", delay=0.1),
        ),
    ),
    "asked while a former owner cannot publish and does not know it": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # Its recipe is an orphan from 7.2 on. It has a link again and reports, and RabbitMQ closes the connection on
        # which it publishes. The placer handles the orphan at 9.45, asks, and takes the worker for dead at 11.1. The
        # worker notices its loss at 13.4 at the earliest.
        calls={"c0": ((2.0, "start", {"to": "1"}), *((11.8 + 0.4 * number, "tool", {}) for number in range(5)))},
        faults=(
            aim("call.recipe", "freeze", delay=3.0, lasts=2.0),
            aim("call.recipe", "cut", skip=1, delay=0.3, only=True, how="server", away=0.0, sharp=True),
            (8.6, "stall", {"which": 0, "placer": True, "lasts": 0.85}),
        ),
    ),
    "suspended when its call was restored without its end": Plan(
        seed=1,
        conditions=ALONE,
        # It has a link again, answers the end, and stands still. Its recipe is with RabbitMQ until 7.0. The worker that
        # starts then has heard of no end, and restores the call when the tombstone is over.
        calls={"c0": ((2.0, "start", {"to": "1"}), (5.5, "end", {}))},
        faults=(
            (5.0, "cut", {"which": 0, "how": "both", "away": 0.0}),
            (6.3, "freeze", {"which": 0, "lasts": 20.0}),
            (6.4, "add", {}),
        ),
    ),
    "suspended while those who saw the end and a newcomer change": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # One worker answers the end and is killed. The other has heard of it, and stands still when a third one starts.
        calls=SIX_CALLS | {name: (*steps, (5.5, "end", {})) for name, steps in SIX_CALLS.items()},
        faults=(
            (5.0, "cut", {"which": 0, "how": "both", "away": 0.0}),
            (6.3, "freeze", {"which": 1, "lasts": 20.0}),
            (6.31, "kill", {"which": 0, "again": None}),
            (6.4, "add", {}),
        ),
    ),
    "a late start whose owner dies before it hears of the end": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # Both workers know of the end. The start is sent within the tombstone, and one of them has it when both stand
        # still. A third worker gets it seconds later, when the tombstone is over, and dies before the two go on.
        calls={"c0": ((2.0, "end", {}), (5.5, "start", {"to": "1"}))},
        faults=(
            aim("deliver raw event", "freeze", skip=1, lasts=20.0),
            aim("deliver raw event", "freeze", skip=1, whose="other", lasts=20.0),
            (5.7, "add", {}),
            aim("mcp.session.created", "kill", delay=0.5, again=None),
        ),
    ),
    "an opening again that is told behind a newer end": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # The placer stands still between opening the call again and telling of it. Meanwhile the call ends. Then the
        # placer goes on, and both who have seen the end are killed. The third one has only heard of it.
        calls={"c0": ((2.0, "end", {}), (4.0, "create", {}), (5.1, "end", {}), (8.0, "start", {"to": "1"}))},
        faults=(
            aim("session.create placed", "freeze", lasts=1.35),
            (5.8, "kill", {"which": 2, "again": None}),
            (5.81, "kill", {"which": 0, "again": None}),
        ),
    ),
    "an end before an explicit request is heard of late": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # The worker that has answered the end is cut off before it has told the others. It is back at 12.
        calls={"c0": ((2.0, "end", {}), (8.5, "create", {}), (20.0, "tool", {}))},
        faults=(aim("call.ended.reply", "cut", delay=0.02, how="both", away=9.0, sharp=True),),
    ),
    "the last worker has a new link while it waits for its calls to end": Plan(
        seed=1,
        conditions=Conditions(workers=1, late=0.0, drain="wait"),
        # It waits from 4.0 to 9.0. Tool calls come before it knows over its new link that the call is still its own.
        calls={"c0": ((2.0, "start", {"to": "1"}), *((5.01 + 0.005 * number, "tool", {}) for number in range(80)))},
        faults=(
            (4.0, "leave", {"which": 0, "alone": True}),
            (5.0, "cut", {"which": 0, "how": "both", "away": 0.0, "sharp": True}),
        ),
    ),
    "a session of the last worker ends while its recipe is away": Plan(
        seed=1,
        conditions=Conditions(workers=1, late=0.0, drain="wait"),
        # It waits from 4.0 to 9.0. The session is idle at 5.5, and its recipe is an orphan until 6.1.
        calls={"c0": ((1.5, "start", {"to": "3"}),)},
        faults=(
            (4.0, "leave", {"which": 0, "alone": True}),
            (4.1, "cut", {"which": 0, "how": "both", "away": 1.0, "sharp": True}),
        ),
    ),
    "asked while its owner has no link": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # The requests queue has gone with the link, and the placer does not remember any more where the calls are.
        calls={name: (*steps, (15.3, "tool", {"service": "echo"})) for name, steps in SIX_CALLS.items()},
        faults=((15.0, "cut", {"which": 1, "how": "both", "away": 0.5, "sharp": True}),),
    ),
    "asked again while placers change": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0, pace=0.05),
        # The next placer gets the second tool call of a call before its owner has bound the requests queue.
        calls={
            f"c{number}": tuple(
                (2.0 + 0.002 * number + later, "tool", {"service": "echo"})
                for later in (0.0, 0.05 + 0.01 * (number % 20))
            )
            for number in range(40)
        },
        faults=(aim("deliver tools.call placed", "cut", skip=15, whose="placer", how="both", away=0.0, sharp=True),),
    ),
    "closed where nothing breaks": Plan(
        seed=1, conditions=ALONE, calls={"c0": ((2.0, "start", {"to": "1"}), (4.0, "close", {}))}
    ),
    "room comes in time": Plan(
        seed=1,
        conditions=Conditions(workers=1, room=1, late=0.0),
        calls={"c0": ((1.0, "start", {"to": "1"}), (3.0, "end", {})), "c1": ((2.0, "start", {"to": "1"}),)},
    ),
    "a call whose workers are killed one after the other": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        calls={"c0": ((1.0, "start", {"to": "1"}),)},
        faults=tuple(aim("mcp.session.created", "kill", skip=number, delay=0.5, again=0.5) for number in range(6)),
    ),
    "a leaving worker is killed between created and terminal": Plan(
        seed=1,
        conditions=ALONE,
        # The end of the first session waits for its recipe, which is an orphan until 8.1; so the second one has none.
        calls={"c0": ((2.0, "start", {"to": "1"}), (5.3, "close", {}), (5.5, "create", {}))},
        faults=(
            (5.0, "cut", {"which": 0, "how": "both", "away": 0.0}),
            (6.2, "leave", {"which": 0}),
            aim("mcp.session.created", "kill", skip=1, sharp=True),
        ),
    ),
    "killed with what was handed over to it": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # No worker has died with the calls before, and some of their sessions are restored.
        calls=SIX_CALLS,
        faults=((5.0, "leave", {"which": 0}), (8.0, "kill", {"which": 0, "again": None})),
    ),
    "killed with a restored session and one that was opened since": Plan(
        seed=1,
        conditions=ALONE,
        # The next worker has the call at 8.2. Its second session is opened there.
        calls={"c0": ((2.0, "start", {"to": "1"}), (11.0, "create", {"service": "second"}))},
        faults=((5.0, "kill", {"which": 0, "again": 0.5}), (14.0, "kill", {"which": 0, "again": 0.5})),
    ),
    "killed when what was told lost has gone on there": Plan(
        seed=1,
        # Its recipes find no room elsewhere. It is back at 11.0, and waits for them until 29.0. Then its sessions go on
        # with new lives.
        conditions=Conditions(workers=2, room=2, late=0.0),
        calls={f"c{number}": ((2.0 + 0.3 * number, "start", {"to": "1"}),) for number in range(4)},
        faults=((5.0, "cut", {"which": 0, "how": "both", "away": 6.0}), (34.0, "kill", {"which": 0, "again": 0.5})),
    ),
    "killed when it has acknowledged a request that is refused": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # The owner finds that a key of the metadata is reserved. RabbitMQ does not take the event before 6.0.
        calls={"c0": ((2.0, "create", {"metadata": {"call": {}}, "hears": False}),)},
        faults=((1.9, "events wait", {"lasts": 4.1}), aim("ack session.create placed", "kill", sharp=True)),
    ),
    "killed when it has acknowledged a start whose servers fail": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0, failing=1.0),
        calls={"c0": ((2.0, "start", {"to": "1"}),)},
        faults=((1.9, "events wait", {"lasts": 4.1}), aim("ack call.started placed", "kill", sharp=True)),
    ),
    "killed when it has refused a request that it places": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # No worker has the service.
        calls={"c0": ((2.0, "create", {"service": "none", "hears": False}),)},
        faults=((1.9, "events wait", {"lasts": 4.1}), aim("ack session.create", "kill", sharp=True)),
    ),
    "killed when it has refused a start for want of room": Plan(
        seed=1,
        conditions=Conditions(workers=1, room=1, late=0.0),
        # The start waits for room for two seconds.
        calls={"c0": ((1.0, "start", {"to": "1"}),), "c1": ((2.0, "start", {"to": "1"}),)},
        faults=(
            (1.9, "events wait", {"lasts": 4.1}),
            aim("ack call.started", "kill", skip=1, sharp=True, again=0.5),
        ),
    ),
}

_OWNER_REJECTS = "an owner acknowledges what opens nothing before its rejection is told"
_PLACER_REJECTS = "a placer acknowledges what opens nothing before its rejection is told"

MENDED = MENDED_IN_HANDLING | {
    "closed while its recipe was away": "what was closed by command comes back",
    "closed while another worker had opened it cut off": "what was closed by command comes back",
    "a start that waited for longer than the tombstone": "a call event is as new as its translation",
    "a tool call whose placer lost its acknowledgement": "a placer passes a tool call on that another had",
    "a message that is returned before the one placed has come": "whatever was returned is believed",
    "killed before its recipes are written anew": "an older recipe is acknowledged before a newer one is written",
    "leaves its recipes to a placer that has not got them": "who leaves and holds no recipe deletes its inbox",
    "told over a link that RabbitMQ has given up": "an end is told without asking RabbitMQ first",
    "back when its sessions were told lost": "who does not get its recipe back tells its ends",
    "a connection that RabbitMQ has not given up gets recipes": "a recipe that was written is as good as held",
    "a recipe whose confirmation is lost": "a recipe that RabbitMQ has not confirmed is sent again",
    "a late message of a dead worker": "a placer places what a dead worker had, without asking",
    "killed before its ends are told": "a recipe goes before the end is told",
    "killed while it comes back": "who sends a recipe on is taken to have told of its sessions",
    "suspended when its call was restored without its end": "an end that is heard of late closes nothing",
    "suspended while those who saw the end and a newcomer change": "who is back reports no ends",
    "killed when it tells what ended meanwhile": "what ends before its recipe is told without one",
    "killed between created and terminal": "what ends before its recipe is told without one",
    "a leaving worker is killed between created and terminal": "what ends before its recipe is told without one",
    "a late start whose owner dies before it hears of the end": "a recipe does not say when its start was sent",
    "an opening again that is told behind a newer end": "an opening again counts whenever it is heard of",
    "killed with what was handed over to it": "a recipe does not say which sessions are restored",
    "killed with a restored session and one that was opened since": "a recipe does not say which sessions are restored",
    "killed when what was told lost has gone on there": "a recipe does not say which sessions are restored",
    "killed when it has acknowledged a request that is refused": _OWNER_REJECTS,
    "killed when it has acknowledged a start whose servers fail": _OWNER_REJECTS,
    "killed when it has refused a request that it places": _PLACER_REJECTS,
    "killed when it has refused a start for want of room": _PLACER_REJECTS,
    "asked while a former owner cannot publish and does not know it": "who is not heard keeps its link",
    "asked again while placers change": "a placer places a request without asking whether its call has an owner",
    "closed where nothing breaks": "a command closes nothing",
    "room comes in time": "a start does not wait for room",
    "a call whose workers are killed one after the other": "the workers that died with a call are not counted",
}
"""What an order leads to only with this mistake."""
