"""The image as it is flashed, in QEMU: built, or named by BOX_IMAGE; its power is cut by ending QEMU."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from gateway.emulator.services import Peer
from tests.broker import Broker
from tests.conftest import until
from tests.hil.rig import ArchiveTable, BoxTable, BrokerTable, Rig, box_config
from tests.hil.target import RETRIES, answers, why_not
from tests.hil.verdict import Failed
from tests.image.conftest import HOST, Factory, missing
from tests.image.machine import BOOT_S, Machine
from tests.ports import free_port

NAME = "ct1-gateway"


class MachineTarget:
    """One box in QEMU. Raises Failed where no image can be built or booted."""

    kind = "qemu"

    def __init__(self, folder: Path, *, short: bool) -> None:
        if missing():
            raise Failed(f"no image can be built here: {missing()}")
        folder.mkdir(parents=True)
        (folder / "image").mkdir()
        (image,) = Factory(folder / "image").build().glob("*.img")
        self._broker = Broker(folder / "broker", HOST).start()
        archive, mqtt = free_port(), free_port()
        user = self._broker.as_user("monitor")
        self.rig = Rig(
            name="image in QEMU",
            fresh=True,
            box=BoxTable(mqtt_id=NAME, commitment=True, idle_timeout_s=5 if short else 60, patience_s=300),
            archive=ArchiveTable(listen=f"127.0.0.1:{archive}", box_sees=f"{HOST}:{archive}"),
            broker=BrokerTable(
                listen=f"127.0.0.1:{mqtt}",
                box_sees=f"{HOST}:{mqtt}",
                to=f"127.0.0.1:{self._broker.port}",
                options=user[user.index("--cafile") :],
                interval_s=5,
            ),
        )
        self._machine = Machine(folder / "machine", image, forward=(104,))
        self._machine.put(*self._config(folder / "CONFIG"))

    def _config(self, folder: Path) -> list[Path]:
        """The folder CONFIG of the boot partition."""
        folder.mkdir()
        self._broker.table(NAME)
        for name, kept in (("ca.pem", "mqtt-ca.pem"), (f"{NAME}.pem", "mqtt.pem"), (f"{NAME}.key", "mqtt.key")):
            shutil.copy(self._broker.folder / name, folder / kept)
        tls = 'tls = { ca_file = "mqtt-ca.pem", cert_file = "mqtt.pem", key_file = "mqtt.key" }'
        (folder / "gateway.toml").write_text(
            f'[gateway]\nid = "{NAME}"\n[spool]\nreserve_bytes = 67108864\n'
            f"[[listener]]\nport = 104\nidle_timeout_s = {self.rig.box.idle_timeout_s:g}\n"
            + box_config(self.rig, mqtt_tls=tls, retries=RETRIES)
        )
        return sorted(folder.iterdir())

    @property
    def place(self) -> Peer:
        return Peer("127.0.0.1", self._machine.port[104], self.rig.box.ae_title)

    def start(self) -> None:
        self._machine.start()
        if not until(lambda: answers(self.place), 2 * BOOT_S):  # the first start lays out the disk
            raise Failed(f"the image did not come up: {self._machine.log()}")

    def stop(self) -> None:
        self._machine.stop()
        self._broker.stop()

    def why_not(self, what: str) -> str:
        return why_not(self.rig, what)

    def kill(self) -> None:
        self._machine.run("systemctl kill --signal=KILL dicom-gateway.service")

    def cut_power(self) -> None:
        self._machine.cut_power()

    def restore(self) -> None:
        """Switch it on if it is off; wait until it answers."""
        if self._machine.process is None or self._machine.process.poll() is not None:
            self._machine.start()
        if not until(lambda: answers(self.place), BOOT_S):
            raise Failed(f"the box did not come back: {self._machine.log()}")

    def set_clock(self, offset_s: int) -> None:
        self._machine.run(f"date --set=@{int(time.time()) + offset_s}")

    def log(self) -> str:
        return self._machine.run("journalctl --unit=dicom-gateway --no-pager --output=cat --lines=5000")
