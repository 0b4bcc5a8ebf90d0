"""What a recipe is made of: one function for each kind of table, applied one after the other to one data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pydicom.dataset import Dataset

from gateway.config.deidentify import DeidentifySettings
from gateway.config.morph import MorphSettings
from gateway.model.errors import ConfigError, PrepareLater
from gateway.prepare.deidentify import deidentify
from gateway.prepare.edit import Step
from gateway.prepare.morph import morph
from gateway.prepare.pseudonym import Pseudonyms
from gateway.prepare.recipe import Occasion, Stage


def _deidentify(dataset: Dataset, settings: DeidentifySettings, occasion: Occasion) -> None:
    try:
        pseudonyms = Pseudonyms.from_file(settings.key_file)
    except ConfigError as error:
        raise PrepareLater(error.detail) from error
    deidentify(dataset, settings, pseudonyms)


STAGES: dict[type, Callable[[Dataset, Any, Occasion], None]] = {MorphSettings: morph, DeidentifySettings: _deidentify}
"""By the table's type. A stage may change every attribute, UIDs too; it is shown no pixels."""


def steps_of(stages: Sequence[Stage], occasion: Occasion) -> list[Step]:
    """Return what `edit` is to do for these tables."""
    return [partial(_apply, stage, occasion) for stage in stages]


def _apply(stage: Stage, occasion: Occasion, dataset: Dataset) -> None:
    STAGES[type(stage)](dataset, stage, occasion)
