"""`[mqtt]`: never bare over a network, no secrets in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.load import parse
from gateway.model.errors import ConfigError


def settings(text: str):
    return parse(text, Path("/nowhere/gateway.toml")).settings.mqtt


def test_without_the_table_nobody_is_told():
    assert settings("") is None


def test_a_broker_over_tls():
    mqtt = settings('[mqtt]\nhost = "mqtt.example.org"\ntls = {}\n')
    assert (mqtt.port, mqtt.tenant, mqtt.interval_s, mqtt.keyring_file) == (8883, "default", 60.0, None)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1"])
def test_a_broker_on_this_machine_needs_no_tls(host):
    assert settings(f'[mqtt]\nhost = "{host}"\n').tls is None


@pytest.mark.parametrize(
    "table",
    [
        'host = "mqtt.example.org"',
        'host = "127.0.0.1.example.org"',
        'host = ""',
        'host = "localhost"\nuser = "x"',
        'host = "localhost"\ntenant = "a/b"',
        'host = "localhost"\ntenant = "+"',
        'host = "localhost"\ndiagnostics_url = "http://example.org/"',
        'host = "localhost"\npassword = "x"',
    ],
)
def test_what_would_not_be_safe_is_refused(table):
    with pytest.raises(ConfigError):
        settings(f"[mqtt]\n{table}\n")


@pytest.mark.parametrize("name", ["gw/1", "+", "#", "Gw", "", "a" * 64])
def test_a_box_cannot_be_called_like_a_wildcard(name):
    with pytest.raises(ConfigError):
        settings(f'[gateway]\nid = "{name}"\n')
