"""Mistakes in routes are told with their line; what passes is compiled and cannot keep the gateway busy."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.config.load import parse, problems
from gateway.config.regex import compiled
from gateway.config.tags import element

HEAD = '[[destination]]\nname = "a"\nkind = "folder"\npath = "out"\n[[route]]\nto = ["a"]\nwhen = { tag = [\n'
"""Seven lines: the entry under test stands on line 8."""


def complaints(tmp_path, entry: str) -> list[tuple[int | None, str]]:
    path = tmp_path / "g.toml"
    path.write_text(HEAD + entry + "\n] }\n")
    return [(problem.line, f"{problem.path}: {problem.message}") for problem in problems(path)]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ('{ tag = "PatientSx", equals = "F" }', "did you mean 'PatientSex'?"),
        ('{ tag = "0010,004", equals = "F" }', "no DICOM attribute"),
        ('{ tag = "RequestAttributesSequence", absent = true }', "is a sequence"),
        ('{ tag = "PixelData", absent = true }', "does not stand in the beginning"),
        ('{ tag = "TransferSyntaxUID", absent = true }', "does not stand in the beginning"),
        ('{ tag = "PatientSex" }', "give exactly one"),
        ('{ tag = "PatientSex", equals = "F", absent = true }', "give exactly one"),
        ('{ tag = "PatientSex", equal = "F" }', "did you mean 'equals'?"),
        ('{ tag = "PatientSex", one_of = [] }', "one_of"),
        ('{ tag = "PatientSex", matches = "(" }', "not a regular expression"),
        ('{ tag = "PatientSex", matches = "(a+)+b" }', "for ever"),
        ('{ tag = "PatientSex", matches = 5 }', "in quotes"),
        ('{ tag = "Rows", range = [5, 1] }', "begins after its end"),
        ('{ tag = "Rows", range = [nan, 1] }', "begins after its end"),
        ('{ tag = "Rows", range = [5, "9"] }', "goes from a number to a text"),
        ('{ tag = "Rows", range = [5, true] }', "a number or a text"),
        ('{ tag = "Rows", range = [5] }', "range"),
        ('{ equals = "F" }', "tag: is required"),
    ],
)
def test_a_mistake_in_a_tag_condition_is_told_with_its_line(tmp_path, entry, sentence):
    found = complaints(tmp_path, entry)
    assert [line for line, _ in found] == [8], found
    assert sentence in found[0][1]
    assert found[0][1].startswith("route[0].when.tag[0]")


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ('address = ["192.0.2.0/33"]', "192.0.2.0/33"),
        ("address = [5]", "in quotes"),
        ('time_of_day = "25:00-06:00"', "time_of_day"),
        ('time_of_day = "06:00-06:00"', "ends when it begins"),
        ('bodypart = ["CHEST"]', "did you mean 'body_part'?"),
    ],
)
def test_a_mistake_in_a_condition_is_told_with_its_line(tmp_path, condition, sentence):
    path = tmp_path / "g.toml"
    path.write_text(HEAD.partition("when")[0] + f"[route.when]\n{condition}\n")
    found = problems(path)
    assert [problem.line for problem in found] == [8], found
    assert sentence in str(found[0])


def test_a_good_route_survives_being_shown_as_json():
    text = HEAD + '{ tag = "Rows", range = [512, inf] }, { tag = "0008,103e", matches = "(?i)scout" } ] }\n'
    settings = parse(text, Path("g.toml")).settings
    assert settings.route[0].when.tag[1].matches.search("a SCOUT view")
    shown = json.loads(settings.model_dump_json(), parse_constant=pytest.fail)
    assert shown["route"][0]["when"]["tag"][0]["range"] == [512, "Infinity"]
    assert parse(text, Path("g.toml")).settings == settings, "a reload finds nothing new in the same text"


@pytest.mark.parametrize("name", ["PatientSex", "0010,0040", "(0010,0040)", "00100040", "0010, 0040"])
def test_an_attribute_has_several_spellings(name):
    assert element(name) == (0x00100040, "CS")


def test_a_private_attribute_has_no_vr_by_the_dictionary():
    assert element("0029,1010") == (0x00291010, "")


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+b",
        "(a|aa)*b",
        "(?:a|a){20}b",
        "^" + "a?" * 30 + "b",
        "(?:a?){50}b",
        "(a*)*",
        "(.*a){12}",
        ".*.*.*.*x",
        "a?" * 40 + "a" * 40,
        "(?:(?:a+)|b)*c",
    ],
)
def test_a_pattern_that_backtracks_without_end_is_refused(pattern):
    with pytest.raises(ValueError, match="for ever"):
        compiled(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "^CT",
        "(?i)chest|thorax",
        r"^\d+\.\d+\.\d+$",
        ".*a.*b.*",
        "^(CT|MR)?.*foo.*$",
        r"(\d{1,3}\.){3}\d{1,3}",
        ".*.*.*[xy]",
        "(?:ab)*x",
    ],
)
def test_a_pattern_of_daily_use_is_taken_and_is_quick_on_the_worst_values(pattern):
    expression = compiled(pattern)
    started = time.process_time()
    for value in ("a" * 128, "1." * 64, "CT" * 64, " " * 128):
        expression.search(value)
    assert time.process_time() - started < 2


def test_a_file_without_tags_costs_no_data_dictionary():
    code = (
        "import sys; from pathlib import Path; from gateway.config.load import parse; "
        'parse(\'[[destination]]\\nname="a"\\nkind="folder"\\npath="o"\\n[[route]]\\nto=["a"]\\n'
        "when={modality=[\"CT\"]}', Path('g.toml')); sys.exit('pydicom' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
