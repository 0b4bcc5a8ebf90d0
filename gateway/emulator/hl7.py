"""HL7 version 2 as a RIS sends it: orders (ORM, OMI) and patients (ADT) over MLLP."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.emulator.orders import Order

Control = Literal["NW", "CA", "XO"]
START, END = b"\x0b", b"\x1c\r"
CHARACTER_SETS = {"8859/1": "latin-1", "UNICODE UTF-8": "utf-8", "8859/5": "iso8859-5", "": "ascii"}
"""MSH-18 -> encoding."""
KINDS = {
    "ORM": ("ORM^O01^ORM_O01", "2.3.1"),
    "OMI": ("OMI^O23^OMI_O23", "2.5.1"),
    "ADT": ("ADT^A04^ADT_A01", "2.5.1"),
    "update": ("ADT^A08^ADT_A01", "2.5.1"),
    "merge": ("ADT^A40^ADT_A39", "2.5.1"),
}


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What the other side answered: MSA-1, and MSA-3."""

    code: str
    text: str


def escaped(text: str) -> str:
    """Return a text whose delimiters are escaped (HL7 2.5.1, 2.7.1)."""
    for plain, sequence in (("\\", "\\E\\"), ("|", "\\F\\"), ("~", "\\R\\"), ("&", "\\T\\")):
        text = text.replace(plain, sequence)
    return text


def message(
    order: Order,
    kind: str,
    number: int,
    *,
    control: Control = "NW",
    character_set: str = "UNICODE UTF-8",
    merged: str = "",
) -> bytes:
    """Return one message for an order. `kind` is a key of KINDS; `control` is ORC-1: new, cancelled, changed; `merged`
    is the patient ID that ceases to be. Raises UnicodeEncodeError for a name that the character set does not have."""
    event, version = KINDS[kind]
    when = f"{order.date}{order.time}"
    name = escaped(order.patient_name.split("=")[0])
    segments = [
        f"MSH|^~\\&|EMURIS|CLINIC|GATEWAY|EDGE|{when}||{event}|{number}|P|{version}||||||{character_set}",
        f"PID|1||{order.patient_id}^^^CLINIC||{name}||{order.birth_date}|{order.sex}",
    ]
    if kind in ("ADT", "update"):
        segments.insert(1, f"EVN||{when}")
        segments.append("PV1|1|O")
    elif kind == "merge":
        segments.insert(1, f"EVN||{when}")
        segments.append(f"MRG|{merged}^^^CLINIC")
    else:
        segments += ["PV1|1|O", *_order_segments(order, kind, control, when)]
    return ("\r".join(segments) + "\r").encode(CHARACTER_SETS[character_set])


def _order_segments(order: Order, kind: str, control: Control, when: str) -> list[str]:
    what, urgent = escaped(order.description), "S" if order.stat else "R"
    placer, filler = f"{order.accession_number}^EMURIS", f"{order.procedure_id}^EMURIS"
    order_control = f"ORC|{control}|{placer}|{filler}||{'CA' if control == 'CA' else 'SC'}||^^^{when}^^{urgent}"
    if kind == "OMI":
        return [
            order_control,
            f"TQ1|1||||||{when}||{urgent}",
            f"OBR|1|{placer}|{filler}|EMU1^{what}^EMU",
            f"IPC|{order.accession_number}|{order.procedure_id}|{order.study_instance_uid}|{order.step_id}"
            f"|{order.modality}|EMU1^{what}^EMU||{order.station_ae_title}",
        ]
    request = [""] * 45
    request[0], request[1], request[2], request[3], request[4] = "OBR", "1", placer, filler, f"EMU1^{what}^EMU"
    request[18], request[19], request[20], request[24] = (
        order.accession_number,
        order.procedure_id,
        order.step_id,
        order.modality,
    )
    request[27], request[44] = f"^^^{when}^^{urgent}", f"EMU1^{what}^EMU"
    return [order_control, "|".join(request), f"ZDS|{order.study_instance_uid}^100^Application^DICOM"]


class MllpSender:
    """One connection that messages go over, one after the other, each answered."""

    def __init__(self, place: tuple[str, int], timeout_s: float = 10.0) -> None:
        """Raises OSError."""
        self._socket = socket.create_connection(place, timeout_s)
        self._socket.settimeout(timeout_s)

    def send(self, content: bytes) -> Acknowledged:
        """Send a message and return the answer. Raises OSError, also when there is none."""
        self._socket.sendall(START + content + END)
        got = bytearray()
        while not got.endswith(END):
            block = self._socket.recv(4096)
            if not block:
                raise ConnectionError("closed without an answer")
            got += block
        for segment in got.strip(START + END).decode("utf-8", "replace").split("\r"):
            fields = segment.split("|")
            if fields[0] == "MSA":
                return Acknowledged(fields[1], fields[3] if len(fields) > 3 else "")
        raise ConnectionError("the answer has no MSA")

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def send_orders(place: tuple[str, int], orders: Sequence[Order], kind: str) -> int:
    """Send a message for each order over one connection; return how many were not taken. Raises OSError."""
    sender = MllpSender(place)
    try:
        answers = [sender.send(message(one, kind, number)) for number, one in enumerate(orders, 1)]
    finally:
        sender.close()
    return sum(one.code not in ("AA", "CA") for one in answers)
