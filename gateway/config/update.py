"""`[update]`: where the image's next version comes from."""

from __future__ import annotations

from pydantic import Field

from gateway.config.base import Table

STICK = "stick"


class UpdateSettings(Table):
    """`[update]`: for the command `update.install`, which names a version. What is installed must be signed anyway."""

    source: str = Field(
        pattern=r"^(stick|(https://|/)[^\s]*\{version\}[^\s]*)$",
        description="Bundle of a version: an https URL, or a path on the box, with {version} in it; or the word "
        "`stick`: the one bundle on a stick labelled UPDATE or CONFIG that stays plugged in.",
    )
