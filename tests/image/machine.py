"""A box in QEMU: the image as it is flashed, on a disk of its own, and a shell that only the test has.

The shell comes by a systemd credential in the virtual firmware's tables (or the kernel's command line), so the image is
the very one that is handed out. Between boots QEMU ends and starts anew: a warm reset of OVMF under emulation may take
minutes.
"""

from __future__ import annotations

import base64
import functools
import math
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.image import emulator
from tests.ports import free_port

BOOT_S = 1800
"""A very busy machine without KVM may need so long; an idle one needs a minute."""
NICE = 10
"""A processor emulated in software must not starve the tests beside it."""
CPU = "qemu64,-svm,+ssse3,+sse4.1,+sse4.2,+popcnt"
"""x86-64-v2, as numpy asks for, and no more, which Linux would test. AMD's: without Meltdown, whose remedy empties the
emulated processor's tables of pages at each system call, and takes a third of the time."""
EMULATED = "tcg"
"""One processor then: with two, a start takes a tenth less, and two fifths more of what the tests beside it need."""
FIRMWARE = Path("/usr/share/OVMF")
SHELL = """[Unit]
DefaultDependencies=no
[Service]
ExecStart=/bin/bash --norc --noediting
StandardInput=tty-force
StandardOutput=tty
StandardError=tty
TTYPath=/dev/{tty}
StartupCPUWeight=idle
Environment=PS1= TERM=dumb SYSTEMD_COLORS=0 SYSTEMD_PAGER=
Restart=always
"""


