# SPDX-License-Identifier: Apache-2.0
"""Stories: what befalls a datacentre and what vmhad made of it, in one text file that reads like an incident report.

A file is a comment that says why the outcome is right, then blocks: directives, a line of four dashes, and the output.
A block without an expectation fails. directives.py says what may be written.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from vmhad.sim.directives import Stage
from vmhad.sim.draft import StoryError

RULE = "----"


@dataclass(frozen=True)
class Block:
    """head: the lines above the rule, comments and blank ones too. expected: None where the rule is missing."""

    head: tuple[str, ...]
    expected: tuple[str, ...] | None
    line: int


@dataclass(frozen=True)
class Told:
    """A story after it ran. breaches: rules of safety that were broken, beyond those the story expects."""

    path: Path
    before: str
    after: str
    breaches: tuple[str, ...]

    @property
    def is_as_expected(self) -> bool:
        return self.before == self.after and not self.breaches

    def diff(self) -> str:
        return "".join(
            difflib.unified_diff(
                self.before.splitlines(keepends=True),
                self.after.splitlines(keepends=True),
                str(self.path),
                "as it runs now",
            )
        )


def tell(path: Path) -> Told:
    """Runs one story. Raises StoryError, with the line, where its text cannot be understood."""
    before = path.read_text()
    stage = Stage()
    parts: list[str] = []
    for block in parse(before):
        output = _perform(stage, block, path)
        parts.append("\n".join((*block.head, RULE, *output)).strip("\n"))
    stage.end()
    return Told(path, before, "\n\n".join(parts) + "\n", stage.unexpected_breaches())


def parse(text: str) -> list[Block]:
    """Raises StoryError if the story does not begin with its reason."""
    if not text.startswith("# "):
        raise StoryError("a story begins with a comment that says why its outcome is right")
    blocks: list[Block] = []
    head: list[str] = []
    expected: list[str] | None = None
    begins = 1
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        if expected is None and line == RULE:
            expected = []
        elif expected is None:
            head.append(line)
        elif line:
            expected.append(line)
        else:
            blocks.append(Block(tuple(head), tuple(expected), begins))
            head, expected, begins = [], None, number + 1
    if any(_is_directive(line) for line in head):
        blocks.append(Block(tuple(_without_last_blanks(head)), None, begins))
    return blocks


def directives_of(blocks: list[Block]) -> list[str]:
    return [line for block in blocks for line in block.head if _is_directive(line)]


def _perform(stage: Stage, block: Block, path: Path) -> list[str]:
    output: list[str] = []
    for number, line in enumerate(block.head, start=block.line):
        if _is_directive(line):
            try:
                output.extend(stage.perform(line))
            except (StoryError, KeyError, ValueError, IndexError) as error:
                raise StoryError(f"{path.name}:{number}: {line!r}: {error}") from error
    return output


def _is_directive(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _without_last_blanks(lines: list[str]) -> list[str]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines
