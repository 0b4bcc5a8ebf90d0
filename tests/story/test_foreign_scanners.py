"""Five foreign stacks as scanners, plain and, where they can, over mutual TLS: what they send is kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
import trustme
from pydicom.encaps import generate_frames

PIXELMED = ("java", "-cp", "/usr/share/java/pixelmed.jar")
DCMJS = Path(__file__).with_name("dcmjs_scu.js")
PROPOSAL = {
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.5": "-xr",
}
"""DCMTK's storescu proposes a compressed Transfer Syntax by option only; without one, what is native."""


@dataclass(frozen=True)
class Line:
    """Where the gateway listens, and the papers (ca, cert, key) that a scanner shows there: None is plain."""

    port: int
    tls: dict[str, str] | None = None


@dataclass(frozen=True)
class Scanner:
    """A foreign stack, and what is known of it."""

    tool: str
    store: Callable[[Line, list[Path]], list[list[str]]]
    """The commands that send these files, in order."""
    files: str
    """pydicom's test files that it can read, by name, of as many Transfer Syntaxes as it can send."""
    echo: Callable[[Line], list[str]] | None = None
    echo_says: str = ""
    """What it prints when the echo came back, where its exit code is 0 in any case."""
    rewrites: bool = False
    """It decodes and encodes anew, so that only the meaning can be compared with the file."""
    drops_private: bool = False

    def takes_from(self, files: list[Path]) -> list[Path]:
        found = [path for path in files if path.stem in self.files.split()]
        assert len(found) == len(self.files.split())
        return found


def _dcmtk(tool: str, line: Line, options: list[str], files: list[str]) -> list[str]:
    tls = ["+tls", line.tls["key"], line.tls["cert"], "+cf", line.tls["ca"]] if line.tls else []
    return [tool, *tls, *options, "127.0.0.1", str(line.port), *files]


def _dcmtk_store(line: Line, files: list[Path]) -> list[list[str]]:
    alike: dict[str, list[str]] = {}
    for path in files:
        syntax = pydicom.dcmread(path, specific_tags=[]).file_meta.TransferSyntaxUID
        alike.setdefault(PROPOSAL.get(syntax, "-R"), []).append(str(path))
    return [_dcmtk("storescu", line, [option], paths) for option, paths in alike.items()]


def _dcmjs(line: Line, files: list[Path]) -> list[str]:
    order = {"port": line.port, "files": [str(path) for path in files], "tls": line.tls}
    return ["node", str(DCMJS), json.dumps(order)]


def _odil(verb: str, line: Line, *files: Path) -> list[str]:
    return ["odil", verb, "127.0.0.1", str(line.port), "ODIL", "EDGEGW", *map(str, files)]


def _pixelmed(verb: str, line: Line, *arguments: str) -> list[str]:
    service = f"com.pixelmed.network.{verb}SOPClassSCU"
    return [*PIXELMED, service, "127.0.0.1", str(line.port), "EDGEGW", "PIXELMED", *arguments]


DCMTK = Scanner(
    tool="storescu",
    store=_dcmtk_store,
    files="SC_rgb_small_odd MR_small_bigendian SC_rgb_jpeg_gdcm GDCMJ2K_TextGBR SC_rgb_rle",
    echo=lambda line: _dcmtk("echoscu", line, [], []),
)
DCMJS_DIMSE = Scanner(
    tool="node",
    store=lambda line, files: [_dcmjs(line, files)],
    files="CT_small MR_small_bigendian JPEG2000 SC_rgb_jpeg_dcmtk rtplan",
    echo=lambda line: _dcmjs(line, []),
    rewrites=True,  # into JavaScript objects by dictionary, and back: private elements and group lengths go on the way
    drops_private=True,
)
ODIL = Scanner(
    tool="odil",
    store=lambda line, files: [_odil("store", line, *files)],
    # Native only: it sends what is encapsulated under Explicit VR Little Endian, the only syntax that it proposes.
    files="CT_small MR_small_bigendian SC_ybr_full_422_uncompressed",
    echo=lambda line: _odil("echo", line),
    rewrites=True,  # into numbers and back: a Decimal String of 120.0 leaves as 120
)
JAVA = Scanner(
    tool="VerificationSOPClassSCU",
    store=lambda line, files: [_pixelmed("Storage", line, str(path), "0") for path in files],
    files="SC_rgb_small_odd SC_rgb_jpeg_gdcm JPEG2000 MR_small_RLE",
    echo=lambda line: _pixelmed("Verification", line, "NONSECURE"),
    echo_says="was successful",
)
GDCM = Scanner(
    tool="gdcmscu",
    store=lambda line, files: [["gdcmscu", "--store", "127.0.0.1", str(line.port), str(path)] for path in files],
    files="MR_small_implicit MR_small_expb MR_small_RLE JPEG2000 image_dfl",
)
STACKS = {"dcmtk": DCMTK, "dcmjs-dimse": DCMJS_DIMSE, "odil": ODIL, "pixelmed": JAVA}
LINES = [*((name, False) for name in STACKS), ("dcmtk", True), ("dcmjs-dimse", True)]
"""Who speaks how: odil knows no TLS, and pixelmed's tools offer only cipher suites without forward secrecy."""
over_every_line = pytest.mark.parametrize(
    ("name", "secure"), LINES, ids=[f"{name}-{'tls' if secure else 'plain'}" for name, secure in LINES]
)


