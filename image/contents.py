"""What is inside: CycloneDX for Python, dpkg's list for Debian; sizes and hashes for the program that flashes."""

from __future__ import annotations

import hashlib
import json
import subprocess
from email.parser import HeaderParser
from pathlib import Path

from image.board import SUITE, Board


def write(root: Path, board: Board, version: str, beside: Path) -> None:
    """Write `beside`.dpkg (package, version, source) and `beside`.cdx.json."""
    listed = subprocess.run(
        ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "--show",
         "--showformat=${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    beside.with_name(beside.name + ".dpkg").write_text(listed)
    bill = cyclonedx(root, version, board)
    beside.with_name(beside.name + ".cdx.json").write_text(json.dumps(bill, indent=1) + "\n")


def cyclonedx(root: Path, version: str, board: Board) -> dict:
    """Return a bill of materials (CycloneDX 1.6) of every Python distribution in the tree, by its own metadata."""
    components = []
    for path in sorted(root.glob("usr/lib/**/*.dist-info/METADATA")):
        said = HeaderParser().parsestr(path.read_text(errors="replace"))
        name, number = said["Name"], said["Version"]
        component = {
            "type": "library",
            "name": name,
            "version": number,
            "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{number}",
            "bom-ref": f"{name}@{number}",
        }
        terms = said["License-Expression"] or said["License"]
        if terms and len(terms) < 100:  # some put the whole text there
            component["licenses"] = [{"license": {"name": terms}}]
        components.append(component)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "operating-system",
                "name": "dicom-gateway",
                "version": version,
                "description": f"{board.title}, Debian {SUITE}",
            }
        },
        "components": components,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_os_list(board: Board, version: str, image: Path, out: Path) -> None:
    """Write `os_list.json`, the format of Raspberry Pi Imager, with the images of all boards that lie in `out`."""
    packed = image.with_name(image.name + ".zst")
    entry = {
        "name": f"{board.title} {version}",
        "description": "Store-and-forward DICOM gateway; settings go to CONFIG/ of the boot partition",
        "url": packed.name,
        "extract_size": image.stat().st_size,
        "extract_sha256": _sha256(image),
        "image_download_size": packed.stat().st_size,
        "image_download_sha256": _sha256(packed),
        "init_format": "none",
        "devices": list(board.imager_devices),
    }
    path = out / "os_list.json"
    entries = json.loads(path.read_text())["os_list"] if path.exists() else []
    others = [other for other in entries if other["url"] != packed.name and (out / other["url"]).exists()]
    path.write_text(json.dumps({"os_list": [*others, entry]}, indent=2) + "\n")
