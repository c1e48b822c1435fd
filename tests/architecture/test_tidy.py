# SPDX-License-Identifier: Apache-2.0
"""What a machine can hold of the house rules: short pieces, names that say something, a core that can be replayed."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmhad.engine.effects import EFFECTS
from vmhad.engine.loop import PURSUED
from vmhad.kernel.step import Verb

ROOT = Path(__file__).parents[2]
FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400
EMPTY_NAMES = {"manager", "helper", "helpers", "util", "utils", "common", "base", "handler", "misc"}
# Where the same input has to give the same decision, whoever asks and whenever.
REPLAYED = ("vmhad/kernel/", "vmhad/guards/", "vmhad/engine/", "vmhad/survivability/")
CHANCE_AND_CLOCK = re.compile(r"(datetime\.(now|utcnow|today)|date\.today|time\.time(_ns)?|uuid[14]|random\.\w+)$")
# A test that has to replace a part says here why no real or simulated one will do: path -> reason.
MOCKS_ALLOWED: dict[str, str] = {}
# Spelled in pieces, or this file would accuse itself.
PLACES = re.compile(r"(?<![\w.~-])/(?:" + "work" + "|" + "root" + r")/")
REGISTRIES = re.compile("|".join((r"pypi\." + "org", "python" + "hosted", r"index-url\s*=\s*" + "http")))


@functools.cache
def kept() -> tuple[str, ...]:
    """The paths git keeps or would keep, from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return tuple(sorted(name for name in set(listed.stdout.split("\0")) if name and (ROOT / name).is_file()))


def modules(*tops: str) -> list[str]:
    return [name for name in kept() if name.endswith(".py") and name.startswith(tops)]


OURS = modules("vmhad/", "tests/", "lab/")


@functools.cache
def parsed(name: str) -> ast.Module:
    return ast.parse((ROOT / name).read_text(), name)


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def words(name: str) -> set[str]:
    """"HostManager", "host_manager" and "host-manager" all hold the word manager."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", OURS)
def test_pieces_are_short(name: str) -> None:
    lines = (ROOT / name).read_text().count("\n")
    assert lines <= MODULE_LINES_MAX, f"{name} has {lines} lines"
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{name}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("name", OURS)
def test_names_say_something(name: str) -> None:
    for part in Path(name).with_suffix("").parts:
        assert not words(part) & EMPTY_NAMES, f"{name}: {part} says nothing"
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.ClassDef):
            assert not words(node.name) & EMPTY_NAMES, f"{name}:{node.lineno} class {node.name} says nothing"


@pytest.mark.parametrize("name", OURS)
def test_module_opens_with_licence_and_purpose(name: str) -> None:
    text = (ROOT / name).read_text()
    if name.endswith("__init__.py") and not text.strip():
        return
    opening = [line for line in text.splitlines()[:2] if not line.startswith("#!")]
    assert opening[0] == "# SPDX-License-Identifier: Apache-2.0", f"{name} does not open with its licence"
    assert ast.get_docstring(parsed(name)), f"{name} does not say what it is for"


@pytest.mark.parametrize("name", modules("vmhad/", "tests/"))
def test_nothing_is_mocked(name: str) -> None:
    if name not in MOCKS_ALLOWED:
        assert not [module for module in imported(parsed(name)) if module.startswith(("unittest.mock", "mock."))]


@pytest.mark.parametrize("name", modules(*REPLAYED))
def test_decisions_can_be_replayed(name: str) -> None:
    """Clocks, ids and chance are handed in."""
    for module in imported(parsed(name)):
        assert not CHANCE_AND_CLOCK.search(module), f"{name} imports {module}"
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Call):
            called = dotted(node.func)
            assert not CHANCE_AND_CLOCK.search(called), f"{name}:{node.lineno} calls {called}"


def test_every_verb_has_its_effect_and_is_pursued_in_some_state() -> None:
    # An operator's word is kept beside the steps, and nothing is done to say it.
    ours = set(Verb) - {Verb.CONFIRM_DOWN}
    assert set(EFFECTS) == ours
    assert {verb for verbs in PURSUED.values() for verb in verbs} == ours


@pytest.mark.parametrize("name", kept())
def test_no_machine_of_ours_is_named(name: str) -> None:
    try:
        text = (ROOT / name).read_text()
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.splitlines(), 1):
        assert not PLACES.search(line), f"{name}:{number} names a path of one machine"
        assert not REGISTRIES.search(line), f"{name}:{number} names a package registry"


@pytest.mark.parametrize("name", ["HostManager", "host_manager", "lab/my-helper", "BMCHandler"])
def test_empty_names_are_found(name: str) -> None:
    assert words(name) & EMPTY_NAMES


@pytest.mark.parametrize("name", ["manage", "basement", "Commonwealth", "database"])
def test_full_names_pass(name: str) -> None:
    assert not words(name) & EMPTY_NAMES
