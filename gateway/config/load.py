"""From a TOML file to settings, or to every reason why not, each with its line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.checks import Finding, findings, near
from gateway.config.lines import Key, lines
from gateway.config.schema import Settings
from gateway.model.errors import ConfigError

MAX_BYTES = 1 << 20
DEFAULT = "default"

Schema = TypeVar("Schema", bound=BaseModel)
Findings = Callable[[dict[str, Any], Path], Iterable[Finding]]
"""What a schema cannot see in the raw document; relative paths are looked up in the folder."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that must be mended in the file."""

    path: str
    """Dotted: `destination[0].host`; empty for the file as a whole."""
    line: int | None
    """Counted from 1; None where no line is to blame."""
    message: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return where + (f"{self.path}: " if self.path else "") + self.message


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that can be used, and where each came from."""

    settings: Settings
    provenance: dict[str, str]
    """Dotted path of each effective value -> "file:line" or "default"."""


def load(path: Path) -> Loaded:
    """Return the settings in `path`, relative paths taken from its folder; raises ConfigError with all problems."""
    try:
        text = _read(path)
    except ValueError as error:
        raise ConfigError(
            f"{path}: {error}", hint="make one with `dicom-gateway init`, or name it by --config"
        ) from None
    return parse(text, path)


def load_as(schema: type[Schema], path: Path, look: Findings, hint: str) -> Schema:
    """The same for another kind of file: `look` says what `schema` cannot see, `hint` what to do about problems."""
    try:
        text = _read(path)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}", hint=hint) from None
    return _good(schema, text, path, look, hint)


def problems(path: Path) -> list[Problem]:
    """Return all that must be mended in `path`, in the order of its lines; empty when the gateway can use it."""
    try:
        text = _read(path)
    except ValueError as error:
        return [Problem("", None, str(error))]
    return _examine(Settings, text, path.absolute().parent, findings)[1]


def parse(text: str, path: Path) -> Loaded:
    """The same as `load` for a text that is to stand, or stands, in `path`."""
    settings = _good(Settings, text, path, findings)
    where = lines(text)
    provenance = {dotted(key): f"{path}:{where[key]}" if key in where else DEFAULT for key, _ in values(settings)}
    return Loaded(settings, provenance)


def _good(schema: type[Schema], text: str, path: Path, look: Findings, hint: str = "") -> Schema:
    folder = path.absolute().parent
    settings, found = _examine(schema, text, folder, look)
    if settings is None or found:
        noun = "problem" if len(found) == 1 else "problems"
        said = f"{path}: {len(found)} {noun}\n" + "\n".join(f"  {problem}" for problem in found)
        raise ConfigError(said, hint=hint)
    anchored: Schema = _anchored(settings, folder)
    return anchored


def values(table: BaseModel, key: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Yield the key and value of every setting; tables are gone into, lists of plain values are one value."""
    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from values(value, (*key, name))
        elif isinstance(value, list) and value and isinstance(value[0], BaseModel):
            for index, element in enumerate(value):
                yield from values(element, (*key, name, index))
        else:
            yield (*key, name), value


def dotted(key: Key) -> str:
    """Spell a key as people read it: `destination[0].host`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def _read(path: Path) -> str:
    """Return the file's text; raises ValueError with a sentence."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"is longer than {MAX_BYTES} bytes")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")  # editors on other systems write both
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"is not UTF-8 text (line {line})") from None


def _examine(schema: type[Schema], text: str, folder: Path, look: Findings) -> tuple[Schema | None, list[Problem]]:
    try:
        raw = tomllib.loads(text)
        where = lines(text)
    except tomllib.TOMLDecodeError as error:
        return None, [_syntax_problem(text, str(error))]
    except RecursionError:
        return None, [Problem("", None, "is nested too deeply")]
    contradictions = list(look(raw, folder))
    settings, complaints = None, []
    try:
        settings = schema.model_validate(raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if detail["loc"] or not contradictions:  # what the schema says of the whole file, `checks` says better
                complaints.append(_complaint(schema, detail, raw))
    found = {Problem(dotted(key), _line(key, where), message) for key, message in contradictions + complaints}
    return settings, sorted(found, key=lambda problem: (problem.line or 0, problem.path, problem.message))


def _syntax_problem(text: str, said: str) -> Problem:
    """Take the line out of tomllib's sentence: "… (at line 3, column 7)", "… (at end of document)"."""
    message, _, place = said.rpartition(" (at ")
    words = place.replace(",", " ").split()
    line = int(words[1]) if words[:1] == ["line"] else text.count("\n") + 1
    return Problem("", line, f"is not TOML: {message}")


def _line(key: Key, where: dict[Key, int]) -> int | None:
    """Return the line of the key, or of the nearest table around it that has one."""
    for length in range(len(key), 0, -1):
        if key[:length] in where:
            return where[key[:length]]
    return None


def _complaint(schema: type[BaseModel], detail: ErrorDetails, raw: dict[str, Any]) -> tuple[Key, str]:
    """Turn what the schema says into the words of the file."""
    key, models = _locate(schema, detail["loc"], raw)
    kind, said, given = detail["type"], detail["msg"], detail["input"]
    if kind == "extra_forbidden":
        known = sorted({name for model in models for name in model.model_fields})
        return key, "unknown key" + near(str(key[-1]), known)
    if kind == "missing":
        return key, "is required"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        return (*key, "kind"), f"must be one of {detail.get('ctx', {}).get('expected_tags', _kinds())}"
    if kind == "list_type" and isinstance(given, dict):
        return key, f"is a list of tables: write [[{key[-1]}]] with two brackets"
    if kind in ("model_type", "model_attributes_type"):
        return key, f"is a table: write [{key[-1]}] with one bracket" if isinstance(given, list) else "must be a table"
    if kind == "value_error":  # our own sentence names the value where that helps
        return key, said.removeprefix("Value error, ")
    said = said.replace("Input should", "should", 1)
    return key, f"{said}, not {given!r}" if isinstance(given, (str, int, float)) else said


def _kinds() -> str:
    return ", ".join(
        repr(tag) for model in _models(Settings.model_fields["destination"].annotation) for tag in _tag(model)
    )


def _locate(schema: type[BaseModel], loc: tuple[str | int, ...], raw: Any) -> tuple[Key, list[type[BaseModel]]]:
    """Return the key without the schema's own marks, and the tables of the schema that could hold its last part."""
    key: list[str | int] = []
    models: list[type[BaseModel]] = [schema]
    holders = models
    for part in loc:
        chosen = [model for model in models if part in _tag(model)]
        if chosen and isinstance(raw, dict) and raw.get("kind") == part and isinstance(key[-1], int):
            models = chosen
            continue
        key.append(part)
        holders = models
        if isinstance(part, str):
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [inner for field in fields for inner in _models(field.annotation)]
            raw = raw.get(part) if isinstance(raw, dict) else None
        else:
            raw = raw[part] if isinstance(raw, list) and part < len(raw) else None
    return tuple(key), holders


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the tables named anywhere in a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _tag(model: type[BaseModel]) -> tuple[object, ...]:
    """Return the `kind`s of a table that is chosen by its kind."""
    field = model.model_fields.get("kind")
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()


def _anchored(value: Any, folder: Path) -> Any:
    """Return settings whose relative paths start at `folder`."""
    if isinstance(value, Path):
        return folder / value
    if isinstance(value, list):
        return [_anchored(element, folder) for element in value]
    if isinstance(value, BaseModel):
        return value.model_copy(
            update={name: _anchored(getattr(value, name), folder) for name in type(value).model_fields}
        )
    return value
