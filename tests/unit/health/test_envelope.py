"""Every way in which a command can be wrong, and the one in which it is right."""

from __future__ import annotations

import base64
import json
import time

import pytest

from gateway.health.envelope import MAX_BYTES, NEEDS, Command, Me, Rejection, command
from gateway.identity.keyring import load_keyring
from gateway.model.errors import IdentityError
from gateway.model.payloads import verbs
from tests.operator import Operator

ME = Me("default", "gateway")
ADMIN, VIEWER, STRANGER = Operator("ops-1", "admin"), Operator("eyes", "viewer"), Operator("ops-1", "admin")


@pytest.fixture
def keyring(tmp_path):
    path = tmp_path / "keyring.toml"
    path.write_text(ADMIN.entry() + VIEWER.entry() + Operator("gone").entry(revoked=True))
    path.chmod(0o644)
    return load_keyring(path)


def topic_of(body) -> str:
    return f"gw/v1/default/gateway/cmd/{body['type']}/{body['id']}"


def judge(keyring, body, by=ADMIN, *, topic=None, payload=None, retained=False, now=None):
    payload = by.seal(body) if payload is None else payload
    return command(topic or topic_of(body), payload, retained, keyring, ME, time.time() if now is None else now)


def test_a_command_that_is_right_in_everything_is_one(keyring):
    body = ADMIN.body("queue.retry", {"destination": "pacs"})
    found = judge(keyring, body)
    assert isinstance(found, Command)
    assert (found.verb, found.id, found.args, found.kid) == (
        "queue.retry",
        body["id"],
        {"destination": "pacs"},
        "ops-1",
    )


def test_the_closed_list_is_that_of_the_schema():
    assert list(NEEDS) == verbs()


def wrong_ways():
    good = ADMIN.body("reboot")
    sealed = json.loads(ADMIN.seal(good))
    flipped = bytearray(base64.b64decode(sealed["body"]))
    flipped[5] ^= 1
    deep = b'{"body":' + b"[" * 30000 + b"]" * 30000 + b"}"
    twice = ADMIN.seal(json.dumps(good).encode()[:-1] + b', "target": "gateway"}')
    now = int(time.time())
    return {
        "retained": ("retained", good, {"retained": True}),
        "oversized": ("oversized", good, {"payload": b" " * (MAX_BYTES + 1)}),
        "not JSON": ("malformed", good, {"payload": b"\xff\x00rm -rf /"}),
        "nested deeply": ("malformed", good, {"payload": deep}),
        "empty": ("malformed", good, {"payload": b""}),
        "a list": ("malformed", good, {"payload": b"[]"}),
        "a further name": ("malformed", good, {"payload": json.dumps({**sealed, "x": 1}).encode()}),
        "no number": ("malformed", good, {"payload": json.dumps(sealed).encode()[:-1] + b', "y": NaN}'}),
        "a key that nobody knows": ("unknown_key", good, {"payload": json.dumps({**sealed, "kid": "who"}).encode()}),
        "a key that was revoked": ("unknown_key", good, {"payload": json.dumps({**sealed, "kid": "gone"}).encode()}),
        "forged": ("bad_signature", good, {"by": STRANGER}),
        "signed by another key": ("bad_signature", good, {"payload": json.dumps({**sealed, "kid": "eyes"}).encode()}),
        "changed on the way": (
            "bad_signature",
            good,
            {"payload": json.dumps({**sealed, "body": base64.b64encode(flipped).decode()}).encode()},
        ),
        "signed nonsense": ("malformed", good, {"payload": ADMIN.seal(b"\xffnonsense")}),
        "a name twice in what is signed": ("malformed", good, {"payload": twice}),
        "for another box": ("misaddressed", ADMIN.body("reboot", target="other"), {}),
        "for another tenant": ("misaddressed", ADMIN.body("reboot", tenant="other"), {}),
        "for all boxes": ("malformed", ADMIN.body("reboot", target="+"), {}),
        "for everything": ("malformed", ADMIN.body("reboot", target="#"), {}),
        "on another box's topic": ("misaddressed", good, {"topic": topic_of(good).replace("gateway", "other")}),
        "on another verb's topic": ("misaddressed", good, {"topic": topic_of(good).replace("reboot", "rebirth")}),
        "on a wildcard topic": ("misaddressed", good, {"topic": "gw/v1/default/gateway/cmd/+/#"}),
        "a shell": ("malformed", ADMIN.body("shell", {"run": "id"}), {}),
        "a purge": ("malformed", ADMIN.body("queue.purge"), {}),
        "further arguments": ("malformed", ADMIN.body("reboot", {"then": "x"}), {}),
        "a destination that is a path": ("malformed", ADMIN.body("queue.retry", {"destination": "../x"}), {}),
        "without a destination": ("malformed", ADMIN.body("queue.pause", {"for_s": 5}), {}),
        "a viewer": ("wrong_role", VIEWER.body("reboot"), {"by": VIEWER}),
        "expired": ("expired", ADMIN.body("reboot", iat=now - 700, exp=now - 100), {}),
        "from the future": ("not_yet_valid", ADMIN.body("reboot", iat=now + 100, exp=now + 200), {}),
        "valid for too long": ("lives_too_long", ADMIN.body("reboot", iat=now, exp=now + 901), {}),
        "ends before it begins": ("lives_too_long", ADMIN.body("reboot", iat=now + 10, exp=now + 5), {}),
        "a box that woke up in 1970": ("not_yet_valid", good, {"now": 100.0}),
    }


