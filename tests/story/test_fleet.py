"""Central IT sees the truth about every box, whatever the broker, the boxes or the disk do."""

from __future__ import annotations

import sqlite3
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.model.payloads import faults
from tests.broker import Broker
from tests.fleet import Fleet, Speaker, alarm, birth, health, reason, session, stamp
from tests.guard import least


@pytest.fixture
def make_fleet(tmp_path, broker):
    started = []

    def make(**more) -> Fleet:
        fleet = Fleet(tmp_path / f"fleet{len(started)}", broker, **more)
        started.append(fleet)
        return fleet.start()

    yield make
    for fleet in started:
        fleet.stop()


@pytest.fixture
def speaker(broker):
    speaker = Speaker(broker)
    yield speaker
    speaker.close()


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A broker and a monitor for all tests that stop neither."""
    folder = tmp_path_factory.mktemp("house")
    broker = Broker(folder / "broker").start()
    fleet, speaker = Fleet(folder / "fleet", broker).start(), Speaker(broker)
    yield fleet, speaker, broker
    speaker.close()
    fleet.stop()
    broker.stop()


def test_a_real_box_is_seen_from_its_birth_to_its_end(make_box, house, wait_until):
    fleet, _, broker = house
    invalid, refused = fleet.metric("invalid_messages_total"), fleet.metric("refused_names_total")
    box = make_box(more=broker.table() + '[[modality]]\nname = "ct1"\nae_title = "CT1"\n').start()
    assert wait_until(lambda: fleet.metric('box_status{tenant="default",gateway="gateway"}') is not None)
    row = fleet.row("gateway")
    assert "online" in row
    assert "slot" in row or "0." in row
    assert fleet.metric('box_invalid_messages{tenant="default",gateway="gateway"}') == 0
    assert fleet.metric("invalid_messages_total") == invalid
    assert fleet.metric("refused_names_total") == refused
    bound_s = 1 + 2  # will delay + 2 s

    def until_shown() -> float:
        box.kill()
        cut_at = time.monotonic()
        assert wait_until(lambda: "offline since" in fleet.row("gateway"))
        took_s = time.monotonic() - cut_at
        box.start()
        assert wait_until(lambda: "online" in fleet.row("gateway"))
        return took_s

    assert least(until_shown, bound_s) < bound_s


def test_after_a_restart_of_the_broker_every_box_is_shown_right(make_box, make_fleet, broker, speaker, wait_until):
    fleet = make_fleet()
    boxes = [make_box(more=f"{broker.table(name)}", name=name) for name in ("one", "two")]
    for box in boxes:
        box.config.write_text(box.config.read_text().replace("[gateway]", f'[gateway]\nid = "{box.folder.name}"'))
        box.start()
    speaker.say("gone", "session", session())
    assert wait_until(lambda: fleet.metric('boxes{presence="online",tenant="default"}') == 3)
    broker.kill()
    assert wait_until(lambda: fleet.metric('connected{tenant="default"}') == 0)
    assert "is not watched since" in fleet.page()
    boxes[1].kill()  # while nobody listens: no will is ever published
    broker.start()
    assert wait_until(lambda: fleet.metric('connected{tenant="default"}') == 1, 40)
    assert "is not watched since" not in fleet.page()
    speaker.say("two", "session", session("offline", "will"))
    assert wait_until(lambda: "offline" in fleet.row("two"))
    assert wait_until(lambda: "connected anew" not in fleet.row("one") and "online" in fleet.row("one"), 40)
    assert fleet.metric('boxes{presence="stale",tenant="default"}') == 0  # its silence was our deafness


def test_boxes_can_know_whether_they_are_watched(make_fleet, broker, wait_until):
    fleet = make_fleet(more='tenants = ["default", "north"]')
    for tenant in ("default", "north"):  # else it may be heard as it comes, and not as what the broker keeps
        assert wait_until(lambda tenant=tenant: f"'gw/v1/{tenant}/host/state'" in broker.log())
    heard, north = broker.record("gw/v1/default/host/state"), broker.record("gw/v1/north/host/state")
    for tenant in ("default", "north"):
        speaker = Speaker(broker, tenant)
        speaker.say("ct1", "session", session())
        speaker.close()
    assert wait_until(lambda: fleet.metric('boxes{presence="online",tenant="north"}') == 1)
    assert fleet.page("/?tenant=north").count('href="/box/') == 1
    assert wait_until(lambda: heard.last("host/state") and north.last("host/state"))
    assert heard.lines()[0]["retain"] == 1
    assert heard.last("host/state")["state"] == "online"
    fleet.kill()
    assert wait_until(lambda: heard.last("host/state")["state"] == "offline")
    assert heard.last("host/state")["reason"] == "will"
    assert wait_until(lambda: north.last("host/state")["reason"] == "will")  # one connection, and one will, for each
    fleet.start()
    assert wait_until(lambda: heard.last("host/state")["state"] == "online")
    fleet.stop()
    assert wait_until(lambda: heard.last("host/state")["reason"] == "shutdown")
    assert [fault for body in heard.of("host/state") for fault in faults("session", body)] == []


def test_a_box_that_falls_silent_is_stale_though_it_never_said_goodbye(house, wait_until):
    fleet, speaker, _ = house
    speaker.say("mute", "session", session())
    assert wait_until(lambda: fleet.metric('box_online{tenant="default",gateway="mute"}') == 1)
    speaker.say("mute", "health", {**health(interval_s=1), "ts": stamp(0)})  # its clock is of no account
    assert wait_until(lambda: fleet.metric('box_stale{tenant="default",gateway="mute"}') == 1)
    assert "stale silent since" in fleet.row("mute")
    speaker.say("mute", "health", health(interval_s=60))
    assert wait_until(lambda: fleet.metric('box_online{tenant="default",gateway="mute"}') == 1)


def test_what_lay_at_the_broker_is_as_old_as_the_broker_says(make_fleet, speaker, wait_until):
    speaker.say("fresh", "session", session())
    speaker.say("fresh", "health", health(), expiry_s=180)
    speaker.say("old", "session", session())
    speaker.say("old", "health", health(), expiry_s=80)  # as if it lay there for 100 s of its 180
    fleet = make_fleet(tables="[thresholds]\nstale_periods = 1.5")
    assert wait_until(lambda: fleet.metric('box_stale{tenant="default",gateway="old"}') == 1)
    assert fleet.metric('box_online{tenant="default",gateway="fresh"}') == 1


def test_what_a_box_says_can_harm_nobody(house, wait_until):
    fleet, speaker, _ = house
    before = {name: fleet.metric(name) for name in ("invalid_messages_total", "refused_names_total")}
    speaker.say("evil", "session", session())
    speaker.say("evil", "health", b'{"v": 1, "status": "<img src=x onerror=alert(1)>"}')
    speaker.say("evil", "birth", b"[" * 50_000)
    speaker.say("evil", "a/disk_filling", b"1" * 70_000)  # more than the broker may give us
    for name in ("UPPER", "with space", "x" * 64, "host", "<b>"):
        speaker.say(name, "session", session())
    assert wait_until(lambda: fleet.metric("refused_names_total") == before["refused_names_total"] + 5)
    assert fleet.metric("invalid_messages_total") == before["invalid_messages_total"] + 2
    assert fleet.metric('box_invalid_messages{tenant="default",gateway="evil"}') == 2
    assert fleet.metric("boxes_invalid") >= 1
    assert "is not understood" in fleet.row("evil")
    assert "<img" not in fleet.page() + fleet.page("/box/default/evil")
    assert "breaks its schema at" in fleet.page("/box/default/evil")
    assert len(list(text_string_to_metric_families(fleet.metrics()))) > 20
    speaker.say("evil", "health", health())
    assert wait_until(lambda: fleet.metric('box_invalid_messages{tenant="default",gateway="evil"}') == 1)


def test_central_it_takes_a_box_out_of_the_fleet(house, wait_until):
    fleet, speaker, _ = house
    speaker.say("old", "session", session())
    assert wait_until(lambda: fleet.row("old"))
    speaker.say("old", "session", None)
    assert wait_until(lambda: not fleet.row("old"))


def test_a_box_that_the_broker_forgot_is_not_forgotten(make_fleet, broker, speaker, wait_until):
    fleet = make_fleet()
    speaker.say("ct1", "session", session())
    speaker.say("ct1", "health", health("degraded", (reason(),), disk=83.0))
    speaker.say("ct1", "a/disk_filling", alarm())
    speaker.say("ct1", "session", session("offline", "shutdown"))
    assert wait_until(lambda: "offline" in fleet.row("ct1"))
    since = fleet.row("ct1")
    fleet.stop()
    broker.kill()
    broker.start()  # without persistence: nothing is retained any more
    fleet.start()
    assert "offline since" in fleet.row("ct1")
    assert "83 %" in fleet.row("ct1")
    assert "83 %" in since
    assert fleet.metric('alarms{code="disk_filling"}') == 1


def test_a_damaged_database_is_set_aside(make_fleet, speaker, wait_until):
    fleet = make_fleet()
    speaker.say("ct1", "session", session())
    speaker.say("ct1", "birth", birth("0.4.1"))
    speaker.say("ct1", "health", health())
    assert wait_until(lambda: "0.4.1" in fleet.row("ct1"))
    fleet.stop()
    database = fleet.folder / "fleet.db"
    content = bytearray(database.read_bytes())
    content[: 16 * 1024 : 3] = b"\0" * len(content[: 16 * 1024 : 3])
    database.write_bytes(content)
    fleet.start()
    assert wait_until(lambda: "0.4.1" in fleet.row("ct1"))
    assert fleet.metric("databases_set_aside_total") == 1
    assert len(list(fleet.folder.glob("fleet.db.damaged-*"))) == 1
    assert wait_until(lambda: rows(database) == [("ct1", "0.4.1")])


def rows(database) -> list[tuple]:
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as db:
        return db.execute("SELECT name, versions FROM box").fetchall()


def test_no_other_site_acknowledges(house, wait_until):
    fleet, speaker, _ = house

    def unseen() -> bool:
        return 'id="disk_filling-default-ct1"' in fleet.page("/alarms?seen=no")

    body = alarm()
    speaker.say("ct1", "session", session())
    speaker.say("ct1", "a/disk_filling", body)
    assert wait_until(unseen)
    form = {"tenant": "default", "box": "ct1", "code": "disk_filling", "since": body["since"], "back": "//evil.example"}
    assert fleet.get("/acknowledge", form=form).status == 403  # nobody is signed in
    signed_in = fleet.get("/sign-in", form={"name": "Ada"})
    assert signed_in.status == 303
    cookie = signed_in.headers["Set-Cookie"].partition(";")[0]
    assert "HttpOnly; SameSite=Strict" in signed_in.headers["Set-Cookie"]
    assert fleet.get("/acknowledge", {"Cookie": cookie}, form).status == 403  # no token of the form
    page = fleet.get("/alarms", {"Cookie": cookie}).read().decode()
    form["form_token"] = page.split('name="form_token" value="')[1].split('"')[0]
    evil = ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Host": "evil.example"})
    for headers in evil:
        assert fleet.get("/acknowledge", {"Cookie": cookie, **headers}, form).status in (403, 421)
    assert fleet.get("/acknowledge", {"Cookie": cookie, "X-Forwarded-For": "192.0.2.1"}, form).status == 403
    assert fleet.get("/sign-in", {"Host": "rebound.example"}).status == 421
    assert unseen()
    done = fleet.get("/acknowledge", {"Cookie": cookie}, form)
    assert (done.status, done.headers["Location"]) == (303, "/alarms")
    assert not unseen()
    assert "by Ada" in fleet.page("/alarms")
    speaker.say("ct1", "a/disk_filling", alarm(since=stamp(time.time())))  # it came back: another occurrence
    assert wait_until(unseen)
    assert fleet.get("/acknowledge", {"Cookie": cookie}, form).status == 409


def test_with_an_operator_token_nobody_signs_in_without_it(make_fleet, tmp_path):
    (tmp_path / "token").write_text("correct-horse-battery\n")
    fleet = make_fleet(page=f'operator_token_file = "{tmp_path}/token"', secure=True)
    assert fleet.get("/sign-in", form={"name": "Ada"}).status == 403
    for _ in range(9):
        assert fleet.get("/sign-in", form={"name": "Ada", "token": "wrong"}).status == 403
    refused = fleet.get("/sign-in", form={"name": "Ada", "token": "correct-horse-battery"})
    assert refused.status == 403  # not even who knows it, for a minute
    assert "wait a minute" in refused.read().decode()
    fleet.stop()
    fleet.start()
    signed_in = fleet.get("/sign-in", form={"name": "Ada", "token": "correct-horse-battery"})
    assert signed_in.status == 303
    assert signed_in.headers["Set-Cookie"].endswith("; Secure")


def test_the_page_asks_nobody_else_for_anything(house):
    fleet, _, _ = house
    with fleet.get("/") as answer:
        text, policy = answer.read().decode(), answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for path in ("/static/fleet.css", "/static/fleet.js", "/static/icon.svg"):
        text += fleet.page(path).replace("http://www.w3.org/2000/svg", "")
    assert "://" not in text
    for path in ("/static/../site.py", "/box/default/nobody", "/nothing"):
        assert fleet.get(path).status == 404
    assert fleet.get("/", form={"x": "y"}).status == 405


def test_a_broken_configuration_is_told_as_a_whole(tmp_path, broker):
    fleet = Fleet(tmp_path / "fleet", broker, more='tenants = ["a/#"]\nmax_boxes = 0')
    with pytest.raises(AssertionError) as refused:
        fleet.start()
    for said in ("line 1", "line 2", "neither + nor #", "greater than or equal to 1"):
        assert said in str(refused.value)
    assert fleet.process.wait(10) == 78
