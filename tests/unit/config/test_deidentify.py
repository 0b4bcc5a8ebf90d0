"""Mistakes in `[[deidentify]]` are told with their line and the fix."""

from __future__ import annotations

import pytest

from gateway.config.load import parse, problems

HEAD = (
    '[[destination]]\nname = "a"\nkind = "folder"\npath = "out"\n[[route]]\nto = ["a"]\ndeidentify = "research"\n'
    '[[deidentify]]\nname = "research"\nkey_file = "key"\n'
)
"""Ten lines: the entry under test stands on line 11."""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "key").chmod(0o600)
    return tmp_path


def complaints(folder, entry: str, head: str = HEAD) -> list[tuple[int | None, str]]:
    path = folder / "g.toml"
    path.write_text(head + entry + "\n")
    return [(problem.line, f"{problem.path}: {problem.message}") for problem in problems(path)]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ('options = ["retain-uid"]', "retain-uids"),
        ('options = ["retain-uids", "retain-uids"]', "twice"),
        (
            'options = ["retain-longitudinal-full-dates", "retain-longitudinal-modified-dates"]',
            "give one of the options",
        ),
        ('allowed_words = ["CT"]', "nothing without the option clean-descriptors"),
        ('blacken = [{ modality = "US", rectangles = [] }]', "nothing without the option clean-pixel-data"),
        ('safe_private = [{ creator = "A", elements = ["0019,xx01"] }]', "without the option retain-safe-private"),
        ('options = ["clean-pixel-data"]', "needs blacken"),
        ('patient_id_prefix = "A\\\\B"', "patient_id_prefix"),
        ('option = ["retain-uids"]', "did you mean 'options'?"),
    ],
)
def test_a_mistake_is_told_with_its_line(folder, entry, sentence):
    found = complaints(folder, entry)
    assert len(found) == 1, found
    assert sentence in found[0][1]
    assert found[0][0] in (8, 11)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ('{ modality = "US", rectangles = [[0, 0, 0, 5]] }', "at least 1"),
        ('{ modality = "US", rectangles = [[0, 0, 5]] }', "rectangles"),
        ('{ modality = "US", rectangles = [[-1, 0, 5, 5]] }', "greater than or equal to 0"),
        ('{ modality = "US" }', "rectangles: is required"),
        ("{ rectangles = [] }", "modality: is required"),
    ],
)
def test_a_mistake_in_a_blacken_rule(folder, entry, sentence):
    found = complaints(folder, f'options = ["clean-pixel-data"]\nblacken = [\n{entry}\n]')
    assert len(found) == 1, found
    assert sentence in found[0][1]


@pytest.mark.parametrize("name", ["0018,xx01", "0019,1001", "0019xx01", "0019,xx1"])
def test_only_private_elements_are_safe_private_elements(folder, name):
    entry = f'options = ["retain-safe-private"]\nsafe_private = [{{ creator = "A", elements = ["{name}"] }}]'
    [(_, sentence)] = complaints(folder, entry)
    assert "is not a private element" in sentence


def test_a_route_names_a_way_that_there_is(folder):
    head = HEAD.replace('deidentify = "research"', 'deidentify = "reserch"')
    assert complaints(folder, "", head) == [
        (7, "route[0].deidentify: no [[deidentify]] is called 'reserch'; did you mean 'research'?")
    ]


def test_names_are_used_once(folder):
    found = complaints(folder, '[[deidentify]]\nname = "research"\nkey_file = "key"')
    assert found == [(12, "deidentify[1].name: deidentify name 'research' is used twice")]


@pytest.mark.parametrize(
    ("mode", "content", "sentence"),
    [(0o644, bytes(range(32)), "chmod 600"), (0o600, b"short", "openssl rand"), (0o600, bytes(32), "not random")],
)
def test_the_key_is_looked_at(folder, mode, content, sentence):
    (folder / "key").write_bytes(content)
    (folder / "key").chmod(mode)
    [(line, said)] = complaints(folder, "")
    assert line == 10 and sentence in said


def test_a_missing_key_is_told_once(folder):
    (folder / "key").unlink()
    [(line, said)] = complaints(folder, "")
    assert line == 10 and "there is no file" in said


def test_what_is_right_is_taken(folder):
    text = HEAD + (
        'options = ["clean-pixel-data", "retain-safe-private", "clean-descriptors"]\nallowed_words = ["chest"]\n'
        'patient_id_prefix = ""\nsafe_private = [{ creator = "ACME", elements = ["0019,xx0C"] }]\n'
        'blacken = [{ modality = "US", size = [800, 600], rectangles = [[0, 0, 800, 50]] }]\n'
    )
    settings = parse(text, folder / "g.toml").settings
    [table] = settings.deidentify
    assert table.key_file == folder / "key"
    assert table.blacken[0].rectangles == [(0, 0, 800, 50)]
    assert settings.route[0].deidentify == "research"
