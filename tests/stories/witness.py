# SPDX-License-Identifier: Apache-2.0
"""What the stories make the core say and do, so that what no story tells can be named.

A story is told once a test session, whichever worker comes to it first; its record is shared through a folder. What is
required is read from the core itself (its tables, and the sentences in its source), so that a new row, edge or sentence
without a story is found without anybody having to list it here.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from vmhad.engine import deciding, evidence_store
from vmhad.guards.instances.judge import judge as judge_vm
from vmhad.guards.services.judge import judge as judge_service
from vmhad.kernel import incident as machine
from vmhad.kernel.case import Case, Decision, DrainCase, ServiceCase, VmCase
from vmhad.kernel.policy import Policy
from vmhad.kernel.verdict import Verdict
from vmhad.sim.directives import Stage
from vmhad.sim.draft import with_options
from vmhad.sim.story import directives_of, parse, tell

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@dataclass
class Witness:
    """rows, rows_of_vms, rows_of_services (these by what they say), edges, texts, verbs, groups: what the core did.
    policies (fields set to another value than the default), orders, directives, bmcs, moods (of storages): what the
    story asked for."""

    rows: set[str] = field(default_factory=set)
    rows_of_vms: set[str] = field(default_factory=set)
    rows_of_services: set[str] = field(default_factory=set)
    edges: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)
    verbs: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    policies: set[str] = field(default_factory=set)
    orders: set[str] = field(default_factory=set)
    directives: set[str] = field(default_factory=set)
    bmcs: set[str] = field(default_factory=set)
    moods: set[str] = field(default_factory=set)

    def add(self, other: Witness) -> None:
        for one in fields(self):
            getattr(self, one.name).update(getattr(other, one.name))

    def take_decision(self, case: Case | VmCase | ServiceCase | DrainCase, decision: Decision) -> None:
        self.texts.update((decision.because, decision.incident.because, decision.incident.held))
        for step in decision.steps:
            self.verbs.add(step.verb.value)
            self.texts.update((step.because, *step.args.values()))
        for step in case.steps:
            self.texts.update(text for seen in step.observed for text in (seen.reading, seen.text))
        case = case.case if isinstance(case, DrainCase) else case
        if isinstance(case, VmCase):
            self.rows_of_vms.add(judge_vm(case).because)
            return
        if isinstance(case, ServiceCase):
            self.rows_of_services.add(judge_service(case.health, case.incident.service, case.policy).because)
            return
        self.rows.update(str(verdict.row) for verdict in case.verdicts.values())
        for group in case.inventory.groups if case.inventory else ():
            self.groups.add(group.policy + (" of several a host" if group.max_per_host > 1 else ""))

    def take_directive(self, line: str) -> None:
        name, *words = line.split()
        self.directives.add(name)
        if name == "order":
            self.orders.add(words[0])
        if name == "bmc":
            self.bmcs.add(words[1])
        if name == "storage" and words[1] == "orders":
            self.moods.add(words[2])
        if name == "segment":
            options = dict(word.split("=", 1) for word in words if "=" in word)
            told, plain = with_options(Policy(), options), Policy()
            self.policies.update(key for key in options if getattr(told, key) != getattr(plain, key))


@dataclass(frozen=True)
class Record:
    """One story as it was told: its text before and after, the rules it broke, and what it made the core do."""

    name: str
    before: str
    after: str
    diff: str
    breaches: tuple[str, ...]
    witness: Witness


def record_of(path: Path, folder: Path) -> Record:
    """Told now, or read from the folder if that was done already in this session."""
    kept = folder / f"{path.stem}.story.json"
    if not kept.exists():
        mine = kept.with_suffix(f".{os.getpid()}")
        mine.write_text(json.dumps(_told(path)))
        os.replace(mine, kept)
    raw = json.loads(kept.read_text())
    witness = Witness(**{key: set(found) for key, found in raw["witness"].items()})
    return Record(path.stem, raw["before"], raw["after"], raw["diff"], tuple(raw["breaches"]), witness)


def shared_folder(basetemp: Path) -> Path:
    """One folder for all workers of this test session. basetemp: pytest's, of this worker."""
    return basetemp.parent if "PYTEST_XDIST_WORKER" in os.environ else basetemp


def _told(path: Path) -> dict[str, Any]:
    witness = Witness()
    for line in directives_of(parse(path.read_text())):
        witness.take_directive(line)
    with _watching(witness):
        told = tell(path)
    return {
        "before": told.before,
        "after": told.after,
        "diff": told.diff(),
        "breaches": told.breaches,
        "witness": {one.name: sorted(getattr(witness, one.name)) for one in fields(witness)},
    }


@contextmanager
def _watching(witness: Witness) -> Iterator[None]:
    """Stands between the engine and the core, and passes everything through unchanged."""
    reconcile, turn, judge = deciding.reconcile, machine.turn, evidence_store.judge

    def watched_judge(*of: Any) -> Verdict:
        verdict = judge(*of)
        witness.rows.add(str(verdict.row))
        return verdict

    def watched_reconcile(case: Case | VmCase | ServiceCase | DrainCase, *rest: Any) -> Decision:
        decision = reconcile(case, *rest)
        witness.take_decision(case, decision)
        return decision

    def watched_turn(incident: machine.Incident, event: machine.Event, *rest: Any) -> machine.Incident:
        after = turn(incident, event, *rest)
        witness.edges.add(edge(incident.state, event))
        return after

    deciding.reconcile, machine.turn, evidence_store.judge = watched_reconcile, watched_turn, watched_judge
    try:
        yield
    finally:
        deciding.reconcile, machine.turn, evidence_store.judge = reconcile, turn, judge


def edge(state: machine.State, event: machine.Event) -> str:
    return f"{state.value} --{event.value}-->"


def every_edge() -> set[str]:
    return {edge(state, event) for state, edges in machine.TRANSITIONS.items() for event in edges}


def every_directive() -> set[str]:
    return set(vars(Stage())["_directives"])


# Sentences in the source.


def sentences(source: str) -> dict[str, re.Pattern[str]]:
    """Every sentence that a module can say: «line: text» -> what it looks like when it is said.

    A sentence is a text of several words that is no docstring and is not raised. What is filled in may be anything.
    """
    tree = ast.parse(source)
    skipped = {id(part) for node in ast.walk(tree) for part in _no_sentences(node)}
    found = {}
    for node in ast.walk(tree):
        parts = _parts(node) if id(node) not in skipped else []
        said = " ".join("".join(part or "…" for part in parts).split())
        if " " in "".join(parts).strip() and len(re.findall("[A-Za-z]{2,}", "".join(parts))) > 1:
            found[f"{node.lineno}: {said}"] = re.compile(".*".join(re.escape(part) for part in parts), re.DOTALL)
    return found


def unsaid(source: str, texts: set[str]) -> list[str]:
    """The sentences of a module that are in none of the texts."""
    wanted = sentences(source)
    return [name for name, pattern in wanted.items() if not any(pattern.search(text) for text in texts)]


def _parts(node: ast.AST) -> list[str]:
    """A text's fixed parts in order, '' for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        return [str(one.value) if isinstance(one, ast.Constant) else "" for one in node.values]
    return []


def _no_sentences(node: ast.AST) -> Iterator[ast.AST]:
    """Docstrings, what is raised, and the pieces of a longer text."""
    if isinstance(node, ast.Raise | ast.JoinedStr):
        yield from (part for part in ast.walk(node) if part is not node)
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
