"""What nobody changed comes out byte for byte, in every Transfer Syntax; what has no bound or no end is refused."""

from __future__ import annotations

import contextlib
import hashlib
import random
import struct
import subprocess
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gateway.dicom.part10 import meta_bytes, read_meta
from gateway.model.errors import PrepareError
from gateway.model.transfer_syntax import DEFLATED_LE, EXPLICIT_BE, EXPLICIT_LE, IMPLICIT_LE
from gateway.prepare import layout
from gateway.prepare.edit import Header, edit, preview
from gateway.prepare.layout import Coding, Layout, coding_of

DATA = Path(pydicom.__file__).parent / "data"
CUT = {"MR_truncated.dcm", "rtplan_truncated.dcm", "DICOMDIR-nooffset", "SC_rgb_jpeg.dcm"}
"""Files that end too early, or are not in the Transfer Syntax that they name."""


def _part10_files() -> list[Path]:
    found = []
    for path in sorted([*(DATA / "test_files").rglob("*"), *(DATA / "charset_files").rglob("*")]):
        if path.is_file():
            try:
                with open(path, "rb") as file:
                    read_meta(file)
            except ValueError:
                continue
            found.append(path)
    return found


FILES = _part10_files()


def look_at_all(dataset: Dataset) -> None:
    """What a step may do that changes nothing; pydicom makes something else of every raw element by it."""
    for element in dataset.iterall():
        str(element.value)


def change_a_little(dataset: Dataset) -> None:
    look_at_all(dataset)
    dataset.PatientComments = "changed"


def edited(path: Path, out: Path, *steps) -> tuple[bytes, bytes, str]:
    """The data set before and after, and its Transfer Syntax."""
    with open(path, "rb") as file:
        meta = read_meta(file)
        file.seek(meta.dataset_offset)
        before = file.read()
    made = edit(path, meta.dataset_offset, meta.transfer_syntax_uid, out, steps)
    after = out.read_bytes()
    assert (made.sha256, made.length) == (hashlib.sha256(after).hexdigest(), len(after))
    assert list(out.parent.glob(f"{out.name}.*")) == []
    return before, after, meta.transfer_syntax_uid


def elements(dataset: bytes, syntax: str) -> dict[int, bytes]:
    if syntax == DEFLATED_LE:
        dataset = zlib.decompress(dataset, -zlib.MAX_WBITS)
    places = Layout(BytesIO(dataset), coding_of(syntax)).level()
    return {place.tag: dataset[place.head_at : place.end] for place in places}


def test_there_are_files_of_every_kind():
    syntaxes = set()
    for path in FILES:
        with open(path, "rb") as file:
            syntaxes.add(read_meta(file).transfer_syntax_uid)
    assert {IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE, DEFLATED_LE} < syntaxes and len(syntaxes) > 10 and len(FILES) > 150


@pytest.mark.parametrize("step", [None, look_at_all])
def test_no_change_is_no_change(tmp_path, step):
    for path in FILES:
        if path.name in CUT:
            with pytest.raises(PrepareError):
                edited(path, tmp_path / "out")
            continue
        before, after, _ = edited(path, tmp_path / "out", *([step] if step else []))
        assert before == after, path.name


def test_all_else_keeps_its_bytes(tmp_path):
    for path in FILES:
        if path.name in CUT:
            continue
        before, after, syntax = edited(path, tmp_path / "out", change_a_little)
        old, new = elements(before, syntax), elements(after, syntax)
        assert b"changed" in new.pop(0x00104000)
        lost = set(old) - set(new)
        assert lost <= {0x00104000, 0x00100000, 0x00080001}, path.name  # and the lengths that would be wrong
        assert {tag: old[tag] for tag in new} == new, path.name
        assert list(new) == [tag for tag in old if tag in new], path.name


