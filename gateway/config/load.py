"""Reads the configuration file: all problems at once, each with its path and line; or the settings and their origin."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from gateway.config.checks import findings, near
from gateway.config.lines import Key, lines
from gateway.config.schema import Settings
from gateway.model.errors import ConfigError

DEFAULT_PATH = Path("/etc/dicom-gateway/gateway.toml")
_UNION_TAGS = frozenset({"dimse", "stow", "folder"})
_LINE = re.compile(r" \(at line (\d+), column \d+\)$")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the file."""

    path: str
    """Dotted, with the index of each array element from 0; empty for the file itself."""
    line: int
    message: str

    def __str__(self) -> str:
        """As an editor's list of errors has it."""
        return f"line {self.line}: {self.path + ': ' if self.path else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used."""

    settings: Settings
    provenance: dict[str, str]
    """Dotted path of each effective value: "line N", or "default"."""


def dotted(key: Key) -> str:
    """Return ("destination", 0, "host") as "destination[0].host"."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _read(path: Path) -> tuple[dict[str, Any], dict[Key, int], list[Problem]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            hint="write one with `dicom-gateway init`, or name it by --config",
        ) from error
    except UnicodeDecodeError as error:
        return {}, {}, [Problem("", 1, f"the file is not UTF-8: {error.reason}")]
    try:
        return tomllib.loads(text), lines(text), []
    except tomllib.TOMLDecodeError as error:
        found = _LINE.search(str(error))
        line = int(found.group(1)) if found else text.count("\n") + 1
        return {}, {}, [Problem("", line, _LINE.sub("", str(error)))]


def _line_of(key: Key, where: dict[Key, int]) -> int:
    while key and key not in where:
        key = key[:-1]
    return where.get(key, 1)


def _key_of(location: tuple[int | str, ...]) -> Key:
    """Drop what pydantic adds to a path: the tag of the union's member."""
    return tuple(
        part
        for index, part in enumerate(location)
        if not (part in _UNION_TAGS and index == 2 and location[0] == "destination")
    )


def _known_keys(key: Key, raw: dict[str, Any]) -> list[str]:
    """Return the field names of the table in which `key` stands."""
    model: Any = Settings
    for part in key[:-1]:
        if isinstance(part, int):
            continue
        if part == "destination":
            kind = raw["destination"][key[1]].get("kind") if len(key) > 1 and isinstance(key[1], int) else None
            from gateway.config import schema

            kinds = {"dimse": schema.DimseDestination, "stow": schema.StowDestination}
            model = kinds.get(str(kind), schema.FolderDestination)
            continue
        field = getattr(model, "model_fields", {}).get(part)
        candidates = _models_in(field.annotation) if field else []
        model = candidates[0] if candidates else None
    return list(getattr(model, "model_fields", {}))


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _judge(path: Path) -> tuple[Settings | None, list[Problem], dict[Key, int]]:
    raw, where, problems = _read(path)
    if problems:
        return None, problems, where
    settings = None
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        for fault in error.errors():
            key = _key_of(fault["loc"])
            if not key:
                continue  # between tables: found again below, with a line
            message = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "extra_forbidden":
                message = f"unknown key{near(str(key[-1]), _known_keys(key, raw))}"
            problems.append(Problem(dotted(key), _line_of(key, where), message))
    folder = path.parent
    problems += [Problem(dotted(key), _line_of(key, where), said) for key, said in findings(raw, folder)]
    return settings, sorted(problems, key=lambda problem: (problem.line, problem.path)), where


def problems(path: Path) -> list[Problem]:
    """Return everything that is wrong with the file, in order of lines; raises ConfigError when it cannot be read."""
    return _judge(path)[1]


def _anchored(value: Any, folder: Path) -> Any:
    """Return settings with every relative path taken from the folder of the configuration file."""
    if isinstance(value, Path):
        return value if value.is_absolute() else Path(os.path.normpath(folder / value))
    if isinstance(value, BaseModel):
        return value.model_copy(
            update={name: _anchored(getattr(value, name), folder) for name in type(value).model_fields}
        )
    if isinstance(value, list):
        return [_anchored(element, folder) for element in value]
    return value


def _provenance(value: Any, key: Key, where: dict[Key, int]) -> dict[str, str]:
    if isinstance(value, BaseModel):
        found = {}
        for name in type(value).model_fields:
            found.update(_provenance(getattr(value, name), (*key, name), where))
        return found
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        found = {}
        for index, element in enumerate(value):
            found.update(_provenance(element, (*key, index), where))
        return found
    return {dotted(key): f"line {where[key]}" if key in where else "default"}


def load(path: Path) -> Loaded:
    """Return the settings of a file; raises ConfigError that names every problem."""
    path = path.absolute()
    settings, found, where = _judge(path)
    if found or settings is None:
        listed = "\n".join(f"  {problem}" for problem in found)
        raise ConfigError(f"{path} has {len(found)} problem{'s' if len(found) != 1 else ''}:\n{listed}")
    return Loaded(_anchored(settings, path.parent), _provenance(settings, (), where))
