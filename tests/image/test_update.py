"""Updates: taken only when they are ours, newer and for this kind of box; left by themselves when they do not work."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import time

import pytest

from image import bundle
from image.board import BOARDS
from tests.image.conftest import missing
from tests.image.machine import BOOT_S, stick
from tests.operator import Operator

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(4 * 3600),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
PC = BOARDS["amd64"]
ENVIRONMENT = "EFI/BOOT/grubenv"


def slot(machine) -> tuple[str, str]:
    """Return which slot runs, and its version."""
    said = machine.run("cat /proc/cmdline /etc/os-release")
    return re.search(r"rauc\.slot=(\w)", said)[1], re.search(r"IMAGE_VERSION=(\S+)", said)[1]


def good(machine) -> None:
    """Wait until the slot that runs is marked good."""
    name = slot(machine)[0]
    machine.run(f"until grep -q {name}_TRY=0 /boot/config/EFI/BOOT/grubenv; do sleep 1; done")


def only(folder, kind):
    (found,) = folder.glob(kind)
    return found


def install(machine, path) -> str:
    """Plug in a stick with a bundle, install it, start again."""
    machine.start(*stick(machine.folder / "stick.img", "UPDATE", path))
    good(machine)
    begun = time.monotonic()
    said = machine.run("dicom-gateway update install", 3600)
    print(f"installed in {time.monotonic() - begun:.0f} s")
    machine.shut_down()
    return said


@pytest.fixture(scope="module")
def factory_image(factory):
    return only(factory.build(), "*.img")


def test_from_a_to_b_and_back_to_a(factory, factory_image, make_machine):
    second, third = (only(factory.build(version, "--only-bundle"), "*.raucb") for version in ("0.2.0", "0.3.0"))
    machine = make_machine(factory_image)
    install(machine, second)
    machine.start()
    assert slot(machine) == ("B", "0.2.0")
    good(machine)
    machine.run("echo kept >/state/kept && echo gone >/var/gone && sync")
    machine.shut_down()
    install(machine, third)
    machine.start()
    assert slot(machine) == ("A", "0.3.0")
    good(machine)
    assert machine.run("cat /state/kept; ls /var/gone 2>/dev/null || echo none").split() == ["kept", "none"]
    assert machine.run("dicom-gateway update rollback")
    machine.shut_down()
    machine.start()
    assert slot(machine) == ("B", "0.2.0")
    good(machine)


def test_what_is_forged_tampered_older_or_for_another_board_is_refused(factory, factory_image, make_machine, tmp_path):
    built = factory.build("0.2.0", "--only-bundle", "--keep-slot")
    true, content = only(built, "*.raucb"), only(built, "*.ext4")
    stranger, ours = bundle.Signer.of(tmp_path / "stranger"), bundle.Signer.of(factory.keys)
    forged = bundle.make(PC, "0.2.0", content, None, stranger, built / "forged.raucb")
    older = bundle.make(PC, "0.0.9", content, None, ours, built / "older.raucb")
    foreign = bundle.make(
        dataclasses.replace(PC, compatible="toaster"), "0.2.0", content, None, ours, built / "foreign.raucb"
    )
    tampered = built / "tampered.raucb"
    data = bytearray(true.read_bytes())
    # In every block: those that the running slot has as well are copied from there, and never read from the bundle.
    for place in range(2**20, len(data) - 2**23, 4096):
        data[place] ^= 0xFF
    tampered.write_bytes(data)
    machine = make_machine(factory_image)
    machine.start(*stick(machine.folder / "stick.img", "UPDATE", forged, older, foreign, tampered))
    good(machine)
    machine.run("mkdir -p /run/stick && mount -o ro /dev/disk/by-label/UPDATE /run/stick")
    for name, word in (
        ("forged", "signed"),
        ("older", "older"),
        ("foreign", "another kind"),
        ("tampered", "to its end"),
    ):
        code, said = machine.attempt(f"dicom-gateway update install /run/stick/{name}.raucb 2>&1", 3600)
        print(f"{name}: {said.strip()}")
        assert code != 0 and word in said, said
    assert "ORDER=A B" in machine.run("cat /boot/config/EFI/BOOT/grubenv")
    machine.shut_down()
    machine.start()
    assert slot(machine) == ("A", "0.1.0")


def test_a_version_that_does_not_work_is_left_by_itself(factory, factory_image, make_machine, tmp_path):
    broken = tmp_path / "broken"
    for unit, text in (
        ("dicom-gateway.service", "ExecCondition=\nExecStart=\nExecStart=/usr/bin/false\n"),
        (
            "dicom-gateway-confirm.service",
            "ExecStart=\nExecStart=/usr/bin/dicom-gateway confirm --reboot --within 20\n",
        ),
    ):
        folder = broken / f"etc/systemd/system/{unit}.d"
        folder.mkdir(parents=True)
        (folder / "broken.conf").write_text("[Service]\n" + text)
    machine = make_machine(factory_image)
    config = tmp_path / "gateway.toml"
    config.write_text('[gateway]\nid = "box"\n[spool]\nreserve_bytes = 67108864\n[[listener]]\nport = 11112\n')
    machine.put(config)
    install(machine, only(factory.build("0.2.0", "--only-bundle", "--add", str(broken)), "*.raucb"))
    for attempt in (1, 2, 3):
        machine.start()
        assert slot(machine) == ("B", "0.2.0")
        machine.wait_off(1800)
        print(f"try {attempt} of the broken version ended by itself")
    machine.start()
    assert slot(machine) == ("A", "0.1.0")
    good(machine)
    assert "went back" in machine.run("dicom-gateway update status")


def test_a_signed_command_updates_the_box_from_its_stick(
    factory, factory_image, world, make_machine, wait_until, tmp_path
):
    ops, stranger = Operator(), Operator()
    keyring = tmp_path / "keyring.toml"
    keyring.write_text(ops.entry())
    heard = world.broker.record()
    machine = make_machine(factory_image, forward=(104,))
    machine.put(keyring, *world.config('[update]\nsource = "stick"', 'keyring_file = "keyring.toml"'))
    plugged = stick(machine.folder / "stick.img", "UPDATE", only(factory.build("0.2.0", "--only-bundle"), "*.raucb"))
    machine.start(*plugged)
    assert wait_until(lambda: "update.install" in (heard.last("/birth") or {}).get("cmd", ()), BOOT_S), machine.log()
    good(machine)

    def command(signer, version) -> str:
        """Give it; return its topic."""
        body = signer.body("update.install", {"version": version}, target="ct1-gateway")
        topic = f"update.install/{body['id']}"
        world.broker.publish(f"gw/v1/default/ct1-gateway/cmd/{topic}", signer.seal(body))
        return topic

    def answers(topic) -> list[str]:
        """Return what the box answers until it is done."""
        told = lambda: [result["status"] for result in heard.of(f"res/{topic}")]  # noqa: E731
        assert wait_until(lambda: {*told()} & {"rejected", "failed", "successful"}, 1800), machine.log()
        return told()

    command(stranger, "0.2.0")
    rejected = wait_until(lambda: heard.last("e/command_rejected"), 60)
    assert rejected["code"] == "bad_signature", "who cannot sign gets no answer of its own"
    assert answers(command(ops, "0.9.9"))[-1] == "failed", "the stick holds another version"
    assert "ORDER=A B" in machine.run("cat /boot/config/EFI/BOOT/grubenv")
    begun = time.monotonic()
    assert answers(command(ops, "0.2.0")) == ["accepted", "executing", "successful"]
    machine.wait_off()
    print(f"from the command to the restart: {time.monotonic() - begun:.0f} s")
    machine.start(*plugged)
    assert slot(machine) == ("B", "0.2.0")
    good(machine)
    assert wait_until(lambda: heard.last("/birth")["slot"] == "B", 120)
    assert "0.2.0 was judged last: kept" in machine.run("dicom-gateway update status")


def test_power_that_goes_during_an_installation_leaves_the_old_version(factory, factory_image, make_machine):
    path = only(factory.build("0.2.0", "--only-bundle"), "*.raucb")
    machine = make_machine(factory_image)
    plugged = stick(machine.folder / "stick.img", "UPDATE", path)
    progress = "busctl get-property de.pengutronix.rauc / de.pengutronix.rauc.Installer Progress"
    for after_s in (3, 12):
        machine.start(*plugged)
        good(machine)
        machine.run(f"(dicom-gateway update install >/dev/null 2>&1 &) ; until {progress} | grep Copying; do :; done")
        time.sleep(after_s)
        machine.cut_power()
        assert "B_OK=0" in machine.boot_file(ENVIRONMENT), "it was installed before the power went"
    machine.start(*plugged)
    assert slot(machine) == ("A", "0.1.0")
    good(machine)
    machine.run("dicom-gateway update install", 3600)
    machine.shut_down()
    machine.start()
    assert slot(machine) == ("B", "0.2.0")
    good(machine)


def test_where_no_slot_is_good_the_older_one_is_started(factory_image, make_machine):
    machine = make_machine(factory_image)
    environment = machine.folder / "grubenv"
    settings = ["ORDER=A B", "A_OK=1", "B_OK=0", "A_TRY=3", "B_TRY=3"]
    subprocess.run(["grub-editenv", str(environment), "create"], check=True)
    subprocess.run(["grub-editenv", str(environment), "set", *settings], check=True)
    machine.put(environment, to="EFI/BOOT")
    machine.start()
    assert slot(machine) == ("A", "0.1.0")
    good(machine)
