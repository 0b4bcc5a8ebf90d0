"""fleet.toml: all problems at once, each with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.fleet.settings import load
from gateway.model.errors import ConfigError

README = Path(__file__).parents[3] / "gateway/fleet/README.md"


def refused(tmp_path, text: str) -> str:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(path)
    assert error.value.exit_code == 78
    assert "README" in error.value.hint
    return str(error.value)


def test_a_broker_on_this_machine_is_all_that_is_needed(tmp_path):
    path = tmp_path / "fleet.toml"
    path.write_text('[broker]\nhost = "localhost"\n[store]\npath = "x.db"\n')
    settings = load(path)
    assert settings.tenants == ["default"]
    assert settings.store.path == tmp_path / "x.db"
    assert settings.page.address == "127.0.0.1"


def test_all_problems_are_told_with_their_lines(tmp_path):
    said = refused(
        tmp_path,
        'tenants = ["a/+", "b", "b"]\nmaxboxes = 5\n[broker]\nhost = "mqtt.example.org"\nport = 0\n'
        '[page]\noperator_token_file = "none"\n[thresholds]\nstale_periods = 1\n'
        '[[wave]]\nname = "x"\nversion = "1"\nboxes = ["ct[1]"]\n[[wave]]\nname = "x"\nversion = "2"\nboxes = []\n',
    )
    for words in (
        "line 1: tenants[0]: is a name, not a topic",
        "tenant 'b' is there twice",
        "line 2: maxboxes: unknown key; did you mean 'max_boxes'?",
        "line 5: broker.port",
        "line 7: page.operator_token_file: there is no file",
        "line 9: thresholds.stale_periods",
        "line 13: wave[0].boxes[0]",
        "line 15: wave[1].name: wave name 'x' is used twice",
        "line 17: wave[1].boxes",
    ):
        assert words in said, said


def test_a_bare_line_goes_to_this_machine_only(tmp_path):
    assert "without tls" in refused(tmp_path, '[broker]\nhost = "192.0.2.1"\n')


def test_a_short_token_is_none(tmp_path):
    (tmp_path / "token").write_text("short\n")
    assert "less than 16" in refused(tmp_path, '[broker]\nhost = "localhost"\n[page]\noperator_token_file = "token"\n')


def test_a_token_does_not_pass_a_bare_line(tmp_path):
    (tmp_path / "token").write_text("x" * 20)
    said = refused(
        tmp_path, '[broker]\nhost = "localhost"\n[page]\naddress = "0.0.0.0"\noperator_token_file = "token"\n'
    )
    assert "needs tls" in said


def test_the_example_in_the_readme_is_one(tmp_path):
    text = README.read_text().split("```toml\n")[1].split("```")[0]
    for name in ("ca.pem", "monitor.pem", "monitor.key", "operator.token"):
        (tmp_path / name).write_text("x" * 20)
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    assert load(path).wave
