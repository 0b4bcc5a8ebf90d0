"""The table in the README is the table in the code."""

from pathlib import Path

import pytest

from gateway.model import codes
from gateway.model.payloads import faults

README = Path(codes.__file__).parents[1] / "health/README.md"


def test_the_table_in_the_readme_is_the_table_in_the_code():
    assert f"<!-- codes -->\n{codes.table()}\n<!-- end of codes -->" in README.read_text()


@pytest.mark.parametrize("code", codes.CODES)
def test_every_code_can_be_told(code):
    alarm = {
        "v": 1,
        "ts": "2026-01-01T00:00:00Z",
        "session": "0" * 32,
        "seq": 0,
        "code": code,
        "severity": codes.CODES[code].severity.value,
        "since": "2026-01-01T00:00:00Z",
        "components": ["disk"],
    }
    assert faults("a", alarm) == []
