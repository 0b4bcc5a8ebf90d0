"""Which destinations an instance gets: tables of cases, and what holds whatever the routes are."""

from __future__ import annotations

from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.routes import RouteCondition
from gateway.config.schema import Settings
from gateway.model.instance import Door, Header, Origin, Priority, SOPInstance
from gateway.model.way import Way
from gateway.route.conditions import readings
from gateway.route.facts import Facts, facts_of, wanted_tags
from gateway.route.rules import explain, ways_of
from gateway.route.words import reading_in_words, routes_in_words

NAMES = ["a", "b", "c"]
SEX, BODY_PART, STATION, ROWS, IMAGE_TYPE, STUDY_DATE, COMMENTS = (
    0x00100040,
    0x00180015,
    0x00081010,
    0x00280010,
    0x00080008,
    0x00080020,
    0x00204000,
)
CT_AT_NOON = Facts(
    "CT",
    "1.2.840.10008.5.1.4.1.1.2",
    "CT1",
    "EDGEGW",
    "192.0.2.10",
    time(12, 0),
    lambda: {
        SEX: "F",
        BODY_PART: "CHEST",
        STATION: "ROOM1",
        ROWS: "512",
        IMAGE_TYPE: "ORIGINAL\\PRIMARY\\AXIAL",
        STUDY_DATE: "20260131",
        COMMENTS: "",
    },
)


def settings(routes: list[dict], morphs: list[dict] | None = None) -> Settings:
    folders = [{"name": name, "kind": "folder", "path": f"/tmp/{name}"} for name in NAMES]
    return Settings.model_validate({"destination": folders, "route": routes, "morph": morphs or []})


def holds(when: dict, facts: Facts = CT_AT_NOON) -> bool:
    (explained,) = explain(settings([{"when": when, "to": ["a"]}]), facts)
    return explained.matched


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({}, True),
        ({"modality": ["MR", "CT"]}, True),
        ({"modality": ["MR"]}, False),
        ({"modality": []}, False),
        ({"calling_ae_title": [" CT1 "]}, True),
        ({"called_ae_title": ["OTHER"]}, False),
        ({"sop_class_uid": ["1.2.840.10008.5.1.4.1.1.2"]}, True),
        ({"address": ["192.0.2.10"]}, True),
        ({"address": ["10.0.0.0/8", "192.0.2.0/24"]}, True),
        ({"address": ["192.0.2.11", "2001:db8::/32"]}, False),
        ({"body_part": ["HEAD", "CHEST"]}, True),
        ({"body_part": []}, False),
        ({"station": ["ROOM2"]}, False),
        ({"time_of_day": "08:00-17:00"}, True),
        ({"time_of_day": "18:00-06:00"}, False),
        ({"modality": ["CT"], "station": ["ROOM1"], "body_part": ["HEAD"]}, False),
    ],
)
def test_each_condition_that_is_named_must_hold(when, expected):
    assert holds(when) is expected


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"tag": "PatientSex", "equals": "F"}, True),
        ({"tag": "0010,0040", "equals": "f"}, False),
        ({"tag": "PatientSex", "one_of": ["M", "F"]}, True),
        ({"tag": "PatientSex", "matches": "^[FO]$"}, True),
        ({"tag": "PatientSex", "absent": True}, False),
        ({"tag": "PatientSex", "absent": False}, True),
        ({"tag": "PatientID", "absent": True}, True),
        ({"tag": "PatientID", "absent": False}, False),
        ({"tag": "PatientID", "matches": ""}, False),
        ({"tag": "ImageComments", "absent": True}, True),
        ({"tag": "ImageComments", "equals": ""}, True),
        ({"tag": "ImageType", "equals": "AXIAL"}, True),
        ({"tag": "ImageType", "equals": "ORIGINAL\\PRIMARY\\AXIAL"}, True),
        ({"tag": "ImageType", "equals": "PRIMARY\\AXIAL"}, False),
        ({"tag": "ImageType", "matches": "^PRIM"}, True),
        ({"tag": "Rows", "range": [512, 512]}, True),
        ({"tag": "Rows", "range": [513, float("inf")]}, False),
        ({"tag": "Rows", "range": [0.5, 1e9]}, True),
        ({"tag": "PatientSex", "range": [0, 9]}, False),
        ({"tag": "StudyDate", "range": ["2026", "2026"]}, True),
        ({"tag": "StudyDate", "range": ["20260131", "20260131"]}, True),
        ({"tag": "StudyDate", "range": ["20260201", "20261231"]}, False),
        ({"tag": "ImageComments", "range": ["", "z"]}, False),
    ],
)
def test_a_tag_answers_one_question(entry, expected):
    assert holds({"tag": [entry]}) is expected


