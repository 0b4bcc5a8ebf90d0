"""`dicom-gateway status receipt`: a signed statement of what became of a study."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import click

from gateway.cli.context import print_json
from gateway.cli.local import ask_service, settings_of
from gateway.model.errors import ExportError, GatewayError

VERIFY = "openssl pkeyutl -verify -pubin -inkey KEY.pem -rawin -in {out} -sigfile {out}.sig"


@click.command()
@click.argument("study_uid", required=False)
@click.option("--out", type=click.Path(path_type=Path), help="Write FILE and FILE.sig instead of printing JSON.")
@click.option("--public-key", is_flag=True, help="Print the public key that verifies receipts of this box.")
@click.pass_context
def receipt(ctx: click.Context, study_uid: str | None, out: Path | None, public_key: bool) -> None:
    """Sign what was received of a study and who confirmed it. Exit code 1 when it is not complete.

    FILE is canonical JSON (RFC 8785), FILE.sig its Ed25519 signature. Verify with the public key, which is to be
    fetched once by a way that is trusted:

    openssl pkeyutl -verify -pubin -inkey KEY.pem -rawin -in FILE -sigfile FILE.sig
    """
    if public_key == (study_uid is not None):
        raise click.UsageError("name a Study Instance UID, or say --public-key")
    settings = settings_of(ctx)
    if study_uid is None:
        click.echo(ask_service(settings, {"do": "receipt_key"}), nl=False)
        return
    signed = ask_service(settings, {"do": "receipt", "study": study_uid})
    if out is None:
        print_json({"receipt": json.loads(signed["text"]), **{key: signed[key] for key in ("signature", "public_key")}})
    else:
        signature = out.with_name(f"{out.name}.sig")
        for path in (out, signature):
            if path.exists():
                raise GatewayError(f"{path} is there already", hint="name another file: nothing is overwritten")
        _write(signature, base64.b64decode(signed["signature"]))
        _write(out, signed["text"].encode())
        click.echo(f"verify by: {VERIFY.format(out=out)}", err=True)
    if not signed["complete"]:
        click.echo("the study is not complete", err=True)
        ctx.exit(1)


def _write(path: Path, content: bytes) -> None:
    """Write a new file, durably."""
    try:
        with open(path, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error
