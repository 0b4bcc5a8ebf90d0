"""Who we are to a web service. The judge of signatures is botocore; of the rest, the RFC's own words."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from urllib.parse import parse_qs

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.config.destinations import AwsAuth, BasicAuth, BearerAuth, OAuth2Auth
from gateway.identity.credentials import Aws, OAuth2, Outgoing, credential_of
from gateway.model.errors import IdentityError

URL = "https://dicom.example.org/datastore/abc/studies"


def outgoing(url=URL, body=(b"some ", b"bytes"), method="POST"):
    return Outgoing(method, url, lambda: body)


@pytest.fixture
def kept(tmp_path):
    """Write a secret to a file of its own."""

    def keep(name: str, text: str):
        path = tmp_path / name
        path.write_text(text + "\n")
        return path

    return keep


def no_service(*_):
    raise AssertionError("nobody was to be asked")


@pytest.mark.parametrize("token", [None, "temporary"])
@pytest.mark.parametrize("url", [URL, URL + "?z=1&a=2", "http://127.0.0.1:8080/dicom-web/studies", "https://x.org"])
@pytest.mark.parametrize("method", ["POST", "OPTIONS"])
def test_the_signature_is_the_one_of_botocore(kept, url, method, token):
    settings = AwsAuth(
        kind="aws",
        region="eu-central-1",
        access_key_id_file=kept("id", "AKIDEXAMPLE"),
        secret_access_key_file=kept("key", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        session_token_file=kept("token", token) if token else None,
    )
    request = AWSRequest(method, url, data=b"some bytes")
    signer = SigV4Auth(
        Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token), "medical-imaging", "eu-central-1"
    )
    ours = Aws(settings)
    request.headers["x-amz-content-sha256"] = ours.headers(outgoing(url))["x-amz-content-sha256"]
    signer.add_auth(request)
    at = datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    signed = Aws(settings, now=lambda: at).headers(outgoing(url, method=method))
    assert signed["Authorization"] == request.headers["Authorization"]


def test_basic_and_bearer_read_their_files_anew(kept):
    basic = credential_of(BasicAuth(kind="basic", user="box", password_file=kept("password", "s3:cret")), no_service)
    word = basic.headers(outgoing())["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(word) == b"box:s3:cret"
    bearer = credential_of(BearerAuth(kind="bearer", token_file=kept("token", "first")), no_service)
    assert bearer.headers(outgoing()) == {"Authorization": "Bearer first"}
    kept("token", "second")
    assert bearer.headers(outgoing()) == {"Authorization": "Bearer second"}


def test_without_a_table_nothing_is_said():
    assert credential_of(None, no_service).headers(outgoing()) == {}


def test_a_secret_that_is_missing_or_empty_is_named(kept, tmp_path):
    for path in (tmp_path / "nowhere", kept("empty", "")):
        with pytest.raises(IdentityError, match=path.name):
            credential_of(BearerAuth(kind="bearer", token_file=path), no_service).headers(outgoing())


class TokenService:
    def __init__(self):
        self.asked, self.status, self.answer, self.now = [], 200, b'{"access_token": "t1", "expires_in": 600}', 0.0

    def post(self, url, body, headers):
        self.asked.append((url, body, dict(headers)))
        return self.status, self.answer


@pytest.fixture
def service():
    return TokenService()


@pytest.fixture
def oauth(kept, service):
    settings = OAuth2Auth(
        kind="oauth2",
        token_url="https://id.example.org/token",
        client_id="box 1",
        client_secret_file=kept("secret", "p&w"),
        scope="dicom.write",
    )
    return OAuth2(settings, service.post, clock=lambda: service.now)


def test_a_token_is_fetched_once_and_again_shortly_before_it_ends(oauth, service):
    assert oauth.headers(outgoing()) == {"Authorization": "Bearer t1"}
    service.now = 500.0
    oauth.headers(outgoing())
    assert len(service.asked) == 1
    url, body, headers = service.asked[0]
    assert url == "https://id.example.org/token"
    assert parse_qs(body.decode()) == {"grant_type": ["client_credentials"], "scope": ["dicom.write"]}
    assert base64.b64decode(headers["Authorization"].removeprefix("Basic ")) == b"box%201:p%26w"
    service.now, service.answer = 541.0, b'{"access_token": "t2", "expires_in": 600}'
    assert oauth.headers(outgoing()) == {"Authorization": "Bearer t2"}


def test_a_token_that_the_service_forgot_is_fetched_anew(oauth, service):
    oauth.headers(outgoing())
    service.answer = b'{"access_token": "t2"}'
    assert oauth.renew()
    assert oauth.headers(outgoing()) == {"Authorization": "Bearer t2"}


@pytest.mark.parametrize(
    ("status", "answer"),
    [(401, b"{}"), (200, b"[]"), (200, b"{}"), (200, b"no json"), (200, b'{"access_token": "t", "expires_in": "x"}')],
)
def test_a_token_service_that_gives_no_token_is_named(oauth, service, status, answer):
    service.status, service.answer = status, answer
    with pytest.raises(IdentityError, match="token service"):
        oauth.headers(outgoing())


def test_a_token_service_that_is_away_is_named(oauth, monkeypatch):
    def away(*_):
        raise OSError("no route")

    oauth._post = away
    with pytest.raises(IdentityError, match="does not answer"):
        oauth.headers(outgoing())
