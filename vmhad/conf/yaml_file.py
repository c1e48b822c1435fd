# SPDX-License-Identifier: Apache-2.0
"""Reading the YAML files: every complaint names the file and the field, and never shows what a secret file holds."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from vmhad.conf.settings import ConfigError

TWICE = "a key stands twice"


class _OnceLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys; here the second one is an error."""


def _mapping_once(loader: _OnceLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=TWICE, problem_mark=key.start_mark)
            seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


_OnceLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_once)


def read_text(path: str, what: str) -> str:
    """what: the option that names the file."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise ConfigError(f"{what}: there is no file {path}.") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{what}: {path} cannot be read: {reason}.") from None


def read_secret_text(path: str, what: str) -> str:
    """Refuses a file that others than its owner may read or change."""
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        mode = 0
    if mode & 0o077:
        raise ConfigError(f"{what}: {path} has mode {mode:04o}, it must be 0600.")
    return read_text(path, what)


def parse(text: str, path: str, what: str) -> Any:
    try:
        # A SafeLoader: it makes nothing but plain values.
        return yaml.load(text, Loader=_OnceLoader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problem = TWICE if error.problem == TWICE else "this is not YAML"
        raise ConfigError(f"{what}: {path}, line {line}: {problem}.") from None
    except yaml.YAMLError:
        raise ConfigError(f"{what}: {path} is not YAML.") from None


class Field:
    """A value in a YAML file that knows where it stands."""

    def __init__(self, file: str, where: str, value: Any) -> None:
        self.file = file
        self.where = where
        self.value = value

    def wrong(self, why: str) -> ConfigError:
        return ConfigError(f"{self.file}: {self.where or 'the file'} {why}.")

    def mapping(self, required: Iterable[str], optional: Iterable[str] = ()) -> Mapping[str, Field]:
        """The fields that are there; an unknown one is an error, because it may be a misspelt one."""
        if not isinstance(self.value, dict):
            raise self.wrong("must be a mapping")
        known = {*required, *optional}
        for key in self.value:
            if key not in known:
                raise self.wrong(f"has an unknown field {key!r}; known are {', '.join(sorted(known))}")
        for key in required:
            if key not in self.value:
                raise self.wrong(f"lacks the field {key!r}")
        return {key: self._inside(f".{key}", value) for key, value in self.value.items()}

    def entries(self) -> Mapping[str, Field]:
        """A mapping whose keys are free."""
        if not isinstance(self.value, dict):
            raise self.wrong("must be a mapping")
        return {str(key): self._inside(f".{key}", value) for key, value in self.value.items()}

    def items(self) -> list[Field]:
        """At least one."""
        if not isinstance(self.value, list) or not self.value:
            raise self.wrong("must be a list with at least one entry")
        return [self._inside(f"[{index}]", value) for index, value in enumerate(self.value)]

    def text(self) -> str:
        if not isinstance(self.value, str) or not self.value.strip():
            raise self.wrong("must be a text that is not empty (in quotes if it looks like a number)")
        return self.value

    def truth(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.wrong("must be true or false")
        return self.value

    def texts(self) -> tuple[str, ...]:
        return tuple(one.text() for one in self.items())

    def number(self, least: int, most: int) -> int:
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not least <= self.value <= most:
            raise self.wrong(f"must be a whole number from {least} to {most}")
        return self.value

    def _inside(self, step: str, value: Any) -> Field:
        return Field(self.file, f"{self.where}{step}".removeprefix("."), value)
