"""What every table of the configuration is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

AETitle = Annotated[str, StringConstraints(min_length=1, max_length=16, pattern=r"^[\x20-\x5b\x5d-\x7e]+$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,63}$")]
Port = Annotated[int, Field(ge=1, le=65535)]


class Table(BaseModel):
    """A TOML table: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")  # JSON knows no infinity
