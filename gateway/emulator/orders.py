"""Patients that nobody is, and what they come for: seeded, in the letters that scanners have trouble with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.emulator.profile import load
from gateway.emulator.study import uid

LETTERS = {
    "ascii": (("MUELLER", "SMITH", "DUBOIS", "ROSSI"), ("ANNA", "JOHN", "MARIE", "LUCA")),
    "latin": (("MÜLLER", "PEÑA", "LEFÈVRE", "SØRENSEN", "GROß"), ("JÜRGEN", "JOSÉ", "HÉLÈNE", "BJØRN", "ZOË")),
    "cyrillic": (("Люксембург", "Петров", "Иванова"), ("Анна", "Пётр", "Мария")),
    "japanese": (("Yamada=山田", "Suzuki=鈴木"), ("Tarou=太郎", "Hanako=花子")),
}


@dataclass(frozen=True, slots=True)
class Order:
    """One patient and one requested procedure, as a worklist gives them."""

    patient_name: str
    patient_id: str
    birth_date: str
    sex: str
    accession_number: str
    study_instance_uid: str
    procedure_id: str
    step_id: str
    description: str
    modality: str
    station_ae_title: str
    date: str
    """YYYYMMDD"""
    time: str
    """HHMMSS"""
    scheduled: bool = True
    stat: bool = False


def name(luck: random.Random, letters: str) -> str:
    """Return a Person Name (PS3.5 6.2); Japanese ones have an ideographic group too."""
    family, given = (luck.choice(words) for words in LETTERS[letters])
    if letters != "japanese":
        return f"{family}^{given}"
    return "=".join(f"{one}^{other}" for one, other in zip(family.split("="), given.split("="), strict=True))


def order(
    seed: int, modality: str, description: str, *, letters: str = "latin", station: str = "", day: str = "20260101"
) -> Order:
    """Return what number `seed` comes for; the same seed gives the same."""
    luck = random.Random(f"{seed}/{modality}/{letters}")
    return Order(
        name(luck, letters),
        f"EMU{luck.randrange(10**8):08d}",
        f"{luck.randint(1926, 2015)}{luck.randint(1, 12):02d}{luck.randint(1, 28):02d}",
        luck.choice("MFO"),
        f"A{luck.randrange(10**9):09d}",
        uid(seed, modality, letters, "study"),
        f"RP{seed % 10**6}",
        f"SPS{seed % 10**6}",
        description,
        modality,
        station,
        day,
        f"{luck.randint(7, 18):02d}{luck.randint(0, 59):02d}00",
    )


def unscheduled(seed: int, modality: str, description: str, *, emergency: bool, station: str = "") -> Order:
    """Return a patient that no worklist knows: typed in by hand, or unknown and urgent, without any order."""
    known = order(seed, modality, description, letters="ascii", station=station)
    number = f"{seed % 10**6:06d}"
    return Order(
        f"EMERGENCY^{number}" if emergency else known.patient_name,
        f"NOID{number}" if emergency else known.patient_id,
        "" if emergency else known.birth_date,
        "" if emergency else known.sex,
        "",
        uid(seed, modality, "unscheduled study"),
        "",
        "",
        description,
        modality,
        station,
        known.date,
        known.time,
        scheduled=False,
        stat=emergency,
    )


def scheduled_day(scanners: Sequence[str], patients: int, seed: int, day: str) -> list[Order]:
    """Return the orders of a day for scanners given as PROFILE or PROFILE=AE, in the order of their times. Raises
    ProfileError."""
    orders = []
    for place, text in enumerate(scanners):
        kind, _, title = text.partition("=")
        profile = load(kind)
        modality, station = profile.series[0].modality, title or profile.network.ae_title
        for number in range(patients):
            count = seed * 10_000 + place * 1000 + number
            described = profile.exam.description
            orders.append(order(count, modality, described, letters=profile.data.names, station=station, day=day))
    return sorted(orders, key=lambda one: (one.time, one.step_id))