def test_another_implementation_reads_what_was_changed(tmp_path):
    for path in FILES:
        if path.name in CUT or "DICOMDIR" in path.name:
            continue
        with open(path, "rb") as file:
            meta = read_meta(file)
        _, after, syntax = edited(path, tmp_path / "out", change_a_little)
        whole = tmp_path / "whole.dcm"
        whole.write_bytes(meta_bytes(meta.sop_class_uid, meta.sop_instance_uid, syntax) + after)
        said = subprocess.run(["dcmdump", "-q", "+P", "0010,4000", str(whole)], capture_output=True, text=True)
        assert said.returncode == 0 and "[changed]" in said.stdout, (path.name, said.stderr)


def _written(dataset: Dataset, syntax: str) -> bytes:
    file = pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = syntax == IMPLICIT_LE, syntax != EXPLICIT_BE
    pydicom.filewriter.write_dataset(file, dataset)
    return bytes(file.getvalue())


TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), max_size=20)
LEAVES = {
    "PatientID": TEXTS,
    "PatientComments": TEXTS,
    "SeriesNumber": st.integers(-999, 999),
    "Rows": st.integers(0, 65535),
    "PixelSpacing": st.just([0.5, 0.25]),
    "StudyInstanceUID": st.just("1.2.3"),
    "RecommendedDisplayFrameRateInFloat": st.floats(width=32, allow_nan=False),
    "EncapsulatedDocument": st.binary(max_size=9).map(lambda value: value + b"\0" * (len(value) % 2)),
}


def _level(items):
    return st.fixed_dictionaries({}, optional={**LEAVES, "OtherPatientIDsSequence": st.lists(items, max_size=3)})


def _dataset(values: dict) -> Dataset:
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, Sequence(map(_dataset, value)) if keyword.endswith("Sequence") else value)
    return dataset


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=_level(_level(_level(st.just({})))), syntax=st.sampled_from([IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE]))
def test_whatever_is_in_it_no_change_is_no_change(tmp_path, values, syntax):
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(_written(_dataset(values), syntax))
    for steps in ([], [look_at_all]):
        edit(source, 0, syntax, out, steps)
        assert out.read_bytes() == source.read_bytes()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=_level(_level(_level(st.just({})))), syntax=st.sampled_from([IMPLICIT_LE, EXPLICIT_LE, EXPLICIT_BE]))
def test_a_change_deep_inside_changes_nothing_around_it(tmp_path, values, syntax):
    def mark(dataset: Dataset) -> None:
        for item in dataset.get("OtherPatientIDsSequence", []):
            item.PatientID = "marked"

    source, out = tmp_path / "source", tmp_path / "out"
    expected = _dataset(values)
    source.write_bytes(_written(expected, syntax))
    mark(expected)
    edit(source, 0, syntax, out, [mark])
    read = pydicom.filereader.read_dataset(
        BytesIO(out.read_bytes()), syntax == IMPLICIT_LE, syntax != EXPLICIT_BE, bytelength=None
    )
    assert read == pydicom.filereader.read_dataset(
        BytesIO(_written(expected, syntax)), syntax == IMPLICIT_LE, syntax != EXPLICIT_BE, bytelength=None
    )


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


def _sequence(tag: int, *items: bytes) -> bytes:
    """Of defined length, its items of undefined length."""
    body = b"".join(b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + item + b"\xfe\xff\x0d\xe0\0\0\0\0" for item in items)
    return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, b"SQ", 0, len(body)) + body


def test_within_a_sequence_that_changed_the_rest_keeps_its_bytes(tmp_path):
    """pydicom would pad with a space, drop zeros and spell the inner sequence otherwise."""
    odd = _element(0x00100020, b"LO", b"abc\0") + _element(0x00180050, b"DS", b"+01.500 ")
    inner = _sequence(0x00081140, odd, b"")
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(_sequence(0x00101002, inner + odd + _element(0x00280010, b"US", b"\x05\0"), odd))

    def step(dataset: Dataset) -> None:
        look_at_all(dataset)
        dataset.OtherPatientIDsSequence[0].StudyID = "7"

    edit(source, 0, EXPLICIT_LE, out, [step])
    after = out.read_bytes()
    studied = inner + odd + _element(0x00200010, b"SH", b"7 ") + _element(0x00280010, b"US", b"\x05\0")
    assert studied in after and after.count(odd) == 3


