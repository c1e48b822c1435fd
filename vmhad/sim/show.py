# SPDX-License-Identifier: Apache-2.0
"""What a story shows, in fixed columns so that a diff is one line where one thing changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vmhad.kernel.verdict import Judgement
from vmhad.sim.datacentre import SimHost
from vmhad.sim.inbox import incidents
from vmhad.sim.world import Said, World


def spoken(lines: Sequence[Said], with_engine: bool) -> list[str]:
    """+12.3s  subject  WORD  text"""
    out = []
    for line in lines:
        engine = f"{line.engine:<4}" if with_engine else ""
        out.append(f"{f'+{line.at:.1f}s':<9}{engine}{line.subject:<12} {line.word:<22} {line.text}".rstrip())
    return out


def show_vms(world: World) -> list[str]:
    lines = []
    for row in sorted(world.nova.servers.values(), key=lambda one: one.name):
        guests = ", ".join(sorted(world.datacentre.vms[row.id].guests)) or "nowhere"
        locked = ", locked" if row.locked else ""
        busy = f" ({row.task_state})" if row.task_state else ""
        lines.append(f"{row.name:<10} {row.state.value + busy:<10} on {row.host:<6} runs {guests}{locked}")
    return lines


def show_hosts(world: World) -> list[str]:
    lines = []
    for name, host in sorted(world.datacentre.hosts.items()):
        service = world.nova.services[name]
        states = ["up" if world.nova.is_up(name) else "down", "enabled" if service.enabled else "disabled"]
        if service.forced_down:
            states.append("forced down")
        states += [f"cut off from {backend}" for backend, cut in sorted(world.datacentre.fenced.items()) if name in cut]
        lines.append(f"{name:<10} {_condition(host):<14} nova-compute {', '.join(states)}")
    return lines


def show_incidents(world: World) -> list[str]:
    return [
        f"{one.id:<10} {one.state.value.upper():<12} {one.because}" + (f" [held: {one.held}]" if one.held else "")
        for one in incidents(world)
    ]


def show_fences(world: World) -> list[str]:
    told = [(order.at, order.engine, f"{order.verb} {order.host}") for order in world.checkers.power_orders]
    cuts = [(one.at, one.engine, f"{one.verb} {one.host} {one.backend}") for one in world.backends.orders]
    return [
        f"+{at - world.agenda.start_s:.1f}s".ljust(9) + f"{engine:<4}{text}" for at, engine, text in sorted(told + cuts)
    ]


def show_migrations(world: World) -> list[str]:
    return [
        f"{move.number:<4} {move.server:<10} {move.source} -> {move.target or '?'}  {move.status}"
        for move in world.nova.migrations
    ]


def show_verdicts(world: World) -> list[str]:
    lines = []
    for segment in world.segments:
        node = world.nodes.get(world.ledger.owner(segment.name))
        verdicts = node.engine.evidence.verdicts(segment) if node is not None and not node.life.dead else {}
        for name, verdict in sorted(verdicts.items()):
            if verdict.judgement is not Judgement.HEALTHY:
                lines.append(f"{name:<10} {verdict.judgement.value.upper():<10} {verdict.because}")
        healthy = sum(verdict.judgement is Judgement.HEALTHY for verdict in verdicts.values())
        lines.append(f"{healthy} of the {len(segment.hosts)} hosts of {segment.name} are HEALTHY")
    return lines


def _condition(host: SimHost) -> str:
    if not host.powered:
        return "off"
    if host.hung:
        return "on, hung"
    return "on, runs" if host.alive else "on, dead"


SHOWS: dict[str, Callable[[World], list[str]]] = {
    "vms": show_vms,
    "hosts": show_hosts,
    "incidents": show_incidents,
    "fences": show_fences,
    "migrations": show_migrations,
    "verdicts": show_verdicts,
}
