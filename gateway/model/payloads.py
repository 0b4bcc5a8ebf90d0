"""The JSON Schemas (draft 2020-12) of every payload; the files beside this one are the source.

What is added to a payload later is never `required`: a monitor must understand boxes of every version of its fleet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import fastjsonschema

NAMES = ("session", "birth", "health", "svc", "mod", "dst", "m", "e", "a", "cap", "res", "cmd", "body", "desired")
"""Payloads; each is `schemas/NAME.v1.json`."""


@cache
def schema(name: str) -> dict[str, Any]:
    """Return one schema document as it stands in the package."""
    text = files("gateway.model").joinpath("schemas", f"{name}.v1.json").read_text()
    document: dict[str, Any] = json.loads(text)
    return document


@cache
def _validator(name: str) -> Any:
    # Here, since it is a twelfth of all that the service would import at its start, and is wanted when a command comes.
    from jsonschema import Draft202012Validator, ValidationError, validators
    from referencing import Registry, Resource

    def by_ecma(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[ValidationError]:
        """The keyword by ECMA 262, as JSON Schema wants it: `$` is the end, and not before a last newline as well."""
        if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
            yield ValidationError("does not match")

    registry: Registry[Any] = Registry().with_resource("common.v1.json", Resource.from_contents(schema("common")))
    return validators.extend(Draft202012Validator, {"pattern": by_ecma})(schema(name), registry=registry)


def faults(name: str, payload: Any) -> list[str]:
    """Return where a payload breaks its schema, as paths; never what it holds, which may be anybody's."""
    try:
        return ["/".join(map(str, error.absolute_path)) or "/" for error in _validator(name).iter_errors(payload)]
    except RecursionError:  # it words each fault with the value in it, however deep that is
        return ["/"]


@cache
def _compiled(name: str) -> Callable[[Any], Any]:
    """Return the schema as code. It is of draft 2020-12 in words that draft 07 has too: of that the compiler knows."""
    text = json.dumps({**schema(name), "$defs": schema("common")["$defs"]}).replace("common.v1.json#", "#")
    document = _of_any_version(json.loads(text))
    for mark in ("$schema", "$id"):
        document.pop(mark)
    check: Callable[[Any], Any] = fastjsonschema.compile(document)
    return check


def _of_any_version(node: Any) -> Any:
    """Return a schema without what names of other versions would break: those to come, and those not yet there."""
    if isinstance(node, list):
        return [_of_any_version(element) for element in node]
    if not isinstance(node, dict):
        return node
    return {
        word: _of_any_version(inner)
        for word, inner in node.items()
        if not (word == "required" and isinstance(inner, list)) and not (word == "additionalProperties" and not inner)
    }


def readable(name: str, payload: Any) -> bool:
    """True when nothing that is there breaks the schema; names may be missing or unknown: box and reader may be of
    different versions. Compiled, some thirty times faster than `faults`."""
    try:
        _compiled(name)(payload)
    except fastjsonschema.JsonSchemaValueException:
        return False
    return True


def verbs() -> list[str]:
    """Return the closed list of commands."""
    return list(schema("common")["$defs"]["verb"]["enum"])