def test_a_sequence_that_hid_in_a_un_can_be_changed(tmp_path):
    """PS3.5 6.2.2: UN of undefined length, spelled in Implicit VR within an Explicit VR data set."""
    item = struct.pack("<HHI", 0x0010, 0x0020, 2) + b"ab"
    content = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    source, out = tmp_path / "source", tmp_path / "out"
    head = struct.pack("<HH2sHI", 0x0010, 0x1002, b"UN", 0, 0xFFFFFFFF)
    source.write_bytes(head + content + _element(0x00104000, b"LT", b"x "))
    edit(source, 0, EXPLICIT_LE, out, [look_at_all])
    assert out.read_bytes() == source.read_bytes()

    def step(dataset: Dataset) -> None:
        dataset.OtherPatientIDsSequence[0].StudyID = "7"

    edit(source, 0, EXPLICIT_LE, out, [step])
    expected = _element(0x00100020, b"LO", b"ab") + _element(0x00200010, b"SH", b"7 ")
    assert expected in out.read_bytes() and b"SQ\0\0" in out.read_bytes()


def test_text_where_the_dictionary_has_a_sequence_stays(tmp_path):
    """Without VR only its content tells."""
    text = struct.pack("<HHI", 0x0008, 0x1140, 10) + b"DUMMYVALUE"
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(text + struct.pack("<HHI", 0x0010, 0x0020, 2) + b"ab")

    def step(dataset: Dataset) -> None:
        dataset.PatientID = "cd"

    edit(source, 0, IMPLICIT_LE, out, [step])
    assert out.read_bytes() == source.read_bytes().replace(b"ab", b"cd")


def test_an_icon_may_be_in_fragments(tmp_path):
    """PS3.5 A.4: an Icon Image Sequence may be encapsulated too."""
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    pixels += b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\2\0\0\0ab" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    source, out = tmp_path / "source", tmp_path / "out"
    icon = _sequence(0x00880200, _element(0x00280010, b"US", b"\1\0") + pixels)
    source.write_bytes(icon + _element(0x300A0002, b"SH", b"ab"))
    edit(source, 0, EXPLICIT_LE, out, [look_at_all])
    assert out.read_bytes() == source.read_bytes()

    def step(dataset: Dataset) -> None:
        dataset.IconImageSequence[0].PatientID = "cd"

    edit(source, 0, EXPLICIT_LE, out, [step])
    assert pixels in out.read_bytes() and b"LO\2\0cd" in out.read_bytes()


def test_uids_that_a_step_changed_are_told(tmp_path):
    dataset = Dataset()
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = "1.2.3", "1.2.4"
    source = tmp_path / "source"
    source.write_bytes(_written(dataset, EXPLICIT_LE))

    def other_study(dataset: Dataset) -> None:
        dataset.StudyInstanceUID = "1.2.9"

    def both(dataset: Dataset) -> None:
        dataset.StudyInstanceUID, dataset.SOPInstanceUID = "1.2.9", "1.2.8"

    told = [edit(source, 0, EXPLICIT_LE, tmp_path / "out", [step]) for step in (look_at_all, other_study, both)]
    assert [(made.sop_instance_uid, made.study_instance_uid) for made in told] == [
        ("", ""),
        ("", "1.2.9"),
        ("1.2.8", "1.2.9"),
    ]