@pytest.mark.parametrize("way", wrong_ways())
def test_a_command_that_is_wrong_in_one_thing_is_none(keyring, way):
    code, body, how = wrong_ways()[way]
    found = judge(keyring, body, **how)
    assert isinstance(found, Rejection)
    assert found.code == code
    if code in ("bad_signature", "unknown_key", "malformed", "retained", "oversized", "misaddressed"):
        assert found.id == found.kid == "", "an answer to a stranger goes nowhere"


@pytest.mark.parametrize("verb", NEEDS)
def test_each_verb_asks_for_its_role(keyring, verb, tmp_path):
    args = {
        "queue.pause": {"destination": "pacs", "for_s": 1},
        "queue.resume": {"destination": "pacs"},
        "destination.test": {"destination": "pacs"},
        "log.level": {"level": "debug", "for_s": 1},
        "config.apply": {"config": "x", "sha256": "0" * 64},
        "update.install": {"version": "1.2.3"},
    }.get(verb, {})
    for role in ("viewer", "operator", "admin"):
        who = Operator("who", role)
        path = tmp_path / "k.toml"
        path.write_text(who.entry())
        path.chmod(0o600)
        found = judge(load_keyring(path), who.body(verb, args), who)
        enough = ["viewer", "operator", "admin"].index(role) >= ["viewer", "operator", "admin"].index(NEEDS[verb])
        assert isinstance(found, Command) is enough, (role, found)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        '[[key]]\nkid = "a"\nrole = "root"\npublic_key = "x"\n',
        '[[key]]\nkid = "a"\nrole = "admin"\npublic_key = "AAAA"\n',
        '[[key]]\nkid = "A/#"\nrole = "admin"\npublic_key = "x"\n',
        ADMIN.entry() * 2,
        "#" * 70000,
    ],
)
def test_a_keyring_that_is_wrong_is_not_used(tmp_path, text):
    path = tmp_path / "keyring.toml"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(IdentityError):
        load_keyring(path)


def test_a_keyring_that_others_may_write_is_not_used(tmp_path):
    path = tmp_path / "keyring.toml"
    path.write_text(ADMIN.entry())
    path.chmod(0o666)
    with pytest.raises(IdentityError, match="written by others"):
        load_keyring(path)


@pytest.mark.parametrize("name", ["kid", "body"])
def test_what_is_nested_as_deeply_as_can_just_be_read_is_malformed(keyring, name):
    for depth in range(800, 1000):
        payload = b'{"%s":' % name.encode() + b"[" * depth + b"]" * depth + b"}"
        found = judge(keyring, ADMIN.body("reboot"), payload=payload)
        assert (type(found), found.code) == (Rejection, "malformed")