def papers(folder: Path, authority: trustme.CA) -> dict[str, str]:
    """A certificate for either end, its key, and the CA that vouches for it."""
    folder.mkdir()
    paths = {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(paths["ca"])
    issued.cert_chain_pems[0].write_to_path(paths["cert"])
    issued.private_key_pem.write_to_path(paths["key"])
    return paths


@pytest.fixture
def open_box(make_box, tmp_path):
    """A gateway for a scanner, and the line between them; skips where the scanner cannot be had."""

    def start(scanner: Scanner, secure: bool = False):
        if shutil.which(scanner.tool) is None:
            pytest.skip(f"{scanner.tool} is not here: `.ci/setup peers` installs it where the Debian release has it")
        if not secure:
            box = make_box().start()
            return box, Line(box.port)
        tls = papers(tmp_path / "tls", trustme.CA())
        named = ", ".join(f'{name}_file = "{path}"' for name, path in tls.items())
        box = make_box(listener=f"tls = {{ {named}, require_client_cert = true }}").start()
        return box, Line(box.port, tls)

    return start


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TCP_NODELAY": "1"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def send_all(scanner: Scanner, line: Line, files: list[Path]) -> int:
    """Send, believe the exit codes, return the number of associations."""
    commands = scanner.store(line, files)
    for command in commands:
        sent = run(command)
        assert sent.returncode == 0, sent.stdout + sent.stderr
    return len(commands)


def nobody_is_left(box) -> bool:
    return not any(listener["associations"] for listener in box.ask("status")["listeners"])


def half_objects(box) -> list[Path]:
    """Part files with something in them; empty ones are places prepared for what comes next."""
    return [path for path in (box.folder / "data" / "parts").iterdir() if path.stat().st_size]


def assert_all_went_in_peace(box, associations: int, wait_until) -> None:
    assert wait_until(lambda: nobody_is_left(box)), box.log()
    assert half_objects(box) == []
    assert box.log().count("association_released") == box.log().count("association_accepted") == associations, box.log()
    assert "association_aborted" not in box.log()


def pixels(dataset: pydicom.Dataset) -> list[bytes]:
    """Frame by frame: how fragments are cut is up to the sender, and so is the order of bytes of what is native."""
    if "PixelData" not in dataset:
        return []
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        frames = generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames", 1)))
        return [frame.rstrip(b"\0") for frame in frames]
    return [dataset.pixel_array.astype(dataset.pixel_array.dtype.newbyteorder("<")).tobytes()]


def same(sent: pydicom.DataElement, kept: pydicom.DataElement) -> bool:
    """Equal; numbers that were written anew as text may differ where a double does."""
    if sent.VR == kept.VR == "DS" and sent.VM == kept.VM > 0:
        return np.allclose(*(np.array(element.value, float) for element in (sent, kept)), rtol=1e-9, atol=0)
    return sent == kept


PACKAGING = ("SpecificCharacterSet", "DataSetTrailingPadding", "PixelData")
"""Differs when the rest is the same: text is compared decoded, pixels on their own."""


def differences(sent: pydicom.Dataset, kept: pydicom.Dataset, drops_private: bool = False) -> list[str]:
    """What a reader would notice, as pydicom decodes both."""
    tags = {element.tag for dataset in (sent, kept) for element in dataset if element.tag.element}
    if drops_private:
        tags -= {tag for tag in tags if tag.is_private and tag not in kept}
    notable = [tag for tag in sorted(tags) if pydicom.datadict.keyword_for_tag(tag) not in PACKAGING]
    found = [str(tag) for tag in notable if not (tag in sent and tag in kept and same(sent[tag], kept[tag]))]
    return found + (["pixels"] if pixels(sent) != pixels(kept) else [])


def assert_same_meaning(files: list[Path], shelf: list[Path], drops_private: bool) -> None:
    kept = {dataset.SOPInstanceUID: dataset for dataset in map(pydicom.dcmread, shelf)}
    sent = {dataset.SOPInstanceUID: dataset for dataset in map(pydicom.dcmread, files)}
    assert kept.keys() == sent.keys()
    assert {uid: found for uid in sent if (found := differences(sent[uid], kept[uid], drops_private))} == {}


@over_every_line
def test_a_foreign_scanner_stores_and_the_shelf_holds_exactly_that(
    name, secure, open_box, ct_files, test_files, digest_of, wait_until
):
    scanner = STACKS[name]
    box, line = open_box(scanner, secure)
    files = ct_files[:3] + scanner.takes_from(test_files)
    associations = send_all(scanner, line, files)
    assert box.ask("status")["accepted"] == len(files)
    assert box.ask("status")["sums_agree"]
    if scanner.rewrites:
        assert_same_meaning(files, list(box.shelf().values()), scanner.drops_private)
    else:
        assert set(box.shelf()) == {digest_of(path) for path in files}
    assert_all_went_in_peace(box, associations, wait_until)


@over_every_line
def test_a_foreign_scanner_asks_for_an_echo_and_gets_it(name, secure, open_box, wait_until):
    box, line = open_box(STACKS[name], secure)
    asked = run(STACKS[name].echo(line))
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert STACKS[name].echo_says in asked.stdout + asked.stderr
    assert box.ask("status")["accepted"] == 0
    assert_all_went_in_peace(box, 1, wait_until)


@pytest.mark.parametrize("name", [name for name, scanner in STACKS.items() if scanner.rewrites])
def test_what_a_scanner_rewrites_is_kept_as_it_left_the_scanner(name, open_box, make_archive, ct_files):
    """The bytes that DCMTK's bit-preserving archive got from it are those that lie on the shelf."""
    box, line = open_box(STACKS[name])
    send_all(STACKS[name], line, ct_files[:3])
    syntaxes = {pydicom.dcmread(path).file_meta.TransferSyntaxUID for path in box.shelf().values()}
    assert len(syntaxes) == 1
    archive = make_archive("+xi" if syntaxes.pop().is_implicit_VR else "+xe").start()
    send_all(STACKS[name], Line(archive.port), ct_files[:3])
    assert set(box.shelf()) == archive.digests()


@pytest.mark.parametrize("name", [name for name, secure in LINES if secure])
def test_a_scanner_with_a_strangers_certificate_stores_nothing(name, open_box, ct_files, tmp_path, wait_until):
    box, line = open_box(STACKS[name], secure=True)
    stranger = {**papers(tmp_path / "stranger", trustme.CA()), "ca": line.tls["ca"]}
    assert [run(command).returncode for command in STACKS[name].store(Line(line.port, stranger), ct_files[:1])] != [0]
    assert wait_until(lambda: "tls_refused" in box.log())
    assert box.ask("status")["accepted"] == 0
    send_all(STACKS[name], line, ct_files[:1])
    assert box.ask("status")["accepted"] == 1


def test_a_scanner_that_dies_after_the_store_leaves_a_whole_object_and_a_gateway_that_serves_on(
    open_box, ct_files, test_files, digest_of, wait_until
):
    """gdcmscu 3.0.21 ends by SIGABRT after every store; its exit code says nothing, so only custody is believed."""
    box, line = open_box(GDCM)
    files = ct_files[:1] + GDCM.takes_from(test_files)
    for command in GDCM.store(line, files):
        run(command)
    assert wait_until(lambda: nobody_is_left(box)), box.log()
    assert half_objects(box) == []
    assert box.ask("status")["accepted"] == len(files)
    assert set(box.shelf()) == {digest_of(path) for path in files}
    send_all(DCMTK, line, ct_files[1:2])
    assert digest_of(ct_files[1]) in box.shelf()


def test_the_comparison_notices_a_pixel_a_value_and_a_missing_element(ct_files):
    whole, pixel, number, less = (pydicom.dcmread(ct_files[0]) for _ in range(4))
    pixel.PixelData = bytes([pixel.PixelData[0] ^ 1]) + pixel.PixelData[1:]
    number.RescaleIntercept += 1
    del less.StudyDescription
    assert differences(whole, pydicom.dcmread(ct_files[0])) == []
    assert differences(whole, pixel) == ["pixels"]
    assert differences(whole, number) == ["(0028,1052)"]
    assert differences(whole, less) == ["(0008,1030)"]
