"""The parts of an image, each for itself: what can be told without building one."""

from __future__ import annotations

import configparser
import json
import random
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from image import bundle, contents, tree
from image.board import BOARDS, HERE
from image.disk import FAT, LINUX, slot_boot

ROOT = HERE / "root"
OURS = ROOT / "usr/lib/dicom-gateway-image"


def needs(tool):
    return pytest.mark.skipif(not shutil.which(tool), reason=f"{tool} is not installed; run `.ci/setup image`")


@needs("grub-script-check")
def test_grub_understands_its_script():
    text = (HERE / "boards/amd64/grub.cfg").read_text().replace("@CMDLINE@", BOARDS["amd64"].command_line)
    subprocess.run(["grub-script-check"], input=text, text=True, check=True, timeout=30)


def test_the_shell_understands_what_runs_at_the_start():
    subprocess.run(["sh", "-n", str(OURS / "disk")], check=True, timeout=30)


def test_systemd_repart_cannot_take_a_slot_for_a_data_partition():
    kinds = {re.search(r"^Type=(\S+)", path.read_text(), re.MULTILINE)[1] for path in OURS.glob("repart/*.conf")}
    assert len(kinds) == 2 and not kinds & {LINUX.lower(), FAT.lower()}


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_rauc_takes_signed_verity_bundles_of_this_board_only(board, tmp_path):
    path = tmp_path / "system.conf.in"
    shutil.copy(ROOT / "etc/rauc/system.conf.in", path)
    tree._template(path, board, "1.2.3")
    said = configparser.ConfigParser()
    said.read(tmp_path / "system.conf")
    assert said["system"]["compatible"] == board.compatible
    assert said["system"]["min-bundle-version"] == "1.2.3"
    assert said["system"]["bundle-formats"].split() == ["-plain", "-crypt"]
    assert [said[f"slot.system.{number}"]["bootname"] for number in (0, 1)] == ["A", "B"]


BOARD_TREE = """/dts-v1/; / { compatible = "brcm,bcm2711", "brcm,bcm2835"; gpio: gpio { }; i2c1: i2c { }; };"""
BOARD_TREE_WITHOUT_PINS = """/dts-v1/; / { compatible = "brcm,bcm2712"; };"""


def pi_root(folder, **boards):
    """A root tree with these device trees, as Debian's kernel brings them."""
    trees = folder / "usr/lib/linux-image-6.12.1-arm64/broadcom"
    trees.mkdir(parents=True)
    for name in ("vmlinuz", "initrd.img"):
        (folder / name).write_text("no kernel")
    for name, text in boards.items():
        path = trees / f"{name.replace('_', '-')}.dtb"
        subprocess.run(["dtc", "-@", "-q", "-O", "dtb", "-o", path], input=text, text=True, check=True, timeout=30)
    return folder


@needs("fdtoverlay")
@needs("mcopy")
def test_a_pi_finds_the_overlay_that_its_settings_name(tmp_path):
    root = pi_root(tmp_path / "root", bcm2711_rpi_4_b=BOARD_TREE, bcm2712_rpi_5_b=BOARD_TREE_WITHOUT_PINS)
    boot = slot_boot(BOARDS["arm64"], root, tmp_path / "boot.fat")

    def told(*words):
        return subprocess.run([words[0], "-i", boot, *words[1:]], capture_output=True, check=True, timeout=30).stdout

    assert b"\ndtoverlay=dicom-gateway\n" in told("mtype", "::config.txt")
    overlay = told("mtype", "::overlays/dicom-gateway.dtbo")
    assert b"dicom-gateway:status" in overlay and b"maxim,ds3231" in overlay
    # The kernel drives no Pi 5: without its tree the firmware refuses to start, instead of a box that nobody reaches.
    assert told("mdir", "-b", "::").decode().count(".dtb\n") == 1 and b"rpi-4-b.dtb" in told("mdir", "-b", "::")


@needs("fdtoverlay")
def test_an_overlay_that_a_board_cannot_take_ends_the_build(tmp_path):
    root = pi_root(tmp_path / "root", bcm2711_rpi_4_b=BOARD_TREE_WITHOUT_PINS)
    with pytest.raises(subprocess.CalledProcessError, match=r"fdtoverlay.*bcm2711-rpi-4-b\.dtb"):
        slot_boot(BOARDS["arm64"], root, tmp_path / "boot.fat")


def test_the_rights_of_a_clone_do_not_come_into_the_image(tmp_path):
    layer, root = tmp_path / "layer", tmp_path / "root"
    for folder in (layer / "etc/new", root / "etc"):
        folder.mkdir(parents=True)
    (root / "etc").chmod(0o755)
    for name, mode in (("plain", 0o600), ("program", 0o700)):
        (layer / "etc/new" / name).write_text(name)
        (layer / "etc/new" / name).chmod(mode)
    (layer / "etc/new").chmod(0o700)
    (layer / "etc/link").symlink_to("/nowhere")
    (layer / "etc").chmod(0o700)
    tree.lay(layer, root)
    tree.lay(layer, root)
    modes = {path.name: path.lstat().st_mode & 0o777 for path in [root / "etc", *(root / "etc").rglob("*")]}
    assert modes == {"etc": 0o755, "new": 0o755, "plain": 0o644, "program": 0o755, "link": 0o777}


def test_no_image_asks_for_a_password_or_leads_to_a_shell():
    assert {"getty@.service", "serial-getty@.service", "debug-shell.service"} <= set(tree.NEVER)
    for unit in ("emergency", "rescue"):
        assert "reboot" in (ROOT / f"etc/systemd/system/{unit}.service").read_text()
    for board in BOARDS.values():
        assert "panic=" in board.command_line


