"""Where each key of a TOML file stands: `tomllib` gives values but no lines, and a field engineer needs the line.

Reads only text that `tomllib` has accepted, so it looks for the shape of the document and judges nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_left

Key = tuple[str | int, ...]
"""A dotted path with the index of each array element: ("destination", 0, "host")."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"[ \t]*(?:\"((?:[^\"\\\n]|\\.)*)\"|'([^'\n]*)'|([A-Za-z0-9_-]+))[ \t]*")
_VALUE = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|[^,\]}#\n]+', re.DOTALL
)


def lines(text: str) -> dict[Key, int]:
    """Return the line, counted from 1, of every table, key and array element of a valid TOML document."""
    walk = _Walk(text)
    walk.document()
    return walk.found


class _Walk:
    """One pass over the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._at = 0
        self._elements: dict[Key, int] = {}
        self.found: dict[Key, int] = {}

    def document(self) -> None:
        table: Key = ()
        while self._skip_blank():
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._assignment(table)

    def _skip_blank(self) -> bool:
        """Go to the next thing that says something; False at the end."""
        match = _BLANK.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at < len(self._text)

    def _note(self, key: Key) -> None:
        self.found.setdefault(key, bisect_left(self._ends, self._at) + 1)

    def _header(self) -> Key:
        array = self._text.startswith("[[", self._at)
        start, self._at = self._at, self._at + (2 if array else 1)
        parts = self._key()
        end, self._at = self._at + (2 if array else 1), start
        key = self._within(parts[:-1]) + parts[-1:]
        self._note(key)
        if array:
            self._elements[key] = self._elements.get(key, -1) + 1
            key = (*key, self._elements[key])
            self._note(key)
        else:
            key = self._within(parts)
        self._at = end
        return key

    def _within(self, parts: Key) -> Key:
        """Return `parts` with the index of the newest element after each array of tables."""
        key: Key = ()
        for part in parts:
            key = (*key, part)
            if key in self._elements:
                key = (*key, self._elements[key])
        return key

    def _key(self) -> Key:
        parts: list[str | int] = []
        while match := _KEY_PART.match(self._text, self._at):
            parts.append(next(group for group in match.groups() if group is not None))
            self._at = match.end()
            if not self._text.startswith(".", self._at):
                break
            self._at += 1
        return tuple(parts)

    def _assignment(self, table: Key) -> None:
        start = self._at
        parts = self._key()
        end, self._at = self._at + 1, start  # past the equals sign
        for depth in range(1, len(parts) + 1):
            self._note(table + parts[:depth])
        self._at = end
        self._value(table + parts)

    def _value(self, key: Key) -> None:
        self._skip_blank()
        if self._text.startswith("[", self._at):
            self._array(key)
        elif self._text.startswith("{", self._at):
            self._inline_table(key)
        else:
            match = _VALUE.match(self._text, self._at)
            self._at = match.end() if match else len(self._text)

    def _array(self, key: Key) -> None:
        self._at += 1
        index = 0
        while self._skip_blank() and not self._text.startswith("]", self._at):
            if self._text.startswith(",", self._at):
                self._at += 1
                continue
            self._note((*key, index))
            self._value((*key, index))
            index += 1
        self._at += 1

    def _inline_table(self, key: Key) -> None:
        self._at += 1
        while self._skip_blank() and not self._text.startswith("}", self._at):
            if self._text.startswith(",", self._at):
                self._at += 1
                continue
            self._assignment(key)
        self._at += 1
