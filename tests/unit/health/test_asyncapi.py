"""The AsyncAPI document is what the schemas make it, and a foreign parser finds it right."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest

from gateway import __version__
from gateway.health import asyncapi
from gateway.model.payloads import NAMES, schema

SHIPPED = Path(asyncapi.__file__).with_name("asyncapi.json")
PARSER = Path(__file__).parents[2] / "asyncapi.cjs"


def test_the_shipped_document_is_made_from_the_schemas():
    assert json.loads(SHIPPED.read_text()) == json.loads(json.dumps(asyncapi.document(__version__)))


@pytest.mark.parametrize("name", [*NAMES, "common"])
def test_each_schema_is_one(name):
    jsonschema.Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("body",)])
def test_no_schema_leaves_room_for_what_it_does_not_name(name):
    assert schema(name)["additionalProperties"] is False


@pytest.mark.skipif(not (PARSER.parent / "node_modules/@asyncapi/parser").exists(), reason="needs `make peers`")
def test_the_parser_of_asyncapi_takes_the_document(tmp_path):
    def judged(path):
        return subprocess.run(["node", str(PARSER), str(path)], capture_output=True, text=True, timeout=60)

    good = judged(SHIPPED)
    assert good.returncode == 0, good.stdout + good.stderr
    broken = json.loads(SHIPPED.read_text())
    broken["operations"]["health"]["action"] = "shout"
    (tmp_path / "broken.json").write_text(json.dumps(broken))
    assert judged(tmp_path / "broken.json").returncode == 1