def test_pixels_are_neither_shown_nor_held(tmp_path):
    """40 MiB of pixels, native and in fragments; what stands behind them is shown all the same."""
    pixels, seen = 40 << 20, []
    behind = _element(0x7FE11001, b"LO", b"behind")
    native = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, pixels) + bytes(pixels)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, pixels // 4) + bytes(pixels // 4)
    coded = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + item * 4 + b"\xfe\xff\xdd\xe0\0\0\0\0"
    source, out = tmp_path / "source", tmp_path / "out"

    def step(dataset: Dataset) -> None:
        seen.append([int(tag) for tag in dataset.keys()])  # noqa: SIM118
        dataset.PatientID = "new"

    for form in (native, coded):
        source.write_bytes(_element(0x00100020, b"LO", b"old ") + form + behind)
        tracemalloc.start()
        edit(source, 0, EXPLICIT_LE, out, [step])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert seen.pop() == [0x00100020, 0x7FE11001]
        assert out.read_bytes() == _element(0x00100020, b"LO", b"new ") + form + behind
        assert peak < 8 << 20


def test_lengths_of_groups_that_changed_go(tmp_path):
    """PS3.5 7.2: retired, and wrong after a change."""
    length = _element(0x00100000, b"UL", struct.pack("<I", 12))
    other = _element(0x00200000, b"UL", struct.pack("<I", 10)) + _element(0x00200010, b"SH", b"1 ")
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(length + _element(0x00100020, b"LO", b"old ") + other)

    def step(dataset: Dataset) -> None:
        dataset.PatientID = "longer"

    edit(source, 0, EXPLICIT_LE, out, [step])
    assert out.read_bytes() == _element(0x00100020, b"LO", b"longer") + other