@pytest.mark.parametrize("board", BOARDS.values(), ids=list(BOARDS))
def test_the_initramfs_has_what_finds_the_root_and_loads_it_only_where_it_is(board, tmp_path):
    files = tree._initramfs(board)
    assert set(files) == {"initramfs.conf", "hooks/box"}, "what `modules` names is loaded at every start"
    path = tmp_path / "box"
    path.write_text(
        files["hooks/box"].replace("/usr/share/initramfs-tools/hook-functions", str(tmp_path / "functions"))
    )
    (tmp_path / "functions").write_text('manual_add_modules() { echo "$@"; }\n')
    names = tmp_path / "usr/lib/udev/hwdb.bin"
    for folder in (names.parent, tmp_path / "scripts/init-top"):
        folder.mkdir(parents=True)
    names.touch()
    udev = tmp_path / "scripts/init-top/udev"
    udev.write_text(
        "udevadm trigger --type=subsystems --action=add\nudevadm trigger --type=devices --action=add\nsettle\n"
    )

    def run(*words):
        environment = {"DESTDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            ["sh", "-e", path, *words], env=environment, capture_output=True, text=True, check=True, timeout=30
        ).stdout.split()

    assert run("prereqs") == ["udev"], "its files would not be there yet"
    assert run() == (board.folder / "modules").read_text().split()
    asked, last = udev.read_text().splitlines()
    assert asked.startswith("udevadm trigger --type=devices --action=add --subsystem-nomatch=tty ") and last == "settle"
    assert not names.exists()


@needs("rauc")
@needs("mksquashfs")
def test_a_bundle_is_known_by_its_authority_alone(tmp_path):
    slot = tmp_path / "system.ext4"
    slot.write_bytes(random.Random(1).randbytes(2**20))
    ours, stranger = bundle.Signer.of(tmp_path / "ours"), bundle.Signer.of(tmp_path / "stranger")
    assert bundle.Signer.of(tmp_path / "ours") == ours and ours.key.stat().st_mode & 0o077 == 0
    made = bundle.make(BOARDS["amd64"], "1.2.3", slot, None, ours, tmp_path / "a.raucb")

    def judged(signer):
        config = tmp_path / "system.conf"
        config.write_text(
            "[system]\ncompatible=x\nbootloader=noop\n"
            f"[keyring]\npath={signer.ca}\ncheck-purpose=codesign\n[slot.x.0]\ndevice=/dev/null\ntype=raw\n"
        )
        words = ["rauc", f"--conf={config}", "info", str(made)]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    answer = judged(ours)
    assert answer.returncode == 0, answer.stderr
    for word in ("dicom-gateway-pc", "1.2.3", "verity"):
        assert word in answer.stdout
    assert judged(stranger).returncode != 0


def test_builds_that_begin_together_sign_for_one_authority(tmp_path):
    folder = tmp_path / "keys"

    def taken(_):
        signer = bundle.Signer.of(folder)
        return signer, signer.ca.read_bytes(), signer.key.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        ((signer, _, _),) = set(pool.map(taken, range(4)))
    words = ["openssl", "verify", "-CAfile", str(signer.ca), str(signer.cert)]
    subprocess.run(words, check=True, capture_output=True, timeout=60)
    public = [
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60).stdout
        for words in (("pkey", "-in", signer.key, "-pubout"), ("x509", "-in", signer.cert, "-noout", "-pubkey"))
    ]
    assert public[0] == public[1]
    assert {path.name for path in folder.iterdir()} == {"ca.key", "ca.pem", "signer.key", "signer.pem"}


def test_a_release_key_without_its_authority_is_not_written_over(tmp_path):
    key = tmp_path / "signer.key"
    key.write_text("the release key")
    with pytest.raises(SystemExit, match=r"signer\.key but no ca\.pem"):
        bundle.Signer.of(tmp_path)
    assert key.read_text() == "the release key" and [path.name for path in tmp_path.iterdir()] == ["signer.key"]


def test_the_bill_of_materials_names_every_distribution(tmp_path):
    for name, more in (("Paho_MQTT", "License-Expression: EPL-2.0\n"), ("numpy", "")):
        info = tmp_path / f"usr/lib/dicom-gateway/lib/python3.13/site-packages/{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{more}\nText.\n")
    bill = contents.cyclonedx(tmp_path, "1.2.3", BOARDS["amd64"])
    found = {part["purl"]: part.get("licenses") for part in bill["components"]}
    assert found == {"pkg:pypi/paho-mqtt@1.0": [{"license": {"name": "EPL-2.0"}}], "pkg:pypi/numpy@1.0": None}


def test_the_flasher_is_told_sizes_and_hashes_of_all_images(tmp_path):
    for arch, board in BOARDS.items():
        image = tmp_path / f"box-{arch}.img"
        image.write_bytes(b"image" * 100)
        image.with_name(image.name + ".zst").write_bytes(b"packed")
        contents.write_os_list(board, "1.2.3", image, tmp_path)
        contents.write_os_list(board, "1.2.3", image, tmp_path)
    entries = json.loads((tmp_path / "os_list.json").read_text())["os_list"]
    assert [entry["url"] for entry in entries] == ["box-amd64.img.zst", "box-arm64.img.zst"]
    assert {(entry["extract_size"], entry["image_download_size"]) for entry in entries} == {(500, 6)}
