"""The keyed hash gives the same on every day and box, is told to nobody, and its key must be one."""

from __future__ import annotations

import hashlib
import hmac
import pickle

import pytest
from pydicom.uid import UID

from gateway.model.errors import ConfigError
from gateway.prepare.pseudonym import MAX_OFFSET_DAYS, Pseudonyms

KEY = bytes(range(100, 140))


def key_file(tmp_path, content=KEY, mode=0o600):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_uid_is_a_uuid_of_hmac_sha256():
    """Computed here by other means than the code's: RFC 2104, PS3.5 B.2, RFC 9562 5.8."""
    old = "1.2.840.113619.2.5"
    message = b"uid" + len(old).to_bytes(8, "big") + old.encode()
    raw = bytearray(hmac.new(KEY, message, hashlib.sha256).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    new = Pseudonyms(KEY).uid(old)
    assert new == f"2.25.{int.from_bytes(raw, 'big')}"
    assert UID(new).is_valid
    assert Pseudonyms(KEY).uid(old + "\0") == new


def test_values_stay_for_good():
    """Written down when this was built: a change would part new images from those that were sent before."""
    made = Pseudonyms(KEY)
    assert made.uid("1.2.3") == "2.25.272274640812980206418639574918021556524"
    assert made.patient("MRN-7741", "North Clinic") == "K6DRLTMKLMMUN3FP"
    assert made.days_back("MRN-7741", "North Clinic") == 1257


def test_two_values_are_not_one_long_value():
    made = Pseudonyms(KEY)
    assert made.patient("AB", "C") != made.patient("A", "BC") != made.patient("ABC", "")


def test_offsets_use_the_whole_range():
    days = [Pseudonyms(KEY).days_back(str(number), "") for number in range(3000)]
    assert min(days) >= 1 and max(days) <= MAX_OFFSET_DAYS
    assert len(set(days)) > 1500
    assert sum(days) / len(days) == pytest.approx(MAX_OFFSET_DAYS / 2, rel=0.05)


def test_the_key_is_read_once_and_shown_to_nobody(tmp_path):
    path = key_file(tmp_path)
    made = Pseudonyms.from_file(path)
    path.unlink()
    assert made.uid("1.2.3") == Pseudonyms(KEY).uid("1.2.3")
    assert KEY.decode("latin-1") not in repr(made) + str(made)
    assert not hasattr(made, "__dict__")


def test_it_can_be_handed_to_a_worker():
    assert pickle.loads(pickle.dumps(Pseudonyms(KEY))).uid("1.2.3") == Pseudonyms(KEY).uid("1.2.3")


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (KEY, 0o644, "chmod 600"),
        (KEY, 0o620, "chmod 600"),
        (KEY[:31], 0o600, "holds 31 bytes, 32 are needed: openssl rand -out"),
        (b"", 0o600, "holds 0 bytes"),
        (bytes(64), 0o600, "is not random: openssl rand"),
        (KEY * 200, 0o600, "longer than 4096"),
    ],
)
def test_a_key_that_cannot_be_used_is_told_with_its_fix(tmp_path, content, mode, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Pseudonyms.from_file(key_file(tmp_path, content, mode))


def test_a_key_that_systemd_hands_over_may_be_read_by_its_group(tmp_path):
    assert Pseudonyms.from_file(key_file(tmp_path, mode=0o440)).uid("1.2.3")


def test_a_missing_key_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        Pseudonyms.from_file(tmp_path / "none")