@functools.cache
def accelerator() -> str:
    """Return `kvm` when it boots the firmware here; /dev/kvm alone says little on a host that is a guest itself."""
    if not Path("/dev/kvm").exists():
        return EMULATED
    probe = subprocess.Popen(
        [*emulator.pc(), "-accel", "kvm", "-m", "256", "-display", "none", "-nic", "none", "-serial", "stdio",
         "-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}/OVMF_CODE_4M.fd"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    seen, deadline = b"", time.monotonic() + 15
    try:
        while time.monotonic() < deadline and b"KVM internal error" not in seen and b"BdsDxe" not in seen:
            block = probe.stdout.read1(4096)
            if not block:
                break
            seen += block
    finally:
        probe.kill()
        probe.wait(10)
    return "kvm" if b"BdsDxe" in seen and b"KVM internal error" not in seen else EMULATED


class Machine:
    """One box. `forward` names the guest's TCP ports that are reached by `port[n]` on 127.0.0.1."""

    def __init__(self, folder: Path, image: Path, forward=(11112,), disk_gib=6) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.disk = folder, folder / "disk.img"
        subprocess.run(["cp", "--sparse=always", str(image), str(self.disk)], check=True)
        with self.disk.open("r+b") as file:
            file.truncate(disk_gib * 2**30)
        shutil.copy(FIRMWARE / "OVMF_VARS_4M.fd", folder / "vars.fd")
        self.port = {guest: free_port() for guest in forward}
        self.process: subprocess.Popen | None = None
        self.more: list[str] = []
        """Further arguments of QEMU."""
        self._shell: socket.socket | None = None
        self._ready = False
        """A shell has answered since it was switched on."""
        self._boots = 0

    def put(self, *files: Path, to: str = "CONFIG") -> None:
        """Copy files to the boot partition, as with a card reader."""
        subprocess.run(["mcopy", "-o", "-i", f"{self.disk}@@1M", *map(str, files), f"::{to}/"], check=True)

    def boot_file(self, name: str) -> str | None:
        """Return a file of the boot partition, read from the disk that is off."""
        done = subprocess.run(["mtype", "-i", f"{self.disk}@@1M", f"::{name}"], capture_output=True)
        return done.stdout.decode() if done.returncode == 0 else None

    def start(self, *extra: str) -> Machine:
        """Switch it on."""
        path = self.folder / "shell"
        path.unlink(missing_ok=True)
        shell = ["-chardev", f"socket,id=shell,path={path},server=on,wait=off", "-serial", "chardev:shell"]
        self._switch_on(emulator.pc(), [*self._hardware(), *shell], extra)
        self._connect(path)
        return self

    def _hardware(self) -> list[str]:
        unit = base64.b64encode(SHELL.format(tty="ttyS1").encode()).decode()
        wanted = base64.b64encode(b"[Unit]\nWants=test-shell.service\n").decode()
        processors = "1" if accelerator() == EMULATED else "2"
        return [
            "-accel", accelerator(), "-cpu", CPU, "-smp", processors, "-m", "1024",
            "-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE}/OVMF_CODE_4M.fd",
            "-drive", f"if=pflash,format=raw,file={self.folder}/vars.fd",
            "-drive", f"if=none,id=disk,format=raw,discard=unmap,file={self.disk}",
            "-device", "virtio-blk-pci,drive=disk,bootindex=0",
            "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-rng-pci",
            "-smbios", f"type=11,value=io.systemd.credential.binary:systemd.extra-unit.test-shell.service={unit}",
            "-smbios", f"type=11,value=io.systemd.credential.binary:systemd.unit-dropin.sysinit.target={wanted}",
        ]  # fmt: skip

    def _switch_on(self, program: Sequence[str], hardware: list[str], extra: Sequence[str]) -> None:
        """Start QEMU with a console that is kept, and the network; `extra` are further arguments of this start."""
        self._boots += 1
        self._ready = False
        console = self.folder / f"console{self._boots}"
        console.touch()
        forward = "".join(f",hostfwd=tcp:127.0.0.1:{host}-:{guest}" for guest, host in self.port.items())
        command = [
            "nice", "-n", str(max(0, NICE - os.nice(0))), *program,
            "-nodefaults", "-display", "none", "-monitor", "none", "-no-reboot",
            "-netdev", f"user,id=net{forward}", "-serial", f"file:{console}", *hardware, *self.more, *extra,
        ]  # fmt: skip
        self.started = time.monotonic()
        with open(self.folder / "qemu.log", "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @contextmanager
    def tpm(self, anew: bool = False) -> Iterator[None]:
        """Let the box have a TPM 2.0 of its own for so long; `anew`: another one, as after a theft of the disk."""
        state, path = self.folder / ("tpm2" if anew else "tpm"), self.folder / "tpm.sock"
        state.mkdir(exist_ok=True)
        words = ["swtpm", "socket", "--tpm2", "--tpmstate", f"dir={state}", "--ctrl", f"type=unixio,path={path}"]
        before = self.more
        self.more = [
            "-chardev", f"socket,id=tpm,path={path}", "-tpmdev", "emulator,id=tpm0,chardev=tpm",
            "-device", "tpm-crb,tpmdev=tpm0",
        ]  # fmt: skip
        chip = subprocess.Popen([*words, "--terminate"], stdin=subprocess.DEVNULL)
        try:
            yield
        finally:
            self.more = before
            self.stop()
            chip.terminate()
            chip.wait(20)

    def _connect(self, path: Path) -> None:
        deadline = time.monotonic() + 20
        while True:
            self._shell = socket.socket(socket.AF_UNIX)
            try:
                self._shell.connect(str(path))
                return
            except OSError:
                self._shell.close()
                assert self.process.poll() is None and time.monotonic() < deadline, self.log()
                time.sleep(0.1)

    def run(self, command: str, patience_s: float = BOOT_S) -> str:
        """Run a command on the box; return what it printed. Fails when it fails."""
        code, said = self.attempt(command, patience_s)
        assert code == 0, f"{command!r} ended with {code}: {said}"
        return said

    def attempt(self, command: str, patience_s: float = BOOT_S) -> tuple[int, str]:
        """Run a command on the box; return its exit code and what it printed. Waits until there is a shell."""
        if not self._ready:
            # What is typed before there is a shell is lost, or not: only what may be done twice is said twice.
            self._until(rb"shell-\d+", "stty -echo; echo shell-$$", patience_s, again_s=10)
            self._ready = True
        mark = f"{time.monotonic_ns():x}"
        line = f"echo begin-{mark[:4]}''{mark[4:]}; ( {command}\n ); echo end-{mark[:4]}''{mark[4:]} $?"
        found = self._until(rf"begin-{mark}\r?\n(.*)end-{mark} (\d+)".encode(), line, patience_s)
        return int(found[2]), found[1].decode(errors="replace").replace("\r\n", "\n")

    def _until(self, pattern: bytes, line: str, patience_s: float, again_s: float = math.inf) -> re.Match[bytes]:
        """Type a line, every `again_s` anew, until the pattern has been seen."""
        deadline, seen, typed = time.monotonic() + patience_s, b"", -math.inf
        while time.monotonic() < deadline:
            if time.monotonic() - typed > again_s or not math.isfinite(typed):
                typed = time.monotonic()
                self._shell.sendall(f"\n{line}\n".encode())
            self._shell.settimeout(1)
            try:
                block = self._shell.recv(65536)
            except TimeoutError:
                continue
            assert block, f"the box went away during {line!r}: {self.log()}"
            seen += block
            found = re.search(pattern, seen, re.DOTALL)
            if found:
                return found
        raise AssertionError(f"{line!r} did not end: {seen[-2000:]!r}\n{self.log()}")

    def console(self) -> str:
        """Return what came over the serial console since it was switched on."""
        return (self.folder / f"console{self._boots}").read_text(errors="replace")

    def log(self) -> str:
        return (self.folder / "qemu.log").read_text()[-2000:] + self.console()[-3000:]

    def cut_power(self) -> None:
        """Pull the plug."""
        if self._shell:
            self._shell.close()
        self.process.kill()
        self.process.wait(20)

    def wait_off(self, patience_s: float = BOOT_S) -> None:
        """Wait until it went off, or asked to be started again, which QEMU leaves to us."""
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(self.log()) from None
        self._shell.close()

    def shut_down(self) -> None:
        self._shell.sendall(b"\nsystemctl poweroff\n")
        self.wait_off()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.cut_power()


def stick(path: Path, label: str, *files: Path) -> list[str]:
    """Return the arguments that plug in a USB stick with these files."""
    size = sum(file.stat().st_size for file in files) + 32 * 2**20
    with path.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.vfat", "-n", label, str(path)], check=True, capture_output=True)
    subprocess.run(["mcopy", "-i", str(path), *map(str, files), "::"], check=True)
    drive = f"if=none,id=stick,format=raw,file={path}"
    return ["-drive", drive, "-device", "qemu-xhci", "-device", "usb-storage,drive=stick,removable=on"]
