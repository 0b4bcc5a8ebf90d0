"""De-identification compared with an independent tool, and by a scan of the output's bytes.

Judge of the first: dicom-anonymizer with the same edition of PS3.15. What it changes or removes, we change or remove,
in every readable file that pydicom ships. The second asks no tool: no identifying value of the input may stand anywhere
in the output.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path

import pydicom
import pytest
from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sequence import Sequence

from gateway.prepare.deidentify import SHAPE, WELL_KNOWN, deidentify
from gateway.prepare.profile import STRUCTURAL, rows
from gateway.prepare.pseudonym import Pseudonyms
from tests.unit.prepare.test_deidentify import KEY, OTHER_KEY, decoded, encoded, sample, settings

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
TABLE = rows(frozenset())
REFERENCES = frozenset((0x00081140, 0x00082112))
"""X/Z/U*: of a sequence of references the UIDs are replaced; why it is referred to is a code of the standard."""
Place = tuple[int, ...]
"""Tags and item numbers from the top to an element."""


def walk(dataset: Dataset, place: Place = ()) -> Iterator[tuple[Place, pydicom.DataElement]]:
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        except (ValueError, TypeError, KeyError, NotImplementedError, AttributeError):
            continue
        yield (*place, int(tag)), element
        if element.VR == "SQ":
            for number, item in enumerate(element.value):
                yield from walk(item, (*place, int(tag), number))


def readable() -> list[Path]:
    found = []
    for path in sorted(FOLDER.rglob("*")):
        try:
            if path.is_file() and pydicom.dcmread(path, stop_before_pixels=True):
                found.append(path)
        except (InvalidDicomError, ValueError, EOFError, OSError, NotImplementedError, AttributeError):
            continue
    return found


FILES = readable()


def read(path: Path) -> Dataset:
    dataset = pydicom.dcmread(path)
    for tag in [tag for tag in list(dataset.keys()) if tag.group == 0x7FE0 or tag.group < 8]:
        del dataset[tag]
    return dataset


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER))


def excused(place: Place, before: str) -> str:
    """Why we leave what the other tool changes; "" when there is no reason."""
    if place[-1] in STRUCTURAL:
        return "a UID of a class, which the tool replaces when it stands in a sequence (PS3.15 E.3.9 note 4)"
    if place[-1] in SHAPE:
        return "relationship, type and count of a content item or graphic, without which nothing can read it"
    if REFERENCES & set(place) and place[-1] not in TABLE:
        return "why another instance is referred to (X/Z/U*: only the UIDs must be replaced)"
    if before in ("", "None", "0", "0.0", "[]"):
        return "nothing was said"
    return ""


def test_the_files_are_there():
    assert len(FILES) >= 60


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_what_an_independent_tool_changes_or_removes_we_change_or_remove(path):
    before, ours, theirs = read(path), read(path), read(path)
    deidentify(ours, settings(), Pseudonyms(KEY))
    try:
        anonymize_dataset(theirs, base_rules_gen=partial(initialize_actions, "dicomfields_2026c"))
    except NotImplementedError:
        pytest.skip("the tool does not know a VR in this file")
    after, judged = dict(walk(ours)), dict(walk(theirs))
    left = []
    for place, element in walk(before):
        if element.VR == "SQ":
            continue
        value = str(element.value)
        changed = place not in judged or str(judged[place].value) != value
        kept = place in after and str(after[place].value) == value
        if changed and kept and not excused(place, value):
            left.append([f"{part:08x}" for part in place])
    assert left == []


def identifying(dataset: Dataset) -> Iterator[bytes]:
    """Every text of four letters or more that the Basic Profile does not leave as it is, as bytes."""
    for place, element in walk(dataset):
        private = any(part >> 16 & 1 for part in place[::2])
        covered = any(part in TABLE.keys() - REFERENCES for part in place[::2])
        by_vr = element.VR in ("PN", "DA", "DT", "TM") or (element.VR == "UI" and place[-1] not in STRUCTURAL)
        if not (private or covered or by_vr) or element.VR == "SQ" or place[-1] in SHAPE | STRUCTURAL:
            continue
        values = element.value if isinstance(element.value, pydicom.multival.MultiValue) else [element.value]
        for value in values:
            if isinstance(value, bytes):
                yield value.strip(b" \0")
            elif element.VR not in ("US", "SS", "UL", "SL", "FL", "FD", "AT"):
                yield str(value).encode("latin-1", "ignore").strip(b" \0")


def retained(dataset: Dataset) -> bytes:
    """What the profile leaves: a value that stands here too identifies nobody by the standard's measure."""
    kept = []
    for place, element in walk(dataset):
        if not any(part in TABLE.keys() - REFERENCES or part >> 16 & 1 for part in place[::2]) and element.VR not in (
            "SQ",
            "PN",
        ):
            kept.append(str(element.value).encode("latin-1", "ignore"))
    return b"\n".join(kept)


def leaks(before: Dataset, output: bytes) -> list[bytes]:
    harmless = retained(before) + b" REMOVED 19000101000000 http://removed.invalid ANON-"
    found = {value for value in identifying(before) if len(value) >= 4 and value in output}
    return sorted(value for value in found if value not in harmless and not value.startswith(WELL_KNOWN.encode()))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_identifying_value_of_the_input_stands_in_the_output(path):
    before, after = read(path), read(path)
    deidentify(after, settings(), Pseudonyms(KEY))
    as_it_was = path.name == "SC_rgb_jpeg.dcm"  # its meta says Explicit VR, which it is not
    assert leaks(before, encoded(after, implicit=as_it_was)) == []