def _nested(depth: int, head: bytes) -> bytes:
    return (head + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth


ENDLESS_SQ = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
MANY = _element(0x00200010, b"SH", b"")


FEW = 20_000
"""In place of `MAX_ELEMENTS`, so that tests are quick."""


def _many_in_a_sequence(count: int) -> bytes:
    return _sequence(0x00081140, *[MANY] * count)


HOSTILE = {
    "deep": (EXPLICIT_LE, _nested(5000, ENDLESS_SQ)),
    "deep in a UN": (EXPLICIT_LE, _nested(1, ENDLESS_SQ.replace(b"SQ", b"UN")) + _nested(5000, struct.pack(
        "<HHI", 0x0008, 0x1140, 0xFFFFFFFF))),
    "deep, implicit": (IMPLICIT_LE, _nested(5000, struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF))),
    "too many in a sequence": (EXPLICIT_LE, _many_in_a_sequence(FEW)),
    "too many on top": (EXPLICIT_LE, b"".join(
        _element(group << 16 | number, b"SH", b"") for group in (0x18, 0x20) for number in range(1, FEW))),
    "too many hidden in a UN": (EXPLICIT_LE, struct.pack("<HH2sHI", 0x0008, 0x1140, b"UN", 0, 8 * FEW + 8)
        + (b"\xfe\xff\x00\xe0" + bytes(4)) * (FEW + 1)),
    "too many hidden in what nobody knows": (IMPLICIT_LE, struct.pack("<HHI", 0x0009, 0x1140, 8 * FEW + 8)
        + (b"\xfe\xff\x00\xe0" + bytes(4)) * (FEW + 1)),
    "longer than all": (EXPLICIT_LE, struct.pack("<HH2sHI", 0x0009, 0x1140, b"OB", 0, 0xFFFFFFF0) + b"x"),
    "longer than its item": (EXPLICIT_LE, struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 16)
        + b"\xfe\xff\x00\xe0\x08\0\0\0" + _element(0x00200010, b"SH", b"")[:6] + b"\xff\x00"),
    "twice": (EXPLICIT_LE, MANY + MANY),
    "twice in an item": (EXPLICIT_LE, _sequence(0x00081140, MANY + MANY)),
    "an item without a sequence": (EXPLICIT_LE, b"\xfe\xff\x00\xe0\0\0\0\0" + MANY),
    "an end without a beginning": (EXPLICIT_LE, MANY + b"\xfe\xff\x0d\xe0\0\0\0\0" + _element(0x00210010, b"SH", b"")),
    "no VR": (EXPLICIT_LE, struct.pack("<HH2sH", 0x0020, 0x0010, b"??", 0)),
    "half a head": (EXPLICIT_LE, MANY + b"\x20"),
    "not deflated": (DEFLATED_LE, b"\xff" * 100),
    "deflated, cut": (DEFLATED_LE, zlib.compress(MANY * 100)[2:20]),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_cannot_be_followed_or_has_no_bound_is_refused_in_little_memory(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(layout, "MAX_ELEMENTS", FEW)
    syntax, content = HOSTILE[kind]
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(content)
    tracemalloc.start()
    with pytest.raises(PrepareError):
        edit(source, 0, syntax, out, [look_at_all])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * FEW + (2 << 20)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_bomb_that_inflates_to_a_header_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MAX_HEADER_BYTES", 1 << 20)
    source = tmp_path / "source"
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    value = struct.pack("<HH2sHI", 0x0009, 0x1001, b"OB", 0, 4 << 20) + bytes(4 << 20)
    source.write_bytes(squeeze.compress(value) + squeeze.flush())
    with pytest.raises(PrepareError, match="MiB beside the pixels"):
        edit(source, 0, DEFLATED_LE, tmp_path / "out", [look_at_all])
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_mutated_files_are_edited_or_refused(tmp_path):
    """Anything else would cost a worker."""
    luck = random.Random(7)
    source, out = tmp_path / "source", tmp_path / "out"
    small = [path for path in FILES if path.stat().st_size < 20_000 and path.name not in CUT]
    refused = 0
    for number in range(300):
        path = small[number % len(small)]
        with open(path, "rb") as file:
            meta = read_meta(file)
        content = bytearray(path.read_bytes()[meta.dataset_offset :])
        for _ in range(luck.randint(1, 12)):
            content[luck.randrange(len(content))] = luck.randrange(256)
        source.write_bytes(content)
        try:
            edit(source, 0, meta.transfer_syntax_uid, out, [change_a_little])
        except PrepareError:
            refused += 1
    assert 0 < refused < 300


def test_a_preview_shows_what_an_edit_would_do_and_leaves_nothing(tmp_path):
    path = DATA / "test_files" / "image_dfl.dcm"
    with open(path, "rb") as file:
        meta = read_meta(file)
    folder = tmp_path / "folder"
    folder.mkdir()
    before, after = preview(path, meta.dataset_offset, DEFLATED_LE, folder, [change_a_little])
    assert ("PatientComments" in before, after.PatientComments) == (False, "changed")
    assert list(folder.iterdir()) == []


def test_nothing_says_a_value(tmp_path, caplog, recwarn):
    """pydicom quotes what it finds wrong, and logs it too."""
    source = tmp_path / "source"
    wrong = _element(0x0020000D, b"UI", b"SECRET") + _element(0x00401400, b"LT", b"")
    source.write_bytes(_element(0x00100020, b"LO", b"SECRET" * 20) + wrong)
    for bad in (b"", _element(0x00541101, b"US", b"S"), _element(0x00541321, b"DS", b"SECRET")):
        source.write_bytes(source.read_bytes() + bad)
        with contextlib.suppress(PrepareError):
            edit(source, 0, EXPLICIT_LE, tmp_path / "out", [change_a_little])
    assert (caplog.text, [str(warning.message) for warning in recwarn]) == ("", [])


def test_an_error_says_no_value(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(_element(0x00280010, b"US", b"SECRET!"))
    with open(source, "rb") as file, pytest.raises(PrepareError) as told:
        Header(file, Coding(implicit=False, big_endian=False)).apply([look_at_all])
    assert told.value.detail == "the data set cannot be read: BytesLengthException"
