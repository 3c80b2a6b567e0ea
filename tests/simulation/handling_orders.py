"""Orders of events in which a mistake in handling one message shows: its marks, its order, or what it leaves behind."""

from tests.simulation.order_steps import ALONE, SIX_CALLS, aim
from tests.simulation.world.plan import Conditions, Plan

HANDLING = {
    "a start sent again comes through a binding whose placer is over": Plan(
        seed=1,
        conditions=Conditions(workers=4, late=0.0),
        # The placer has bound the call when RabbitMQ gives its consumers up. The start that it has placed is 0.9 s on
        # its way. The next placer gets the start again, and sends it to the binding, where it waits for half a second.
        # By then that worker is not the one with the most room any more.
        calls={name: ((when, "start", {"to": "1"}),) for name, when in (("c0", 2.0), ("c1", 2.2), ("c2", 2.2))},
        faults=(
            aim("bind", "slow", lasts=0.9),
            aim("bind", "cut", delay=0.01, only=True, how="server", away=0.0, sharp=True),
        ),
    ),
    "a placer that tells what is lost is killed": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # The recipes reach the placer at 8.0. RabbitMQ does not take the events before 14.0, and by then it has lost
        # those of the placer.
        calls=SIX_CALLS,
        faults=(
            (5.0, "kill", {"which": 1, "again": None}),
            (7.0, "events wait", {"lasts": 7.0}),
            (10.0, "kill", {"placer": True, "again": None}),
        ),
    ),
    "events that RabbitMQ lost behind recipes that it has": Plan(
        seed=1,
        conditions=ALONE,
        # The first event is confirmed at 3.0. The recipes and events behind it leave together. RabbitMQ takes these
        # recipes, and loses these events.
        calls=SIX_CALLS,
        faults=(
            (0.9, "events wait", {"lasts": 2.1}),
            aim("call.recipe", "events wait", skip=1, lasts=5.0),
            (4.0, "cut", {"which": 0, "how": "both", "away": 0.0, "sharp": True}),
        ),
    ),
    "killed when it is back and its sessions were told lost meanwhile": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # As in "back while its calls are taken away": it has its calls again, and has written recipes, when it gets
        # the recipes of which the sessions were told lost.
        calls={name: (*steps, (15.0, "progress", {"to": "1"})) for name, steps in SIX_CALLS.items()},
        faults=(
            (8.0, "cut", {"which": 0, "how": "both", "away": 0.0}),
            (8.001, "freeze", {"which": 0, "lasts": 20.0}),
            aim("unbind", "slow", lasts=1.5),
            aim("unbind", "come back", delay=0.1),
            (20.0, "kill", {"which": 0, "again": None}),
        ),
    ),
    "an older recipe comes back behind a newer one": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # The first recipe expires, and comes back from the placer at 8.0. By then a second session has another one.
        calls={"c0": ((2.0, "start", {"to": "1"}), (6.4, "create", {"service": "second"}))},
        faults=(
            aim("call.recipe", "cut", delay=2.9, how="both", away=0.5, sharp=True),
            aim("call.recipe", "kill", delay=10.0, sharp=True),
        ),
    ),
    "an opening again that is heard of behind a newer end": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # The placer stands still between opening the call again and telling of it. Meanwhile the call ends. Then the
        # placer tells of it, and is killed with the worker that had the call. The third one has heard of both.
        calls={"c0": ((2.0, "end", {}), (4.0, "create", {}), (5.1, "end", {}), (8.0, "start", {"to": "1"}))},
        faults=(
            aim("session.create placed", "freeze", lasts=1.35),
            aim("session.create placed", "kill", delay=1.8),
            aim("call.recipe", "kill", delay=1.8),
        ),
    ),
    "a start of a call that is another's by now goes back to its worker": Plan(
        seed=1,
        # Half of the servers fail. Such a start opens nothing, and the next one may open the call on another worker.
        # The acknowledgement of the first one is lost, and it is at the placer when the first worker is back.
        conditions=Conditions(workers=3, late=0.0, failing=0.5),
        calls={
            f"c{number}": tuple(
                (2.0 + 0.01 * number + later, "start", {"to": "1"}) for later in (0.0, 0.6, 0.8, 1.0, 1.2)
            )
            for number in range(12)
        },
        faults=(aim("ack call.started placed", "cut", before=True, how="both", away=1.2, sharp=True),),
    ),
    "placed where it was when its next owner has died": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # The first owner is cut off from 2.0 to 23.5. The next one opens a second session, and is killed at 21. Its
        # recipe is placed on the first one, which is back, has the first session, and lacks the second.
        calls={"c0": ((1.0, "start", {"to": "1"}), (8.0, "create", {"service": "second"}))},
        faults=(
            aim("call.recipe", "cut", delay=1.0, how="both", away=21.5, sharp=True),
            aim("call.recipe", "kill", skip=1, delay=18.0, sharp=True),
        ),
    ),
    "asked over a link that is lost when the answer comes": Plan(
        seed=1,
        # It stands still while its link is made, and asks whose its calls are when it goes on. The placer, which has a
        # new link, takes them away just then. The worker drops its link, and has the answer over the next one.
        conditions=Conditions(workers=3, late=0.0, pace=0.02),
        calls=SIX_CALLS,
        faults=(
            (8.0, "cut", {"which": 0, "how": "both", "away": 0.0, "sharp": True}),
            (8.5, "freeze", {"which": 0, "lasts": 1.55}),
            (9.5, "cut", {"which": 0, "placer": True, "how": "both", "away": 0.0, "sharp": True}),
        ),
    ),
    "suspended while it is told that its call is its own": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # It has its answer, and binds its requests queue, when it stands still. Meanwhile its calls are taken away.
        # When it goes on, its link counts as lost, and then it goes on with the answer.
        calls=SIX_CALLS,
        faults=(
            (8.0, "cut", {"which": 0, "how": "both", "away": 0.0, "sharp": True}),
            aim("deliver owner.check", "freeze", delay=0.002, lasts=3.8),
            (9.5, "cut", {"which": 0, "placer": True, "how": "both", "away": 0.0, "sharp": True}),
        ),
    ),
    "placed where it was when its recipe was told lost": Plan(
        seed=1,
        # The first call's session is not restored, so its recipe does not come back. Its progress finds no room, and
        # waits. It is placed on the worker that had the call, which is back, and has not asked yet whose the call is.
        conditions=Conditions(workers=2, room=2, late=0.0),
        calls={
            "c0": ((1.0, "start", {"to": "4"}), (11.2, "progress", {"to": "4"})),
            "c1": ((1.5, "start", {"to": "1"}),),
            "c2": ((2.0, "start", {"to": "1"}), (3.5, "end", {})),
            "c3": ((2.5, "start", {"to": "1"}),),
        },
        faults=(aim("call.recipe", "cut", delay=4.0, how="both", away=7.0, sharp=True),),
    ),
    "leaves when a start is placed on it": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # The start is in its inbox 0.6 s later, when it takes nothing more from there, and before it has looked whether
        # something is left: its own links are slow as well.
        calls={"c0": ((2.0, "start", {"to": "1"}),)},
        faults=(
            aim("bind", "slow", lasts=0.6),
            aim("bind", "leave", whose="other"),
            aim("bind", "slow", whose="other", delay=0.2, lasts=1.5),
        ),
    ),
    "leaves while RabbitMQ confirms nothing": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # It may wait five seconds to hand its calls over. The alarm is over two seconds later, and it is still there.
        calls=SIX_CALLS,
        faults=((5.0, "leave", {"which": 0}), (5.005, "alarm", {"lasts": 7.0})),
    ),
    "leaves while its hand-over is lost": Plan(
        seed=1,
        conditions=Conditions(workers=3, late=0.0),
        # Of its two connections, only the one that publishes is lost.
        calls={"c0": ((2.0, "start", {"to": "1"}),)},
        faults=(
            aim("call.recipe", "leave", delay=2.0),
            aim("call.recipe returned", "cut", before=True, only=True, how="both", away=0.0, sharp=True),
        ),
    ),
    "a request whose acknowledgement is lost": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # Its owner gets it again over the next link.
        calls={"c0": ((2.0, "create", {}),)},
        faults=(aim("ack session.create placed", "cut", before=True, only=True, how="both", away=0.0, sharp=True),),
    ),
    "leaves when one of two sessions has expired": Plan(
        seed=1,
        conditions=Conditions(workers=2, late=0.0),
        # A tool call runs until 8.0. Until then it does not hand the call over. The other session is idle at 6.1.
        calls={
            "c0": (
                (1.0, "start", {"to": "1"}),
                (2.0, "create", {"service": "brief"}),
                (5.0, "tool", {"takes": 3.0}),
            )
        },
        faults=(aim("call.recipe", "leave", delay=4.3),),
    ),
    "asked under its key when its session is closed": Plan(
        seed=1,
        conditions=ALONE,
        calls={
            "c0": (
                (2.0, "tool", {"service": "echo", "key": "k"}),
                (3.0, "close", {}),
                (4.0, "tool", {"service": "echo", "key": "k"}),
            )
        },
    ),
}

MENDED_IN_HANDLING = {
    "a start sent again comes through a binding whose placer is over": (
        "a message keeps the mark that it was sent again"
    ),
    "a start of a call that is another's by now goes back to its worker": "a message keeps the mark of its placement",
    "placed where it was when its next owner has died": "a message keeps the mark that it came late",
    "asked over a link that is lost when the answer comes": "an answer over an older link is believed",
    "a placer that tells what is lost is killed": "a recipe goes on before its sessions are told lost",
    "events that RabbitMQ lost behind recipes that it has": "what is confirmed behind a failure counts for what failed",
    "killed when it is back and its sessions were told lost meanwhile": "a new life is not written in a recipe",
    "an older recipe comes back behind a newer one": "an outdated recipe is held",
    "an opening again that is heard of behind a newer end": "what is heard counts, though something newer is known",
    "leaves when a start is placed on it": "who leaves deletes its inbox with what is in it",
    "asked under its key when its session is closed": "answers are not kept",
    "suspended while it is told that its call is its own": "an answer removes the doubts of a later link",
    "leaves while RabbitMQ confirms nothing": "a call is released without its hand-over",
    "leaves while its hand-over is lost": "a call is released without its hand-over",
}
"""What an order leads to only with this mistake."""