def test_the_scan_finds_what_is_left():
    before = pydicom.dcmread(FOLDER / "CT_small.dcm", stop_before_pixels=True)
    assert len(leaks(before, encoded(before))) > 50
    after = deepcopy(before)
    deidentify(after, settings(), Pseudonyms(KEY))
    after.Manufacturer = before.PatientID
    assert leaks(before, encoded(after)) == [str(before.PatientID).encode()]


SECRET = "Zq%dxYw"
KNOWN_TEXTS = sorted(
    tag
    for tag in TABLE
    if pydicom.datadict.dictionary_has_tag(tag)
    and tag >> 16 >= 8
    and tag not in SHAPE
    and pydicom.datadict.dictionary_VR(tag) in ("LO", "SH", "ST", "LT", "UT", "UC", "PN")
)
KNOWN_SEQUENCES = sorted(
    tag
    for tag, entry in pydicom.datadict.DicomDictionary.items()
    if entry[0] == "SQ" and tag >> 16 >= 8 and tag >> 16 != 0xFFFA
)
Leaf = tuple[str, int]
leaves = st.one_of(
    st.tuples(st.just("text"), st.sampled_from(KNOWN_TEXTS)),
    st.tuples(st.just("private"), st.integers(0, 255)),
    st.tuples(st.just("unknown"), st.integers(0x00189C00, 0x00189CFF)),
    st.tuples(st.just("hidden"), st.sampled_from(KNOWN_SEQUENCES)),
    st.tuples(st.just("name"), st.sampled_from([0x00140104, 0x00142006, 0x0040A067])),
    st.tuples(st.just("date"), st.sampled_from([0x00144076, 0x00080404, 0x00080020, 0x00080023])),
    st.tuples(st.just("number"), st.sampled_from([0x00200011, 0x00180050])),
)
trees = st.recursive(
    st.lists(leaves, max_size=5),
    lambda inner: st.tuples(st.lists(leaves, max_size=4), st.sampled_from(KNOWN_SEQUENCES), inner),
    max_leaves=6,
)


def grown(tree, secrets: list[str]) -> bytes:
    """Encode a random tree as bytes, a secret in each leaf."""
    own, sequence, inner = (tree, None, None) if isinstance(tree, list) else tree
    parts: dict[int, bytes] = {}
    for kind, tag in own:
        secret = SECRET % (1000 + len(secrets))
        secrets.append(secret)
        value = secret.encode() + b"\0" * (len(secret) % 2)
        if kind == "private":
            number = 0x00310000 | 0x1000 + tag
            parts[0x00310010] = element(0x00310010, "LO", b"ACME" + b"1 ")
            parts[number] = element(number, ["LO", "UN", "OB", "PN"][tag % 4], value)
        elif kind == "hidden":
            parts[tag] = element(tag, "UN" if tag % 2 else "LO", value)
        else:
            vr = {"unknown": "LO", "name": "PN", "number": "IS"}.get(kind) or pydicom.datadict.dictionary_VR(tag)
            parts[tag] = element(tag, vr, value)
    if sequence is not None:
        item = grown(inner, secrets)
        parts[sequence] = element(sequence, "SQ", b"\xfe\xff\x00\xe0" + len(item).to_bytes(4, "little") + item)
    return b"".join(parts[tag] for tag in sorted(parts))


def element(tag: int, vr: str, value: bytes) -> bytes:
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little") + vr.encode()
    if vr in ("OB", "SQ", "UN", "UT", "UC"):
        return head + b"\0\0" + len(value).to_bytes(4, "little") + value
    return head + len(value).to_bytes(2, "little") + value


OPTIONS = [
    (),
    ("clean-structured-content", "clean-descriptors"),
    ("retain-longitudinal-modified-dates", "retain-safe-private", "retain-uids"),
]


@effort(max_examples=300)
@given(tree=trees, options=st.sampled_from(OPTIONS))
def test_no_identifying_value_of_a_random_data_set_survives(tree, options):
    secrets: list[str] = []
    raw = grown(tree, secrets)
    dataset = decoded(raw)
    deidentify(dataset, settings(*options), Pseudonyms(KEY))
    output = encoded(dataset)
    assert [secret for secret in secrets if secret.encode() in output] == []


uids = st.lists(st.integers(0, 10**9), min_size=2, max_size=6).map(lambda parts: "1.2." + ".".join(map(str, parts)))


@effort(max_examples=100)
@given(uid=uids, patient=st.text(min_size=1, max_size=64), issuer=st.text(max_size=20))
def test_the_mapping_survives_restarts_and_differs_by_key(uid, patient, issuer):
    one, again, other = Pseudonyms(KEY), Pseudonyms(bytes(KEY)), Pseudonyms(OTHER_KEY)
    assert one.uid(uid) == again.uid(uid) != other.uid(uid)
    assert one.patient(patient, issuer) == again.patient(patient, issuer) != other.patient(patient, issuer)
    assert one.days_back(patient, issuer) == again.days_back(patient, issuer)
    assert 1 <= one.days_back(patient, issuer) <= 3652
    assert pydicom.uid.UID(one.uid(uid)).is_valid


def test_instances_of_a_study_stay_together():
    first, second = sample(), sample()
    second.SOPInstanceUID = "1.2.3.5"
    reference = Dataset()
    reference.ReferencedSOPInstanceUID = "1.2.3.4"
    second.SourceImageSequence = Sequence([reference])
    for dataset in (first, second):
        deidentify(dataset, settings("retain-longitudinal-modified-dates"), Pseudonyms(KEY))
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "StudyDate"):
        assert first[keyword].value == second[keyword].value
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
