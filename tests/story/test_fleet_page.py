"""Central IT sees every box on one page: in light and dark, wide and narrow, with mouse and keyboard."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.broker import Broker
from tests.browser import ENTER, TAB, Browser
from tests.conftest import until
from tests.fleet import Fleet, Speaker, alarm, birth, destination, health, modality, reason, session

pytestmark = pytest.mark.skipif(
    shutil.which("chromedriver") is None, reason="needs Debian's chromium and chromium-driver: `make peers`"
)
WAVES = """
[[wave]]
name = "pilot"
version = "0.5.0"
boxes = ["north-*"]
settle_s = 0
[[wave]]
name = "all"
version = "0.5.0"
boxes = ["*"]
settle_s = 0
"""


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A broker, a monitor, and eight boxes of all kinds."""
    folder = tmp_path_factory.mktemp("fleet")
    broker = Broker(folder / "broker").start()
    fleet = Fleet(folder / "fleet", broker, tables=WAVES).start()
    speaker = Speaker(broker)
    well = {"north-ct1": "0.5.0", "north-ct2": "0.5.0", "south-mr1": "0.4.1", "south-xa1": "0.4.1"}
    for name, version in well.items():
        speaker.say(name, "session", session())
        speaker.say(name, "birth", birth(version))
        speaker.say(name, "health", health())
    speaker.say("south-mr1", "mod/mr1/health", modality(250))
    speaker.say("south-mr1", "dst/pacs/health", destination())
    speaker.say("north-ct3", "session", session())
    speaker.say("north-ct3", "birth", birth("0.5.0", "B"))
    ill = (reason("backlog_very_old", "pacs", "critical", 9000), reason("destination_ill", "pacs"), reason())
    speaker.say("north-ct3", "health", health("critical", ill, oldest_s=93_000, objects=5210, disk=91.5, days=12.0))
    speaker.say("north-ct3", "mod/ct1/health", modality(93_500, silent=True))
    speaker.say("north-ct3", "dst/pacs/health", destination("open", 5210, 93_000))
    speaker.say("north-ct3", "a/backlog_very_old", alarm("backlog_very_old", "critical", "pacs"))
    speaker.say("north-ct3", "a/disk_filling", alarm())
    for version, slot in (("0.4.1", "A"), ("0.5.0", "B"), ("0.4.1", "A")):
        speaker.say("north-ct4", "birth", birth(version, slot))
    speaker.say("east-us1", "session", session("offline", "will"))
    speaker.say("east-us1", "birth", birth("0.3.9"))
    speaker.say("east-us2", "session", session())
    speaker.say("east-us2", "health", health("degraded", (reason("clock_off", "clock"),), offset_ms=-4200.0))
    speaker.say("east-us2", "birth", b'{"gateway_version": "<script>document.title=1</script>"}')
    assert until(lambda: fleet.metric("boxes_invalid") == 1), "what was said last is heard"
    yield fleet
    speaker.close()
    fleet.stop()
    broker.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def picture(browser: Browser, name: str) -> None:
    """For people to look at: in the folder that SCREENSHOTS names."""
    if folder := os.environ.get("SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"{name}.png")


def names(browser: Browser) -> list[str]:
    return browser.run("return [...document.querySelectorAll('.boxes tbody th a')].map(e => e.innerText)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_every_page_fits_and_can_be_read(house, browser, width, scheme):
    browser.look(width, scheme)
    for path in ("/", "/alarms", "/rollout", "/box/default/north-ct3", "/sign-in"):
        browser.go(house.url + path)
        picture(browser, f"{path.strip('/').replace('/', '-') or 'boxes'}-{width}-{scheme}")
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth"), path
        ground, contrast, text = browser.run(CONTRAST)
        assert (sum(ground) < 200) == (scheme == "dark"), path
        assert contrast >= 4.5, f"{path}: {text}"  # WCAG 2.2, 1.4.3
        assert browser.run("return [...document.querySelectorAll('[id]')].map(e => e.id).sort()") == browser.run(
            "return [...new Set([...document.querySelectorAll('[id]')].map(e => e.id))].sort()"
        )
        assert browser.console() == []


CONTRAST = """
const parts = (colour) => colour.match(/[0-9.]+/g).map(Number);
const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => [r, g, b].map((c) => linear(c / 255))
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (e) => { for (; e; e = e.parentElement) { const c = parts(getComputedStyle(e).backgroundColor);
  if (c.length < 4 || c[3] > 0) return c; } return [255, 255, 255]; };
let worst = [99, ""];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const e = walk.currentNode.parentElement, text = walk.currentNode.data.trim();
  if (!text || !e.checkVisibility() || e.closest("svg, option, meter")) continue;
  const [a, b] = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
  const contrast = (a + 0.05) / (b + 0.05);
  if (contrast < worst[0]) worst = [contrast, text];
}
return [ground(document.body).slice(0, 3), ...worst];
"""


def test_a_line_says_in_words_what_its_colour_says(house, browser):
    browser.look(1280, "light")
    browser.go(house.url)
    lines = {line.split("\t")[0]: line for line in browser.text(".boxes tbody").splitlines() if line.count("\t") > 3}
    words = browser.text(".boxes tbody")
    for said in (
        "○ offline",
        "● online",
        "▲ silent: ct1",
        "26 h",
        "slot B",
        "▲ 92 %",
        "▲ 12 d",
        "sends what is not understood",
    ):
        assert said in words
    assert "The oldest unsent object waits for more than a day (pacs)" in words
    assert lines or names(browser)[0] == "east-us1"  # who is gone comes first
    assert browser.run("return document.title") == "Boxes – fleet"  # what a box said was text


def test_filter_sort_and_search_by_mouse(house, browser, wait_until):
    browser.look(1280, "light")
    browser.go(house.url)
    everybody = sorted(names(browser))
    browser.click("#sort-box")
    assert wait_until(lambda: names(browser) == everybody)
    browser.click("#sort-box")
    assert wait_until(lambda: names(browser) == everybody[::-1])
    browser.type("#search", "south" + ENTER)
    assert wait_until(lambda: names(browser) == ["south-xa1", "south-mr1"])
    browser.go(house.url + "/?status=critical")
    assert names(browser) == ["north-ct3"]
    browser.click("#sum-2")
    assert wait_until(lambda: names(browser) == ["east-us1"])
    browser.go(house.url + "/?q=%3Cscript%3Ealert(1)%3C/script%3E")
    assert "No box matches." in browser.text("main")
    assert browser.run("return document.querySelector('#search').value") == "<script>alert(1)</script>"


def test_everything_can_be_done_by_keyboard(house, browser, wait_until):
    browser.look(1280, "light")
    browser.go(house.url)
    browser.press(TAB)
    assert browser.focused() == "Skip to content"
    seen = []
    for _ in range(40):
        browser.press(TAB)
        seen.append(browser.focused())
    for wanted in ("Alarms", "search", "filter-state", "sort-box", "box-default-north-ct3"):
        assert wanted in seen, wanted
    assert browser.run("return getComputedStyle(document.activeElement).outlineStyle") != "none"
    browser.go(house.url)
    assert wait_until(lambda: browser.press("/") or browser.focused() == "search")
    browser.run("document.activeElement.value = ''")
    browser.press(*"ct3", ENTER)
    assert wait_until(lambda: names(browser) == ["north-ct3"])
    for _ in range(30):
        browser.press(TAB)
        if browser.focused() == "box-default-north-ct3":
            break
    browser.press(ENTER)
    assert wait_until(lambda: browser.text("h1") == "north-ct3")


def test_a_box_has_a_page_with_its_facts_and_its_past(house, browser, wait_until):
    browser.look(1280, "light")

    def drawn() -> bool:
        browser.go(house.url + "/box/default/north-ct3")
        return browser.run("return document.querySelectorAll('.plot svg').length") == 5

    assert wait_until(drawn, 15)
    words = browser.text("main")
    for said in (
        "Raspberry Pi 5",
        "mqtt: 12 days left",
        "does not answer",
        "5,210 waiting",
        "12 of usually 40",
        "silent",
    ):
        assert said in words, said
    assert browser.run("return document.querySelector('.plot svg').getAttribute('aria-label')").startswith(
        "Oldest unsent"
    )
    browser.go(house.url + "/box/default/east-us2")
    assert "breaks its schema" in browser.text("main")


def test_a_roll_out_says_abort(house, browser):
    browser.go(house.url + "/rollout")
    words = browser.text("#waves")
    assert "Abort: give no further box this version" in words
    assert "north-ct4: rolled back, runs 0.4.1" in words
    assert house.metric('wave_abort{wave="pilot"}') == 1
    assert house.metric('wave_abort{wave="all"}') == 0
    assert house.metric('wave_boxes{stage="rolled_back",wave="pilot"}') == 1


def test_somebody_acknowledges_an_alarm(house, browser, wait_until):
    browser.look(1280, "dark")
    browser.go(house.url + "/alarms")
    assert browser.text(".alarms tbody").count("by nobody") == 2
    browser.go(house.url + "/sign-in")
    browser.type("#name", "Ada <b>L</b>" + ENTER)
    assert wait_until(lambda: browser.text("header form").startswith("Ada <b>L</b>"))
    browser.click("#ack-default-north-ct3-backlog_very_old")
    assert wait_until(lambda: "by Ada <b>L</b>" in browser.text(".alarms tbody"))
    assert browser.url.endswith("/alarms")
    picture(browser, "alarms-acknowledged-1280-dark")
    assert house.metric("alarms_unacknowledged") == 1
    house.stop()  # what somebody has seen is known after a restart
    house.start()
    assert wait_until(lambda: house.metric("alarms_unacknowledged") == 1)
    browser.go(house.url + "/alarms?seen=yes")
    assert "by Ada <b>L</b>" in browser.text(".alarms tbody")


def test_the_page_renews_itself_and_says_when_it_cannot(house, browser, wait_until):
    browser.look(1280, "light")
    browser.go(house.url + "/?q=east-us1")
    browser.run("document.getElementById('box-default-east-us1').focus(); window.look0 = 1")
    browser.run("document.getElementById('summary').innerHTML = ''; return look()")
    assert wait_until(lambda: "offline" in browser.text("#summary"))
    assert browser.focused() == "box-default-east-us1"
    assert browser.run("return window.look0") == 1  # it was not loaded again
    house.stop()
    browser.run("return look()")
    assert wait_until(lambda: "does not answer" in browser.text("footer"))
    house.start()