def test_all_entries_for_tags_must_hold():
    sex, rows = {"tag": "PatientSex", "equals": "F"}, {"tag": "Rows", "range": [1, 2]}
    assert holds({"tag": [sex]})
    assert not holds({"tag": [sex, rows]})


@pytest.mark.parametrize(
    ("hours", "inside", "outside"),
    [
        ("08:00-17:00", ["08:00", "12:00", "16:59"], ["07:59", "17:00", "00:00"]),
        ("18:00-06:00", ["18:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "17:59"]),
        ("00:00-23:59", ["00:00", "23:58"], ["23:59"]),
    ],
)
def test_hours_go_past_midnight_and_end_before_their_last_minute(hours, inside, outside):
    for at in [*inside, *outside]:
        assert holds({"time_of_day": hours}, Facts(at=time.fromisoformat(at))) is (at in inside), at


def test_an_ipv4_sender_on_an_ipv6_socket_is_the_same_sender():
    assert holds({"address": ["192.0.2.0/24"]}, Facts(address="::ffff:192.0.2.10"))
    assert holds({"address": ["fe80::/10"]}, Facts(address="fe80::1%eth0"))
    assert not holds({"address": ["0.0.0.0/0", "::/0"]}, Facts())


def test_matching_routes_add_up_and_the_most_urgent_wins():
    routes = [{"to": ["a"]}, {"when": {"modality": ["CT"]}, "to": ["a", "b"], "priority": "stat"}]
    assert ways_of(settings(routes), CT_AT_NOON) == {"a": Way(Priority.STAT), "b": Way(Priority.STAT)}
    assert ways_of(settings(routes), Facts("MR")) == {"a": Way()}
    assert ways_of(settings(routes[1:]), Facts("MR")) == {}


@pytest.mark.parametrize(
    ("dimse", "priority"),
    [
        (0x0000, Priority.NORMAL),  # MEDIUM, HIGH, LOW: PS3.7 table 9.3-1
        (0x0001, Priority.STAT),
        (0x0002, Priority.BULK),
        (0x0003, Priority.NORMAL),
        (0xFFFF, Priority.NORMAL),
    ],
)
def test_the_sender_decides_on_the_order_only_where_a_route_says_so(dimse, priority):
    facts = facts_of([], instance(dimse), bytes, time())
    assert ways_of(settings([{"to": ["a"], "priority": "sender"}]), facts)["a"].priority is priority
    assert ways_of(settings([{"to": ["a"]}]), facts)["a"].priority is Priority.NORMAL
    assert ways_of(settings([]), facts)["a"].priority is Priority.NORMAL


def test_an_attribute_decides_on_the_order():
    stroke = {"tag": [{"tag": "StudyDescription", "matches": "(?i)stroke"}]}
    rules = settings([{"to": ["a"]}, {"to": ["a"], "when": stroke, "priority": "stat"}])
    said = {b"Stroke 1": Priority.STAT, b"Knee sag": Priority.NORMAL}
    for text, priority in said.items():
        facts = facts_of(rules.route, instance(), lambda text=text: b"\x08\x00\x30\x10LO\x08\x00" + text, time())
        assert ways_of(rules, facts)["a"].priority is priority


def instance(dimse_priority: int = 0) -> SOPInstance:
    header = Header("1.2", "1.2.3", "1.2", "1.3", "CT")
    origin = Origin(Door.DIMSE, "192.0.2.1", " CT1 ", "BOX", 104, dimse_priority)
    return SOPInstance("0" * 32, "1.2", "1.2.3", "1.2.840.10008.1.2.1", "0" * 64, 1, header, origin, 0.0)


SEX_IS_F = {"tag": [{"tag": "PatientSex", "equals": "F"}]}


@pytest.mark.parametrize(
    ("routes", "reads"),
    [
        ([], 0),
        ([{"when": {"modality": ["CT"]}, "to": ["a"]}], 0),
        ([{"when": {"modality": ["MR"], **SEX_IS_F}, "to": ["a"]}], 0),
        ([{"when": SEX_IS_F, "to": ["a"]}, {"when": {"station": ["X"], **SEX_IS_F}, "to": ["b"]}], 1),
    ],
)
def test_the_data_set_is_read_once_and_only_when_a_rule_needs_it(routes, reads):
    asked = []

    def beginning() -> bytes:
        asked.append(1)
        return b"\x10\x00\x40\x00CS\x02\x00F "

    rules = settings(routes)
    found = ways_of(rules, facts_of(rules.route, instance(), beginning, time()))
    assert len(asked) == reads
    assert ("a" in found) is (not routes or routes[0]["when"].get("modality") != ["MR"])


def test_only_wanted_tags_are_looked_for():
    rules = settings([{"when": {"station": ["X"], **SEX_IS_F}, "to": ["a"]}, {"when": {"body_part": []}, "to": ["a"]}])
    assert wanted_tags(rules.route) == {SEX: "CS", STATION: "SH", BODY_PART: "CS"}


def test_routes_are_told_in_words():
    rules = settings([{"when": {"modality": ["CT", "MR"], **SEX_IS_F}, "to": ["a", "b"], "priority": "stat"}])
    assert routes_in_words(rules) == ["route 1: when modality is CT or MR and PatientSex is F -> a, b (stat)"]
    assert routes_in_words(settings([])) == ["no route: everything goes to a, b, c (normal)"]


def test_what_a_file_says_does_not_reach_the_terminal_as_it_is():
    when = RouteCondition.model_validate({"station": ["X"]})
    (reading,) = readings(when, Facts(attributes=lambda: {STATION: "\x1b]0;owned\x07"}))
    assert reading_in_words(reading).isprintable()


# Whatever the routes and the facts are:

WORDS = st.sampled_from(["CT", "MR", "", "F", "CHEST", "1", "20260131", "\\", "A\\F"])
SEVERAL = st.lists(WORDS, max_size=3)
QUESTIONS = st.one_of(
    st.builds(lambda v: {"equals": v}, WORDS),
    st.builds(lambda v: {"one_of": v}, st.lists(WORDS, min_size=1, max_size=3)),
    st.builds(lambda v: {"matches": v}, st.sampled_from(["^C", ".*", "F$", "(?i)chest|^$"])),
    st.builds(lambda v: {"range": sorted(v)}, st.lists(st.floats(-10, 10), min_size=2, max_size=2)),
    st.builds(lambda v: {"range": sorted(v)}, st.lists(WORDS, min_size=2, max_size=2)),
    st.builds(lambda v: {"absent": v}, st.booleans()),
)
TAGS = st.builds(lambda tag, ask: {"tag": tag, **ask}, st.sampled_from(["PatientSex", "Rows", "0029,1010"]), QUESTIONS)
WHEN = st.fixed_dictionaries(
    {},
    optional={
        "modality": SEVERAL,
        "calling_ae_title": SEVERAL,
        "called_ae_title": SEVERAL,
        "sop_class_uid": SEVERAL,
        "body_part": SEVERAL,
        "station": SEVERAL,
        "address": st.lists(st.sampled_from(["10.0.0.0/8", "::/0", "192.0.2.1"]), max_size=2),
        "time_of_day": st.sampled_from(["08:00-17:00", "18:00-06:00"]),
        "tag": st.lists(TAGS, max_size=3),
    },
)
ROUTES = st.lists(
    st.fixed_dictionaries(
        {
            "when": WHEN,
            "to": st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
            "priority": st.sampled_from(["stat", "normal", "bulk", "sender"]),
        }
    ),
    max_size=5,
)
ATTRIBUTES = st.dictionaries(
    st.sampled_from([SEX, ROWS, BODY_PART, STATION, 0x00291010]), st.one_of(WORDS, st.text(max_size=128))
)
FACTS = st.builds(
    lambda attributes, **facts: Facts(**facts, attributes=lambda: attributes),
    ATTRIBUTES,
    modality=WORDS,
    sop_class_uid=WORDS,
    calling_ae_title=st.one_of(WORDS, st.text(max_size=20)),
    called_ae_title=WORDS,
    address=st.one_of(st.sampled_from(["10.1.2.3", "192.0.2.1", "::1", "fe80::1%eth0"]), st.text(max_size=20)),
    at=st.times(),
    asked=st.sampled_from(Priority),
)


@given(FACTS)
def test_without_routes_everything_goes_everywhere(facts):
    assert ways_of(settings([]), facts) == dict.fromkeys(NAMES, Way())


@given(ROUTES.filter(bool), ROUTES, FACTS)
def test_adding_a_route_never_takes_a_destination_away_and_never_slows_one(routes, more, facts):
    before, after = ways_of(settings(routes), facts), ways_of(settings(routes + more), facts)
    assert all(after[name].priority <= way.priority for name, way in before.items())


@given(ROUTES.filter(bool), FACTS, st.randoms(use_true_random=False))
def test_the_order_of_routes_does_not_matter(routes, facts, luck):
    shuffled = luck.sample(routes, len(routes))
    assert ways_of(settings(routes), facts) == ways_of(settings(shuffled), facts)


@given(ROUTES)
def test_an_instance_that_says_nothing_raises_nothing(routes):
    rules = settings(routes)
    ways_of(rules, Facts())
    assert all(reading_in_words(reading) for explained in explain(rules, Facts()) for reading in explained.readings)
    assert len(routes_in_words(rules)) == max(1, len(routes))


@given(ROUTES.filter(bool), FACTS)
def test_what_is_explained_is_what_happens(routes, facts):
    rules = settings(routes)
    expected: dict[str, int] = {}
    for explained in explain(rules, facts):
        if explained.matched:
            for name in explained.route.to:
                told = explained.route.priority
                urgency = facts.asked if told == "sender" else Priority[told.upper()]
                expected[name] = min(expected.get(name, urgency), urgency)
    assert {name: way.priority for name, way in ways_of(rules, facts).items()} == expected


def test_of_a_failover_group_the_first_that_is_not_ill_is_chosen():
    rules = settings([{"to": ["c"], "to_first_of": ["a", "b"]}])
    group = Way(instead=("a", "b"))
    assert ways_of(rules, CT_AT_NOON) == {"a": group, "c": Way()}
    assert ways_of(rules, CT_AT_NOON, {"a"}) == {"b": group, "c": Way()}
    assert ways_of(rules, CT_AT_NOON, {"a", "b"}) == {"a": group, "c": Way()}


def test_a_destination_that_another_route_names_is_needed_whatever_the_group_does():
    rules = settings([{"to_first_of": ["a", "b"]}, {"to": ["a"]}])
    assert ways_of(rules, CT_AT_NOON) == {"a": Way()}


def test_a_study_is_waited_for_only_when_every_route_to_the_destination_says_so():
    patient = {"to": ["a"], "wait_for": "study", "quiet_s": 60}
    assert ways_of(settings([patient]), CT_AT_NOON) == {"a": Way(quiet_s=60.0)}
    assert ways_of(settings([patient, {"to": ["a"]}]), CT_AT_NOON) == {"a": Way()}


@pytest.mark.parametrize(
    ("route", "sentence"),
    [
        ({}, "give to or to_first_of"),
        ({"to_first_of": ["a"]}, "needs two"),
        ({"to_first_of": ["a", "b", "a"]}, "twice"),
        ({"to": ["a"], "to_first_of": ["a", "b"]}, "named by to and by to_first_of"),
        ({"to_first_of": ["a", "d"]}, "no destination 'd'"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused(route, sentence):
    with pytest.raises(ValueError, match=sentence):
        settings([route])


def test_recipes_of_two_routes_to_one_destination_follow_each_other():
    morphs = [{"name": name, "change": [{"tag": "PatientID", "prefix": name}]} for name in ("x", "y", "z")]
    routes = [{"to": ["a"], "morph": ["y", "x"]}, {"to": ["a", "b"], "morph": ["z", "y"]}, {"to": ["c"]}]
    chosen = settings(routes, morphs)
    ways = ways_of(chosen, CT_AT_NOON)
    assert "-> a (normal), changed by y and x" in routes_in_words(chosen)[0]
    assert routes_in_words(chosen)[-1] == "morph z: PatientID with 'z' before it"
    assert {name: way.recipe for name, way in ways.items()} == {"a": ("y", "x", "z"), "b": ("z", "y"), "c": ()}
