"""What goes wrong in our own house, named by what the caller must do.

The docstring of each class is its message to a person; `exit_code` is what the command line returns, `hint` the
fix. What a *peer* does wrong is never an exception but a `Verdict` (see `verdict.py`).
"""

from __future__ import annotations


class GatewayError(Exception):
    """The gateway could not do what was asked."""

    exit_code = 1
    hint = ""

    def __init__(self, detail: str = "", *, hint: str = "") -> None:
        self.detail = detail
        self.hint = hint or type(self).hint
        super().__init__(detail or (type(self).__doc__ or "").strip())


class ConfigError(GatewayError):
    """The configuration cannot be used."""

    exit_code = 78
    hint = "run `dicom-gateway config check` to see every problem at once"


class NotRunning(GatewayError):
    """The service is not running."""

    exit_code = 69
    hint = "start it with `dicom-gateway run` or `systemctl start dicom-gateway`"


class SpoolError(GatewayError):
    """The spool could not keep or give back an object."""

    exit_code = 75
    hint = "check the disk with `dicom-gateway doctor`; nothing accepted has been dropped"


class CustodyRot(SpoolError):
    """A held object no longer has the bytes that were acknowledged."""

    hint = "the object is in quarantine; look at it with `dicom-gateway queue show`"


class ExportError(GatewayError):
    """Copies could not be written to where they were to go."""

    exit_code = 75
    hint = "make room, and export to another folder; nothing in the spool was changed"


class Stopped(GatewayError):
    """The room is to end in the middle of a delivery; the instance is delivered again later."""


class Refused(GatewayError):
    """An object was not taken; `status` is the DIMSE status that says why (PS3.4 B.2.3, PS3.7 Annex C)."""

    def __init__(self, status: int, detail: str, *, endless: bool = False) -> None:
        super().__init__(detail)
        self.status = status
        self.endless = endless
        """There may be no end to wait for: the sender is answered at once, and broken off."""


class IdentityError(GatewayError):
    """A certificate, key or trust anchor cannot be used."""

    exit_code = 78
    hint = "check the paths and rights of the files named in the `tls` table"


class PrepareError(GatewayError):
    """A rendition could not be made exactly; the original goes instead."""


class ImpossibleTransition(GatewayError):
    """A bug: this event cannot happen in this state."""
