"""The addresses of a box: said in plain TOML, checked, and handed to systemd-networkd."""

from __future__ import annotations

from configparser import ConfigParser

import pytest
from click.testing import CliRunner

from gateway.cli import cli, configure_cmd
from gateway.model.errors import ConfigError
from gateway.onsite.network import load_network, put_in_force

GOOD = """[[interface]]
name = "eth0"
address = "192.0.2.5/24"
[[interface]]
name = "eth1"
address = "198.51.100.5/24"
gateway = "198.51.100.1"
dns = ["198.51.100.53"]
ntp = ["time.example.org"]
"""


@pytest.fixture
def network(tmp_path):
    def write(text):
        (tmp_path / "network.toml").write_text(text)
        return load_network(tmp_path / "network.toml")

    return write


def test_each_port_becomes_a_file_of_networkd_and_a_port_that_is_gone_loses_its_own(network, tmp_path):
    folder = tmp_path / "network"
    folder.mkdir()
    (folder / "80-wired.network").write_text("of the image")
    assert put_in_force(network(GOOD), folder)
    assert not put_in_force(network(GOOD), folder)
    found = ConfigParser(interpolation=None)
    found.read(folder / "10-dicom-gateway-eth1.network")
    assert found["Match"]["Name"] == "eth1"
    assert (found["Network"]["Address"], found["Network"]["Gateway"]) == ("198.51.100.5/24", "198.51.100.1")
    assert "Gateway" not in (folder / "10-dicom-gateway-eth0.network").read_text()
    assert put_in_force(network('[[interface]]\nname = "eth1"\n'), folder)
    assert "DHCP=ipv4" in (folder / "10-dicom-gateway-eth1.network").read_text()
    assert sorted(path.name for path in folder.iterdir()) == ["10-dicom-gateway-eth1.network", "80-wired.network"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD.replace("192.0.2.5/24", "192.0.2.5"), "how large the network is"),
        (GOOD.replace("192.0.2.5/24", "192.0.2.555/24"), "line 3"),
        (GOOD.replace('198.51.100.1"', '203.0.113.1"'), "is not in the network"),
        (GOOD.replace("eth1", "eth0"), "there twice"),
        (GOOD.replace('address = "192.0.2.5/24"', 'address = "192.0.2.5/24"\ngateway = "192.0.2.1"'), "one way out"),
        (GOOD.replace('"eth0"', '"eth0]\\n[x"'), "name"),
        (GOOD.replace("time.example.org", "a\\nGateway=1"), "ntp"),
        (GOOD + "colour = 1\n", "unknown key"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(network, text, words):
    with pytest.raises(ConfigError, match=words):
        network(text)


def test_the_laptop_writes_it_and_the_box_puts_it_in_force(tmp_path, monkeypatch):
    home, state, stick = tmp_path / "home", tmp_path / "state", tmp_path / "CONFIG"
    home.mkdir()
    state.mkdir()
    monkeypatch.setattr(configure_cmd, "NETWORKS", state)
    monkeypatch.setattr(configure_cmd, "NETWORKD", tmp_path / "none")
    words = ["--id", "b", "--archive", "", "--address", "eth0=192.0.2.5/24", "--address", "eth1=198.51.100.5/24"]
    made = CliRunner().invoke(cli, ["provision", str(stick), *words, "--router", "198.51.100.1"])
    assert made.exit_code == 0, made.output
    brought = CliRunner().invoke(cli, ["--config", str(home / "gateway.toml"), "configure", str(stick)])
    assert brought.exit_code == 0, brought.output
    assert "Gateway=198.51.100.1" in (state / "10-dicom-gateway-eth1.network").read_text()
    (stick / "network.toml").write_text("[[interface]]\nname = 'eth0'\naddress = '10.0.0.1'\n")
    refused = CliRunner().invoke(cli, ["--config", str(home / "gateway.toml"), "configure", str(stick)])
    assert refused.exit_code == 78
    assert "network.toml" in (stick / "result.txt").read_text()
    assert "192.0.2.5/24" in (state / "10-dicom-gateway-eth0.network").read_text()
