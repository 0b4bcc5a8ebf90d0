"""Who may acknowledge; that a form is ours."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from gateway.fleet.operators import COOKIE, Denied, Operators
from gateway.fleet.server import Request

HERE = Request("POST", "/sign-in", {}, {"name": "Ada"}, {"host": "fleet.example"}, True, False)


def signed_in(operators: Operators, request: Request = HERE) -> Request:
    cookie = operators.sign_in(request).partition(";")[0]
    return replace(request, headers={**request.headers, "cookie": cookie})


def test_from_this_machine_a_name_suffices_and_from_another_nothing_does():
    operators = Operators(None)
    assert operators.name(signed_in(operators)) == "Ada"
    with pytest.raises(Denied):
        operators.sign_in(replace(HERE, local=False))
    assert operators.name(replace(signed_in(operators), local=False)) == ""


def test_with_a_token_the_token_is_needed_everywhere():
    operators = Operators("correct-horse-battery")
    with pytest.raises(Denied):
        operators.sign_in(HERE)
    known = replace(HERE, local=False, form={"name": "Ada", "token": "correct-horse-battery"})
    assert operators.name(signed_in(operators, known)) == "Ada"


@pytest.mark.parametrize("name", ["", "  ", "x" * 41, "a\x1bb", "a\u202eb"])
def test_names_that_are_none(name):
    with pytest.raises(Denied):
        Operators(None).sign_in(replace(HERE, form={"name": name}))


def test_a_cookie_is_ours_unchanged_and_of_today(monkeypatch):
    operators = Operators(None)
    request = signed_in(operators)
    cookie = request.headers["cookie"]
    forged = [
        cookie[:-1] + ("0" if cookie[-1] != "0" else "1"),
        f"{COOKIE}=",
        f"{COOKIE}=a.b.c",
        "x",
        cookie.replace(".", ".9", 1),
    ]
    for other in forged:
        assert operators.name(replace(request, headers={"cookie": other})) == ""
    assert Operators(None).name(request) == ""
    now = time.time()
    monkeypatch.setattr("gateway.fleet.operators.time.time", lambda: now + 12 * 3600 + 1)
    assert operators.name(request) == ""


def test_a_form_counts_with_its_own_token_only():
    operators = Operators(None)
    request = signed_in(operators)
    other = signed_in(operators, replace(HERE, form={"name": "Bob"}))
    ours = replace(request, form={"form_token": operators.form_token(request)})
    assert operators.check(ours) == "Ada"
    for token in ("", "x", operators.form_token(other), operators.form_token(HERE)):
        with pytest.raises(Denied):
            operators.check(replace(request, form={"form_token": token}))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_form_of_another_site_does_not_count(headers):
    operators = Operators(None)
    request = signed_in(operators)
    form = {"form_token": operators.form_token(request)}
    with pytest.raises(Denied):
        operators.check(replace(request, form=form, headers={**request.headers, **headers}))


def test_guessing_is_slow():
    operators = Operators("correct-horse-battery")
    for _ in range(10):
        with pytest.raises(Denied, match="not the operator token"):
            operators.sign_in(replace(HERE, form={"name": "x", "token": "guess"}))
    with pytest.raises(Denied, match="wait"):
        operators.sign_in(replace(HERE, form={"name": "x", "token": "correct-horse-battery"}))


def test_by_tls_the_cookie_stays_there():
    assert "Secure" in Operators(None).sign_in(replace(HERE, secure=True))
