"""With a recipe nothing but what it makes goes; without one nothing but the instance, or its proven rendition."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest

from gateway.model.errors import PrepareError, PrepareLater
from gateway.model.instance import Door, Header, Origin, Priority, SOPInstance
from gateway.model.lifecycle import Custody
from gateway.model.transfer_syntax import EXPLICIT_LE, IMPLICIT_LE, JPEG_LS_LOSSLESS
from gateway.model.verdict import Blame, Outcome, Verdict
from gateway.prepare.recipe import Rendition
from gateway.send.carry import Carrier
from gateway.send.shaping import Shaper
from gateway.spool.capacity import Room
from gateway.spool.rows import Claim, Held

CT = "1.2.840.10008.5.1.4.1.1.2"
ORIGINAL, CHANGED, CODED = b"the original", b"the changed form", b"coded"


class Spool:
    """Holds one instance."""

    def __init__(self) -> None:
        self.store = SimpleNamespace(derived_body=lambda path, sha256: iter([path.read_bytes()]))
        self.capacity = lambda: SimpleNamespace(room=Room.OPEN)

    def body(self, held):
        return iter([ORIGINAL])


class Kitchen:
    """Makes what it is told to, and remembers from what."""

    def __init__(self, folder) -> None:
        self.folder, self.error, self.refuses_to_code, self.made_from = folder, None, False, []

    def _made(self, syntax, content, *uids):
        path = self.folder / f"{len(list(self.folder.iterdir()))}.made"
        path.write_bytes(content)
        return Rendition(path, syntax, hashlib.sha256(content).hexdigest(), len(content), *uids)

    def apply(self, held, recipe, beat):
        if self.error:
            raise self.error
        return self._made(held.instance.transfer_syntax_uid, CHANGED, "9.1", "9.2")

    def render_in(self, held, target, beat, made=None):
        self.made_from.append(made)
        if self.refuses_to_code:
            raise PrepareError("not coded")
        uids = (made.sop_instance_uid, made.study_instance_uid) if made else ("1.1", "1.2")
        return self._made(target, CODED, *uids)

    @staticmethod
    def clear(path):
        path.unlink(missing_ok=True)

    def render(self, held, accepted, beat, *, allow_decompress, made):
        return self.render_in(held, next(iter(accepted)), beat, made) if accepted else None


class Archive:
    """A courier that takes some Transfer Syntaxes."""

    def __init__(self, *syntaxes) -> None:
        self.syntaxes, self.got, self.verdict = frozenset(syntaxes), [], Verdict.accepted()

    def prepare(self, offers):
        pass

    def accepts(self, sop_class_uid):
        return self.syntaxes

    def deliver(self, consignment):
        if consignment.transfer_syntax_uid not in self.syntaxes:
            return Verdict.refused(text="not this syntax", syntax_refused=True)
        uids = (consignment.sop_instance_uid, consignment.study_instance_uid)
        self.got.append((consignment.transfer_syntax_uid, b"".join(consignment.body()), *uids))
        return self.verdict


@pytest.fixture
def kitchen(tmp_path):
    made = Kitchen(tmp_path)
    yield made
    assert list(tmp_path.iterdir()) == [], "what was made is gone when it was carried"


def carry(kitchen, archive, *recipe, compression="off"):
    shaper = Shaper(compression, {})
    shaper.learn(CT, archive.syntaxes)
    header = Header(study_instance_uid="1.2")
    instance = SOPInstance("a", CT, "1.1", EXPLICIT_LE, "", len(ORIGINAL), header, Origin(Door.DIMSE), 0.0)
    claim = Claim(Held(1, "", Custody.IN_CUSTODY, False, instance), "pacs", Priority.NORMAL, 0, recipe)
    return Carrier("pacs", Spool(), kitchen, shaper).carry(archive, claim, [], lambda: None)


def test_without_a_recipe_the_original_goes(kitchen):
    archive = Archive(EXPLICIT_LE)
    assert carry(kitchen, archive).outcome is Outcome.ACCEPTED
    assert archive.got == [(EXPLICIT_LE, ORIGINAL, "1.1", "1.2")]


def test_with_a_recipe_its_result_goes_under_the_uids_that_it_has_now(kitchen):
    archive = Archive(EXPLICIT_LE)
    assert carry(kitchen, archive, "m").outcome is Outcome.ACCEPTED
    assert archive.got == [(EXPLICIT_LE, CHANGED, "9.1", "9.2")]


@pytest.mark.parametrize("recipe", [(), ("m",)])
def test_what_is_coded_is_what_is_to_go(kitchen, recipe):
    archive = Archive(EXPLICIT_LE, JPEG_LS_LOSSLESS)
    carry(kitchen, archive, *recipe, compression="jpeg-ls")
    assert archive.got == [(JPEG_LS_LOSSLESS, CODED, *(("9.1", "9.2") if recipe else ("1.1", "1.2")))]
    assert [made is not None for made in kitchen.made_from] == [bool(recipe)]


@pytest.mark.parametrize(("recipe", "expected"), [((), ORIGINAL), (("m",), CHANGED)])
def test_what_cannot_be_coded_goes_in_its_own_syntax_but_never_unchanged(kitchen, recipe, expected):
    kitchen.refuses_to_code = True
    archive = Archive(EXPLICIT_LE, JPEG_LS_LOSSLESS)
    carry(kitchen, archive, *recipe, compression="jpeg-ls")
    assert [content for _, content, *_ in archive.got] == [expected]


def test_a_peer_that_takes_another_syntax_gets_the_changed_form_in_it(kitchen):
    archive = Archive(IMPLICIT_LE)
    assert carry(kitchen, archive, "m").outcome is Outcome.ACCEPTED
    assert archive.got == [(IMPLICIT_LE, CODED, "9.1", "9.2")]
    assert kitchen.made_from[0].sop_instance_uid == "9.1"


def test_a_recipe_that_cannot_be_applied_is_refused_and_nothing_goes(kitchen):
    kitchen.error = PrepareError("a value of PatientID is too long")
    archive = Archive(EXPLICIT_LE)
    verdict = carry(kitchen, archive, "m", "n")
    assert (verdict.outcome, verdict.blame, archive.got) == (Outcome.REFUSED, Blame.INSTANCE, [])
    assert verdict.text == "not sent, m and n cannot be applied: a value of PatientID is too long"


def test_one_that_may_be_applied_later_waits_alone(kitchen):
    kitchen.error = PrepareLater("the worker did not finish")
    archive = Archive(EXPLICIT_LE)
    verdict = carry(kitchen, archive, "m")
    assert (verdict.outcome, verdict.blame, archive.got) == (Outcome.DEFERRED, Blame.GATEWAY, [])


def test_a_peer_that_fails_gets_nothing_else_instead(kitchen):
    archive = Archive(EXPLICIT_LE)
    archive.verdict = Verdict.refused(0xA900, "no")
    assert carry(kitchen, archive, "m").outcome is Outcome.REFUSED
    assert [content for _, content, *_ in archive.got] == [CHANGED]
