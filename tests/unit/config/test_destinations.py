"""What a destination's table may say about compression."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.config.load import parse, problems

TEXT = '[[destination]]\nname = "a"\nkind = "dimse"\nhost = "h"\nae_title = "A"\ncompression = "{}"\n'


def test_htj2k_without_its_library_is_a_mistake_that_names_the_fix(tmp_path, monkeypatch):
    path = tmp_path / "g.toml"
    path.write_text(TEXT.format("htj2k"))
    assert problems(path) == []
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    (problem,) = problems(path)
    assert (problem.line, problem.path) == (6, "destination[0].compression")
    assert "pip install 'dicom-edge-gateway[htj2k]'" in problem.message


@pytest.mark.parametrize("codec", ["auto", "off", "jpeg-ls", "jpeg-2000", "rle", "deflated"])
def test_no_other_codec_needs_it(tmp_path, monkeypatch, codec):
    path = tmp_path / "g.toml"
    path.write_text(TEXT.format(codec))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert problems(path) == []


def test_lossy_images_are_not_decoded_unless_somebody_says_so():
    assert parse(TEXT.format("off"), Path("g.toml")).settings.destination[0].allow_decompress is False
    allowed = parse(TEXT.format("off") + "allow_decompress = true\n", Path("g.toml")).settings
    assert allowed.destination[0].allow_decompress is True
