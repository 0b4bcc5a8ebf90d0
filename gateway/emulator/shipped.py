"""What the package brings as TOML files: profiles of scanners, scenarios of days; or a file of one's own."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from pydantic import ValidationError


class ProfileError(ValueError):
    """No such profile, quirk or scenario, or one that says what no scanner has; the text names the cause."""


def names(folder: str) -> list[str]:
    """Return the names of all that `folder` holds."""
    return sorted(path.name.removesuffix(".toml") for path in (files("gateway.emulator") / folder).iterdir())


def table(kind: str, folder: str, name: str) -> dict[str, Any]:
    """Return what is said under this name, or in a file whose name ends with .toml; to be called within `explained`."""
    if name.endswith(".toml"):
        with open(name, "rb") as file:
            return tomllib.load(file)
    if name not in names(folder):
        raise ProfileError(f"no {kind} {name!r}; there are {', '.join(names(folder))}, or a file that ends with .toml")
    path = files("gateway.emulator") / folder / f"{name}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


@contextmanager
def explained(kind: str, name: str) -> Iterator[None]:
    """Turn what is wrong with a file into a ProfileError that names it."""
    try:
        yield
    except OSError as error:
        raise ProfileError(f"{kind} {name}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"{kind} {name}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ProfileError(f"{kind} {name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
