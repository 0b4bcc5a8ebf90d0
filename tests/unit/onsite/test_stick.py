"""A stick is found, mounted for as long as it is looked at, and given back whatever happens."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner

from gateway.cli import cli, configure_cmd
from gateway.model.errors import GatewayError
from gateway.onsite.stick import BOOT, STICK, mounted

GOOD = '[gateway]\nid = "box"\nae_title = "{title}"\n[[listener]]\nport = 104\n'
MOUNT = """#!/bin/sh
echo mount "$@" >>{log}
for word; do last=$word; done
case "$*" in *broken*) echo "wrong fs type" >&2; exit 32 ;; esac
cp -r {media}/. "$last"
"""
UMOUNT = """#!/bin/sh
echo umount "$@" >>{log}
for word; do last=$word; done
cp -r "$last"/. {media}
rm -rf "$last"/*
"""


@pytest.fixture
def media(tmp_path, monkeypatch):
    """A stick's content; `mount` copies it in, `umount` back."""
    folder, tools = tmp_path / "media", tmp_path / "bin"
    folder.mkdir()
    tools.mkdir()
    for name, text in (("mount", MOUNT), ("umount", UMOUNT)):
        (tools / name).write_text(text.format(log=tmp_path / "log", media=folder))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_it_is_mounted_without_programs_and_devices_and_given_back_after_an_error(media, tmp_path):
    with pytest.raises(ZeroDivisionError), mounted(tmp_path / "dev", tmp_path / "at"):
        raise ZeroDivisionError
    first, second = (tmp_path / "log").read_text().splitlines()
    assert {"noexec", "nosuid", "nodev", "sync"} <= set(first.split(" -o ")[1].split()[0].split(","))
    assert second == f"umount -- {tmp_path}/at"


def test_a_stick_that_cannot_be_mounted_is_told(media, tmp_path):
    with (
        pytest.raises(GatewayError, match=r"broken cannot be used: wrong fs type"),
        mounted(tmp_path / "broken", tmp_path / "at"),
    ):
        pass


@pytest.mark.parametrize("inner", ["", "CONFIG", "config"])
def test_without_a_folder_the_stick_is_looked_at_first_then_the_boot_partition(media, tmp_path, monkeypatch, inner):
    home, stick, boot = tmp_path / "home", tmp_path / "stick", tmp_path / "boot"
    for path in (home, boot, media / inner):
        path.mkdir(exist_ok=True)
    monkeypatch.setattr(configure_cmd, "DEVICES", ((STICK, stick), (BOOT, boot)))
    monkeypatch.setattr(configure_cmd, "MOUNTS", tmp_path / "mounts")
    words = ["--config", str(home / "gateway.toml"), "configure"]
    (media / inner / "gateway.toml").write_text(GOOD.format(title="ONE"))
    assert "TAKEN" in CliRunner().invoke(cli, words).output
    assert "TAKEN" in (media / inner / "result.txt").read_text()
    assert str(boot) in (tmp_path / "log").read_text()
    assert list((tmp_path / "mounts/boot").iterdir()) == []
    stick.mkdir()
    (media / inner / "gateway.toml").write_text(GOOD.format(title="TWO"))
    assert "TAKEN" in CliRunner().invoke(cli, words).output
    assert 'ae_title = "TWO"' in (home / "gateway.toml").read_text()
    (media / inner / "gateway.toml").write_text(GOOD.format(title="ONE"))
    stick.rmdir()
    assert "nothing new" in CliRunner().invoke(cli, words).output  # the boot partition's was taken before
    assert 'ae_title = "TWO"' in (home / "gateway.toml").read_text()
