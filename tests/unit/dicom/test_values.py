"""PS3.5 table 6.2-1, 6.2.1: what a value of each VR may look like."""

from __future__ import annotations

import pytest

from gateway.dicom.values import count_fault, value_fault

ALLOWED = [
    ("AE", "PACS 1"),
    ("AE", "A" * 16),
    ("AS", "018M"),
    ("CS", "CD123_4"),
    ("CS", "A" * 16),
    ("DA", "19930822"),
    ("DA", "20240229"),
    ("DS", "-1.5e-3"),
    ("DS", " .5 "),
    ("DT", "1953082711193020.5"[:14] + ".5+0100"),
    ("DT", "1953"),
    ("DT", "195308-0500"),
    ("FD", "1e300"),
    ("FL", "3.4e38"),
    ("FL", "inf"),
    ("IS", "-2147483648"),
    ("LO", "x" * 64),
    ("LO", "山" * 64),
    ("LT", "line\r\nline\tand \\ all"),
    ("LT", "x" * 10240),
    ("PN", "Adams^John Robert Quincy^^Rev.^B.A. M.Div."),
    ("PN", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("PN", "x" * 64 + "=" + "y" * 64),
    ("SH", "x" * 16),
    ("ST", "x" * 1024),
    ("SS", "-32768"),
    ("SV", "-9223372036854775808"),
    ("TM", "070907.0705"),
    ("TM", "10"),
    ("TM", "235960"),
    ("UC", "x" * 70000),
    ("UI", "1.2.840.10008.0"),
    ("UI", "1" * 64),
    ("UL", "4294967295"),
    ("UR", "https://example.org/a?b=c\\d"),
    ("US", "65535"),
    ("UT", "x" * 70000),
    ("UV", "18446744073709551615"),
    *((vr, "") for vr in ("PN", "US", "UI", "DA")),
]
NOT_ALLOWED = [
    ("AE", "A" * 17),
    ("AE", "    "),
    ("AE", "PÄCS"),
    ("AS", "18Y"),
    ("AS", "018X"),
    ("CS", "lower"),
    ("CS", "A-B"),
    ("CS", "A" * 17),
    ("DA", "1993.08.22"),
    ("DA", "20230229"),
    ("DA", "00000101"),
    ("DS", "1.2.3"),
    ("DS", "1" * 17),
    ("DS", "nan"),
    ("DT", "195313"),
    ("DT", "1953082724"),
    ("FD", "one"),
    ("FL", "1e39"),
    ("IS", "2147483648"),
    ("IS", "1.0"),
    ("IS", "٣"),
    ("LO", "x" * 65),
    ("LO", "a\\b"),
    ("LO", "a\nb"),
    ("LT", "x" * 10241),
    ("LT", "bell\a"),
    ("PN", "a=b=c=d"),
    ("PN", "a^b^c^d^e^f"),
    ("PN", "x" * 65),
    ("SH", "x" * 17),
    ("ST", "x" * 1025),
    ("TM", "2400"),
    ("TM", "10:20"),
    ("UI", "1.02"),
    ("UI", "1.2."),
    ("UI", "1" * 65),
    ("UR", "a b"),
    ("US", "65536"),
    ("US", "-1"),
    ("OB", "x"),
    ("SQ", "x"),
    ("UN", "x"),
]


@pytest.mark.parametrize(("vr", "value"), ALLOWED)
def test_what_the_standard_allows(vr, value):
    assert value_fault(vr, value) is None


@pytest.mark.parametrize(("vr", "value"), NOT_ALLOWED)
def test_what_it_does_not_is_said_without_the_value(vr, value):
    fault = value_fault(vr, value)
    assert fault and fault[0].islower()
    assert len(value) < 4 or value not in fault


@pytest.mark.parametrize(
    ("multiplicity", "count", "allowed"),
    [("1", 1, True), ("1", 0, True), ("1", 2, False), ("1-n", 99, True), ("2-2n", 4, True), ("1-3", 4, False)],
)
def test_how_many_values_an_attribute_takes(multiplicity, count, allowed):
    assert (count_fault(multiplicity, count) is None) is allowed
