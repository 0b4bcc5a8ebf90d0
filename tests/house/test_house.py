"""Floors, owners, sizes, annotations, broad excepts, the diagram, documented settings, a clean repository."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from pydantic import BaseModel

from gateway.config import schema
from gateway.model.lifecycle import diagram

_spec = spec_from_file_location("house_rules", Path(__file__).with_name("rules.py"))
rules = module_from_spec(_spec)
_spec.loader.exec_module(rules)

RULES = {
    rules.floor_faults: ("spool/x.py", "from gateway.arrive import reception"),
    rules.owner_faults: ("send/x.py", "import threading\nthreading.Thread(target=print)"),
    rules.size_faults: ("send/x.py", "def f():\n" + "    pass\n" * 61),
    rules.annotation_faults: ("send/x.py", "def f(x) -> None: ..."),
    rules.broad_faults: ("send/x.py", "try:\n    pass\nexcept Exception:\n    pass"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rules(rule):
    assert [fault for name, text in rules.sources().items() for fault in rule(name, text)] == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_each_rule_can_fail(rule):
    assert rule(*RULES[rule])


def test_the_fleet_monitor_knows_no_room_of_a_box():
    assert rules.floor_faults("fleet/x.py", "from gateway.health import mqtt")
    assert not rules.floor_faults("fleet/x.py", "from gateway.model import topics")


def test_no_other_room_accepts_by_another_call():
    assert rules.owner_faults("send/x.py", "import socket\nsocket.create_server(('', 1))")
    assert rules.owner_faults("send/x.py", "s.listen(1)")


def test_the_diagram_in_the_architecture_is_the_tables():
    assert diagram() in (rules.ROOT / "ARCHITECTURE.md").read_text()


def lessons_without_a_test(text: str) -> list[str]:
    there = "\n".join(path.read_text() for path in (rules.ROOT / "tests").rglob("test_*.py"))
    lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
    return [
        line
        for line in lines
        if (not (named := re.findall(r"`(test_\w+)`", line)) and "by design" not in line)
        or any(f"def {name}(" not in there for name in named)
    ]


def test_every_lesson_names_a_test_that_is_there_or_a_decision():
    text = (rules.ROOT / "tests" / "LESSONS.md").read_text()
    assert text.count("\n| ") > 20
    assert lessons_without_a_test(text) == []
    assert lessons_without_a_test("| a | b | c |\n| x | y | `test_that_nobody_wrote` |\n| x | y | z |") != []


def test_every_setting_is_documented():
    tables = [t for t in vars(schema).values() if isinstance(t, type) and issubclass(t, BaseModel)]
    bare = [
        f"{table.__name__}.{name}"
        for table in tables
        for name, field in table.model_fields.items()
        if not field.description and name != "kind"
    ]
    assert bare == []


def test_the_shipped_schema_is_the_schema():
    shipped = json.loads((rules.ROOT / "gateway/config/schema.json").read_text())
    assert shipped == json.loads(json.dumps(schema.Settings.model_json_schema()))


def test_the_lock_holds_hashes_and_no_addresses():
    lock = (rules.ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert lock.count("--hash=sha256:") > 40


def test_the_repository_speaks_of_itself_alone():
    files = subprocess.run(["git", "ls-files"], cwd=rules.ROOT, capture_output=True, text=True, check=True)
    alien = re.compile(r"/(?:home|Users|work)/\w+/")
    found = [
        name
        for name in files.stdout.split()
        if (rules.ROOT / name).is_file() and alien.search((rules.ROOT / name).read_text(errors="ignore"))
    ]
    assert found == []


def test_help_is_there_for_every_command():
    for command in (
        *("demo", "init", "run", "config", "doctor", "status", "queue"),
        *("route", "import", "echo", "fleet", "emulate"),
    ):
        shown = subprocess.run([sys.executable, "-m", "gateway", command, "--help"], capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
