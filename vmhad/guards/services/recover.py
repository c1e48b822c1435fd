# SPDX-License-Identifier: Apache-2.0
"""The restart of a service by the agent of its host, and what is thought of it afterwards.

The order names the start of it that was seen to fail: whoever started it meanwhile, or stopped it, was first.
"""

from __future__ import annotations

from vmhad.guards.services.fence import LOOK_AGAIN_S, left
from vmhad.guards.services.judge import judge
from vmhad.kernel.alone import OWNED, concluded
from vmhad.kernel.case import Move, ServiceCase
from vmhad.kernel.incident import Event, State
from vmhad.kernel.order import CLOSED_BY_ORDER
from vmhad.kernel.step import Step, StepState, Verb, start
from vmhad.kernel.verdict import Judgement

# systemd draws another invocation before it answers; so long after a call without one it was lost on its way.
CALL_LIMIT_S = 10.0
RESTART_LIMIT_S = 120.0
STUCK_LOOK_S = 30.0
# What a look says of one that was started, by whomever, and did not stay.
AGAIN = "ended again"


def recover(case: ServiceCase, now: float) -> Move:
    """RECOVERING: one restart a round."""
    if case.owner:
        return Move(f"{OWNED}: {case.owner}", Event.PROOF_LOST)
    step = case.step(_step_id(case))
    if step is None:
        return _begin(case, now)
    if step.state is not StepState.STARTED:
        return Move(step.because, Event.PROOF_LOST)
    if not step.observed:
        return Move("no answer yet", wake_at=now + LOOK_AGAIN_S)
    return concluded(
        step,
        "restarted",
        now,
        call_limit_s=CALL_LIMIT_S,
        limit_s=RESTART_LIMIT_S,
        look_again_s=LOOK_AGAIN_S,
    )


def rest(case: ServiceCase, now: float) -> Move:
    """RECOVERED: it is over. STUCK: until it runs, until somebody takes it in hand, or until an order."""
    if "close" in case.orders:
        return Move(CLOSED_BY_ORDER, Event.CLOSED)
    if case.incident.state is State.RECOVERED:
        return Move(case.incident.because, Event.CLOSED)
    if case.owner:
        return Move(f"{OWNED}: {case.owner}", Event.WITHDRAWN)
    if "retry" in case.orders:
        return Move("ordered to try again", Event.RETRIED)
    row = judge(case.health, case.incident.service, case.policy)
    if row.judgement is Judgement.HEALTHY:
        return Move(f"over without us: {left(case, row)}", Event.WITHDRAWN)
    return Move(case.incident.because, wake_at=now + STUCK_LOOK_S)


def lift(case: ServiceCase, now: float) -> Move:
    """Nothing of a service is lifted: what comes back is its host."""
    raise AssertionError(f"incident {case.incident.id} of a service is {case.incident.state.value}")


def _step_id(case: ServiceCase) -> str:
    return f"{case.incident.id}/{case.incident.round}/{Verb.RESTART_SERVICE.value}"


def _begin(case: ServiceCase, now: float) -> Move:
    """What an heir may not know of names no start of it, and then nothing is restarted."""
    incident, unit = case.incident, case.health.unit
    known = unit.invocation if unit is not None else ""
    args = {"host": incident.host, "service": incident.service, "known": known}
    step = start(Step(_step_id(case), incident.id, Verb.RESTART_SERVICE, incident.subject), now, args)
    return Move(f"restarted on {incident.host}", steps=(step,), wake_at=now + LOOK_AGAIN_S)
