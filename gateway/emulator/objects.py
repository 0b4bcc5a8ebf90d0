"""The instances of one study, made from a profile and an order; the same seed gives the same bytes."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import UID

from gateway.emulator import pixels as picture
from gateway.emulator.encoding import UNJUDGED, declare
from gateway.emulator.orders import Order
from gateway.emulator.profile import EXPLICIT, Profile, Series
from gateway.emulator.shipped import ProfileError
from gateway.emulator.study import uid
from gateway.emulator.template import Contour, Repeated, Steps, fill

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


@dataclass(frozen=True, slots=True)
class Limits:
    """Makes studies smaller or larger than the profile does; 0 leaves it alone."""

    images: int = 0
    frames: int = 0
    series: int = 0
    side: int = 0
    """Longest side of an image."""


@dataclass(frozen=True, slots=True)
class Made:
    """One instance on its way out."""

    dataset: Dataset
    series: int
    """Counts from 0."""
    stat: bool
    again: int = 0
    """Counts retakes."""


class Uid:
    """{uid:some words}: one UID for the same words within a study."""

    def __init__(self, form: str, *parts: object) -> None:
        self._form, self._parts = form, parts

    def __format__(self, spec: str) -> str:
        made = uid(*self._parts, spec)
        if self._form == "zeros":
            return "1.2.826.0.1.00" + made[5:]
        if self._form == "long":
            return "1.2.826.0.1.3680043.8.498." + made[5:] + ".1234567890123456"
        if self._form in ("odd", "space", "two-nul") and len(made) % 2 == 0:
            return made + "1"
        return made


def study(profile: Profile, order: Order, seed: int, limits: Limits, *, again: int = 0) -> Iterator[Made]:
    """Yield the instances in the order in which they are acquired. `again` counts retakes: other instances in the
    same study. Raises ProfileError when the profile asks for what is not there."""
    luck = random.Random(f"{seed}/{again}/{order.study_instance_uid}")
    for index, series in enumerate(profile.series[: limits.series or None]):
        wanted = profile.exam.images or luck.randint(*series.images)
        count = min(wanted, limits.images or wanted)
        for number in range(1, count + 1):
            names = _names(profile, order, series, (index + 1 + 100 * again, number, count), limits)
            try:
                with UNJUDGED:  # a scanner that breaks rules is not warned of it
                    dataset = _instance(profile, series, order, names, seed, limits)
            except (ValueError, KeyError) as error:
                raise ProfileError(f"series {index + 1}: {error}") from error
            yield Made(dataset, index, order.stat, again)


def _frames(series: Series, limits: Limits) -> int:
    frames = series.pixels.frames if series.pixels else 0
    return min(frames, limits.frames) if limits.frames else frames


def _names(
    profile: Profile, order: Order, series: Series, place: tuple[int, int, int], limits: Limits
) -> dict[str, Any]:
    """What templates may name."""
    series_number, number, images = place
    frames = _frames(series, limits)
    seconds = int(order.time[:2]) * 3600 + int(order.time[2:4]) * 60 + 120 * series_number + number
    clock = f"{seconds // 3600 % 24:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"
    return {
        "uid": Uid(profile.data.uid_form, order.study_instance_uid),
        "contour": Contour(),
        "steps": Steps(frames),
        "repeated": Repeated(frames),
        "series": series_number,
        "number": number,
        "images": images,
        "frames": frames,
        "z": round(series.start_mm + series.step_mm * (number - 1), 3),
        "date": order.date,
        "time": clock,
        "datetime": order.date + clock,
        "study_uid": order.study_instance_uid,
        "sop_uid": f"{Uid(profile.data.uid_form, order.study_instance_uid):instance {series_number}.{number}}",
        "accession": order.accession_number,
        "name": order.patient_name,
        "left_right": "LR"[number % 2],
    }


def _instance(
    profile: Profile, series: Series, order: Order, names: dict[str, Any], seed: int, limits: Limits
) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT)
    declare(dataset, profile.data)
    dataset.SOPClassUID = profile.data.sop_class or series.sop_class
    dataset.SOPInstanceUID = names["sop_uid"]
    _patient_and_study(dataset, order, names)
    dataset.Modality = series.modality
    dataset.SeriesInstanceUID = f"{names['uid']:series {names['series']}}"
    dataset.SeriesNumber = names["series"]
    dataset.SeriesDescription = series.description
    dataset.SeriesDate, dataset.SeriesTime = order.date, order.time
    dataset.InstanceNumber = names["number"]
    if profile.exam.body_part:
        dataset.BodyPartExamined = profile.exam.body_part
    if order.scheduled:
        _request(dataset, order, profile)
    fill(dataset, profile.device, names)
    fill(dataset, series.set, names)
    if series.pixels is not None:
        _pixels(dataset, profile, series, names, seed, limits)
    if series.document:
        content = pdf(names["name"], profile.exam.description)
        dataset.EncapsulatedDocument = content + b"\0" * (len(content) % 2)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    return dataset


def _patient_and_study(dataset: Dataset, order: Order, names: dict[str, Any]) -> None:
    dataset.PatientName = order.patient_name
    dataset.PatientID = order.patient_id
    dataset.PatientBirthDate = order.birth_date
    dataset.PatientSex = order.sex
    dataset.StudyInstanceUID = order.study_instance_uid
    dataset.StudyID = order.procedure_id[-16:] or "1"
    dataset.StudyDate, dataset.StudyTime = order.date, order.time
    dataset.ContentDate, dataset.ContentTime = order.date, names["time"]
    dataset.AccessionNumber = order.accession_number
    dataset.ReferringPhysicianName = ""
    dataset.StudyDescription = order.description


def _request(dataset: Dataset, order: Order, profile: Profile) -> None:
    """What ties the images to what was ordered (PS3.3 C.7.3.1.1.1, Request Attributes)."""
    item = Dataset()
    item.RequestedProcedureID = order.procedure_id
    item.RequestedProcedureDescription = order.description
    item.ScheduledProcedureStepID = order.step_id
    item.ScheduledProcedureStepDescription = order.description
    dataset.RequestAttributesSequence = Sequence([item])
    dataset.PerformedProcedureStepID = order.step_id
    dataset.PerformedProcedureStepStartDate, dataset.PerformedProcedureStepStartTime = order.date, order.time
    dataset.PerformedProcedureStepDescription = profile.exam.description


def _pixels(
    dataset: Dataset, profile: Profile, series: Series, names: dict[str, Any], seed: int, limits: Limits
) -> None:
    assert series.pixels is not None
    pixels = series.pixels
    longest, side = max(pixels.rows, pixels.columns), limits.side or profile.exam.side
    if side and longest > side:
        smaller = {key: max(8, getattr(pixels, key) * side // longest) for key in ("rows", "columns")}
        pixels = pixels.model_copy(update=smaller)
    frames = names["frames"]
    dataset.SamplesPerPixel = 3 if pixels.colour else 1
    dataset.PhotometricInterpretation = pixels.photometric
    if pixels.colour:
        dataset.PlanarConfiguration = pixels.planar
    if frames:
        dataset.NumberOfFrames = frames
    dataset.Rows, dataset.Columns = pixels.rows, pixels.columns
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = pixels.allocated, pixels.stored, pixels.stored - 1
    dataset.PixelRepresentation = int(pixels.signed)
    if frames and (series.shared or series.per_frame):
        _groups(dataset, series, names)
    # An image's place in its series, or a frame's in its image.
    of = frames or names["images"]
    places = ((n + 0.5) / of for n in (range(frames) if frames else [names["number"] - 1]))
    number = names["number"] + 1000 * names["series"]
    if pixels.jpeg_quality:
        dataset.file_meta.TransferSyntaxUID = UID(JPEG_BASELINE)
        parts = picture.jpeg(pixels, places, seed, number)
        dataset.PixelData = encapsulate(parts)
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"
        raw = pixels.rows * pixels.columns * len(parts) * (3 if pixels.colour else 1)
        dataset.LossyImageCompressionRatio = round(raw / sum(map(len, parts)), 2)
    else:
        dataset.PixelData = picture.native(pixels, places, seed, number)
        dataset["PixelData"].VR = "OW" if pixels.allocated > 8 else "OB"


def _groups(dataset: Dataset, series: Series, names: dict[str, Any]) -> None:
    """Functional groups, one item for each frame (PS3.3 C.7.6.16)."""
    dataset.SharedFunctionalGroupsSequence = Sequence([fill(Dataset(), series.shared, names)])
    items = []
    for index in range(names["frames"]):
        here = {
            "frame": index + 1,
            "frame_z": round(series.start_mm + series.step_mm * index, 3),
            "slice": 1 + index,
        }
        items.append(fill(Dataset(), series.per_frame, {**names, **here}))
    dataset.PerFrameFunctionalGroupsSequence = Sequence(items)


def pdf(name: str, title: str) -> bytes:
    """Return a report of one page that any reader opens (ISO 32000-1)."""
    safe = [text.encode("latin-1", "replace").decode("latin-1") for text in (title, name.replace("^", ", "))]
    escaped = [text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)") for text in safe]
    lines = [*escaped, "", *(f"Finding {n}: nothing, since nobody was examined." for n in range(1, 25))]
    shown = "BT /F1 12 Tf 72 770 Td 16 TL " + " ".join(f"({line}) Tj T*" for line in lines) + " ET"
    page = zlib.compress(shown.encode("latin-1"))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R"
        b" /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%b\nendstream" % (len(page), page),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
    ]
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(content))
        content += b"%d 0 obj\n%b\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % at for at in places)
    return (
        content
        + b"xref\n0 %d\n0000000000 65535 f \n%btrailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (
            len(objects) + 1,
            table,
            len(objects) + 1,
            len(content),
        )
    )
