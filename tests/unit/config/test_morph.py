"""Mistakes in recipes are told with their line, all at once, so that no instance has to find them out."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from gateway.config.load import parse, problems
from gateway.config.morph import Step, change_in_words, tag_path

HEAD = '[[destination]]\nname = "a"\nkind = "folder"\npath = "out"\n[[morph]]\nname = "m"\n[[morph.change]]\n'
"""Seven lines: the change under test begins on line 8."""


def complaints(tmp_path, change: str, head: str = HEAD) -> list[tuple[int | None, str]]:
    path = tmp_path / "g.toml"
    path.write_text(head + change + "\n")
    return [(problem.line, f"{problem.path}: {problem.message}") for problem in problems(path)]


GOOD = [
    'tag = "PatientID"\nprefix = "A-"',
    'tag = "0010,0020"\nset = "A"',
    'tag = "(0010,0020)"\nset = ""',
    'tag = "ImageType"\nset = ["DERIVED", "SECONDARY"]',
    'tag = "PatientSize"\nset = 1.78',
    'tag = "SeriesNumber"\nset = 7',
    'tag = "OtherPatientIDsSequence"\nremove = true',
    'tag = "EncapsulatedDocument"\nremove = true',
    'tag = "0009,1001"\nremove = true',
    'tag = "0009,1001"\nset = "anything"',
    'tag = "RequestAttributesSequence[0].StudyInstanceUID"\ncopy_from = "StudyInstanceUID"',
    'tag = "0040,0275.0040,0009"\nmatch = "^0+"\nreplace = ""',
    'tag = "StudyDescription"\nmap = { "CT KOPF" = "CT head" }\ndefault = "CT"',
    'tag = "StudyInstanceUID"\nset = "1.2.3"',
    'tag = "PatientName"\nset = "Yamada^Tarou=山田^太郎"',
    "tag = \"AccessionNumber\"\nmatch = '(\\d+)-(\\d+)'\nreplace = '\\2/\\1'",
]


@pytest.mark.parametrize("change", GOOD)
def test_what_can_be_done_is_taken(tmp_path, change):
    assert complaints(tmp_path, change) == []


BAD = [
    ('tag = "PatientId"\nset = "A"', "did you mean 'PatientID'?"),
    ('tag = "PatientID"', "give exactly one"),
    ('tag = "PatientID"\nset = "A"\nremove = true', "give exactly one"),
    ('tag = "PatientID"\nremove = false', "true or absent"),
    ('tag = "PatientID"\nmatch = "a"', "go together"),
    ('tag = "PatientID"\nset = "a"\ndefault = "b"', "default goes with map"),
    ('tag = "PatientID"\nmatch = "(a+)+b"\nreplace = ""', "for ever"),
    ('tag = "PatientID"\nmatch = "a"\nreplace = \'\\1\'', "replace cannot be used"),
    ('tag = "PatientID"\nmatch = "a"\nreplace = \'\\g<x>\'', "replace cannot be used"),
    ('tag = "PatientID"\nset = true', "a text or a number"),
    ('tag = "PatientID"\nset = ["a", "b"]', "no more than 1 value"),
    ("tag = \"PatientID\"\nset = 'a\\b'", "backslash"),
    ('tag = "AccessionNumber"\nset = "12345678901234567"', "longer than the 16 characters that SH allows"),
    ('tag = "AccessionNumber"\nprefix = "12345678901234567"', "longer than the 16 characters that SH allows"),
    ('tag = "Modality"\nmap = { CT = "ct" }', "not a code"),
    ('tag = "Modality"\nmap = { CT = "CT" }\ndefault = "other"', "not a code"),
    ('tag = "PatientBirthDate"\nset = "1980-01-01"', "not a date"),
    ('tag = "StudyInstanceUID"\nset = "1.02"', "not a UID"),
    ('tag = "StudyInstanceUID"\nset = ""', "may not be empty"),
    ('tag = "SeriesInstanceUID"\nremove = true', "not removed"),
    ('tag = "SOPInstanceUID"\nset = "1.2.3"', "custody"),
    ('tag = "SOPClassUID"\nset = "1.2.3"', "custody"),
    ('tag = "SpecificCharacterSet"\nset = "ISO_IR 192"', "not by hand"),
    ('tag = "TransferSyntaxUID"\nset = "1.2.3"', "does not belong to a data set"),
    ('tag = "PixelData"\nremove = true', "belongs to the pixels"),
    ('tag = "Rows"\nset = 5', "describes the pixels"),
    ('tag = "BitsAllocated"\nremove = true', "describes the pixels"),
    ('tag = "IconImageSequence.Rows"\nset = 5', "describes the pixels"),
    ('tag = "OriginalAttributesSequence"\nremove = true', "record of changes"),
    ('tag = "0008,0000"\nset = 5', "is a length"),
    ('tag = "SmallestPixelValueInSeries"\nset = 5', "follows the pixels"),
    ('tag = "OtherPatientIDsSequence"\nset = "A"', "name an attribute in it"),
    ('tag = "EncapsulatedDocument"\nset = "A"', "neither text nor a number"),
    ('tag = "PatientID"\ncopy_from = "EncapsulatedDocument"', "neither text nor a number"),
    ('tag = "PatientID"\ncopy_from = "Nonsense"', "no DICOM attribute"),
    ('tag = "PatientID.StudyID"\nset = "A"', "'PatientID' is no sequence"),
    ('tag = "PatientID[0]"\nset = "A"', "ends with an item"),
    ('tag = "RequestAttributesSequence[x].StudyID"\nset = "A"', "neither a keyword"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD)
def test_what_cannot_be_done_is_told_with_its_line(tmp_path, change, sentence):
    found = complaints(tmp_path, change)
    assert len(found) == 1, found
    assert found[0][0] in (7, 8, 9)
    assert found[0][1].startswith("morph[0].change[0]")
    assert sentence in found[0][1]


def test_every_mistake_is_told_at_once(tmp_path):
    text = '[[morph]]\nname = "m"\nreason = "BECAUSE"\nsource = "a\\nb"\nchange = []\n'
    text += '[[morph]]\nname = "m"\nchange = [{ tag = "Rows", set = 1 }, { tag = "PatientId", set = "a" }]\n'
    text += '[[route]]\nto = ["a"]\nmorph = ["n", "site"]\n'
    text += '[[morph]]\nname = "sit"\nchange = [{ tag = "StudyID", set = "" }]'
    said = [message for _, message in complaints(tmp_path, "", HEAD.partition("[[morph")[0] + text)]
    for part in (
        "morph[0].reason",
        "morph[0].source: holds a control character",
        "morph[0].change",
        "morph name 'm' is used twice",
        "'Rows' describes the pixels",
        "did you mean 'PatientID'?",
        "no morph is called 'n'",
        "no morph is called 'site'; did you mean 'sit'?",
    ):
        assert any(part in message for message in said), (part, said)


def test_a_table_of_values_is_shown_as_the_one_value_that_it_is(tmp_path):
    path = tmp_path / "g.toml"
    path.write_text(HEAD + 'tag = "Modality"\nmap = { CT = "MR" }\n')
    command = [sys.executable, "-m", "gateway", "--config", str(path), "config", "show"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    (row,) = [line.split() for line in shown if line.startswith("morph[0].change[0].map")]
    assert row == ["morph[0].change[0].map", '{"CT":', '"MR"}', f"{path}:9"]


def test_a_path_leads_through_sequences():
    path = tag_path("RequestAttributesSequence[1].0040,0009")
    assert (path.steps, path.vr) == ((Step(0x00400275, 1), Step(0x00400009, None)), "SH")
    assert tag_path("0040,0275.ScheduledProcedureStepID").steps == (Step(0x00400275, None), Step(0x00400009, None))


def test_a_recipe_travels_to_a_worker_and_is_told_in_words(tmp_path):
    text = HEAD + GOOD[-1] + "".join(f"\n[[morph.change]]\n{change}" for change in GOOD[:-1])
    morph = parse(text, tmp_path / "g.toml").settings.morph[0]
    assert pickle.loads(pickle.dumps(morph)) == morph
    words = [change_in_words(change) for change in morph.change]
    assert words[0] == r"AccessionNumber with '\2/\1' for '(\d+)-(\d+)'"
    assert words[1] == "PatientID with 'A-' before it"
    assert "StudyDescription by a table ('CT KOPF' to 'CT head', else 'CT')" in words
