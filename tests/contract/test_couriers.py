"""The same cases over each courier, against peers that are not ours: pynetdicom's SCP, http.server, a folder."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from pynetdicom import AE, _config, evt

from gateway.config.destinations import ClientTls, DimseDestination, FolderDestination, StowDestination
from gateway.model.errors import CustodyRot, SpoolError, Stopped
from gateway.model.verdict import Blame, Outcome
from gateway.send.courier import Consignment
from gateway.send.couriers import COURIERS
from tests.ports import hang_up

CT, ELE, J2K = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"
BODY = (
    b"\x08\x00\x16\x00UI\x1a\x001.2.840.10008.5.1.4.1.1.2\x00"
    + b"\xe0\x7f\x10\x00OW\x00\x00"
    + (300_000).to_bytes(4, "little")
    + bytes(range(250)) * 1200
)


def consignment(*, breaks: Exception | None = None, syntax=ELE):
    def body():
        yield BODY[:100_000]
        if breaks is not None:
            raise breaks
        yield BODY[100_000:]

    return Consignment("ab" * 16, CT, "1.2.3.4", "1.2.3", syntax, len(BODY), body)


class DimsePeer:
    """pynetdicom's SCP."""

    kind = "dimse"

    def __init__(self, tmp_path, tls=None):
        _config.UNRESTRICTED_STORAGE_SERVICE = True
        self.status, self.delay_s, self.drop, self.got = 0x0000, 0.0, False, []
        self.entity = AE("PEER")
        self.entity.add_supported_context("1.2.840.10008.1.1")
        handlers = [(evt.EVT_C_STORE, self.store), (evt.EVT_DATA_RECV, self.data)]
        self.server = self.entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers, ssl_context=tls)
        self.port = self.server.socket.getsockname()[1]

    def data(self, event):
        if self.drop and len(event.data) > 10_000:
            event.assoc.dul.socket.close()

    def store(self, event):
        time.sleep(self.delay_s)
        if self.status == 0:
            self.got.append(hashlib.sha256(event.request.DataSet.getvalue()).hexdigest())
        return self.status

    def refuse(self):
        self.status = 0xA900

    def defer(self):
        self.status = 0xA700

    def settings(self, timeout_s=20, **more):
        facts = {"host": "localhost", "port": self.port, "ae_title": "PEER", "timeout_s": timeout_s, **more}
        return DimseDestination(name="peer", kind="dimse", **facts)

    def close(self):
        self.entity.shutdown()


class StowPeer:
    """A STOW-RS service by the standard library."""

    kind = "stow"

    def __init__(self, tmp_path, tls=None):
        self.status, self.reason, self.delay_s, self.drop, self.got = 200, None, 0.0, False, []
        peer = self

        class Service(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_OPTIONS(self):
                self.send_response(204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self):
                if peer.drop:
                    self.rfile.read(1000)
                    self.connection.close()
                    return
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if len(content) < int(self.headers["Content-Length"]):
                    return
                time.sleep(peer.delay_s)
                peer.answer(self, content)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
        self.server.handle_error = lambda *_: None
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.secure = tls is not None
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, request, content):
        part = content.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--", 1)[0]
        assert part[128:132] == b"DICM"
        entry = {"00081155": {"vr": "UI", "Value": ["1.2.3.4"]}}
        if self.status in (200, 202) and self.reason is None:
            self.got.append(hashlib.sha256(part[-len(BODY) :]).hexdigest())
            reply = {"00081199": {"vr": "SQ", "Value": [entry]}}
        else:
            entry["00081197"] = {"vr": "US", "Value": [self.reason or 0xC000]}
            reply = {"00081198": {"vr": "SQ", "Value": [entry]}}
        body = json.dumps(reply).encode()
        request.send_response(self.status)
        request.send_header("Content-Type", "application/dicom+json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def refuse(self):
        self.status, self.reason = 409, 0xA900

    def defer(self):
        self.status, self.reason = 503, 0xA700

    def settings(self, timeout_s=20, **more):
        url = f"http{'s' if self.secure else ''}://localhost:{self.port}/studies"
        return StowDestination(name="peer", kind="stow", url=url, timeout_s=timeout_s, **more)

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class FolderPeer:
    """A folder; refuses nothing, defers when it cannot be written."""

    kind = "folder"

    def __init__(self, tmp_path, tls=None):
        self.path = tmp_path / "out"

    @property
    def got(self):
        return [hashlib.sha256(f.read_bytes()[-len(BODY) :]).hexdigest() for f in self.path.glob("*.dcm")]

    def defer(self):
        self.path.write_text("a file where the folder should be")

    def settings(self, **more):
        return FolderDestination(name="peer", kind="folder", path=self.path)

    def close(self):
        pass


PEERS = [DimsePeer, StowPeer, FolderPeer]
NETWORK = [DimsePeer, StowPeer]


@pytest.fixture
def peer(request, tmp_path):
    peer = request.param(tmp_path)
    yield peer
    peer.close()


@pytest.fixture
def courier(peer):
    courier = COURIERS[peer.kind](peer.settings(), "EDGEGW")
    courier.prepare([(CT, ELE)])
    yield courier
    courier.close()


@pytest.fixture
def impatient(peer):
    courier = COURIERS[peer.kind](peer.settings(timeout_s=2), "EDGEGW")
    courier.prepare([(CT, ELE)])
    yield courier
    courier.close()


every = pytest.mark.parametrize("peer", PEERS, indirect=True, ids=lambda p: p.kind)
network = pytest.mark.parametrize("peer", NETWORK, indirect=True, ids=lambda p: p.kind)
WHOLE = hashlib.sha256(BODY).hexdigest()


@every
def test_accepted_means_the_peer_has_the_very_bytes(peer, courier):
    assert courier.deliver(consignment()).outcome is Outcome.ACCEPTED
    assert peer.got == [WHOLE]


@every
def test_the_same_instance_again_is_accepted(peer, courier):
    assert [courier.deliver(consignment()).outcome for _ in range(2)] == [Outcome.ACCEPTED] * 2
    assert set(peer.got) == {WHOLE}


@every
@pytest.mark.parametrize(
    "breaks", [CustodyRot("rot"), SpoolError("too many open files"), Stopped()], ids=["rot", "fault", "stop"]
)
def test_what_breaks_off_never_reaches_the_peer_as_a_whole_object(peer, courier, breaks):
    with pytest.raises(type(breaks)):
        courier.deliver(consignment(breaks=breaks))
    assert courier.deliver(consignment()).outcome is Outcome.ACCEPTED
    assert peer.got == [WHOLE]


@every
def test_a_peer_that_defers_is_to_blame_itself(peer, courier):
    peer.defer()
    verdict = courier.deliver(consignment())
    assert (verdict.outcome, verdict.blame) == (Outcome.DEFERRED, Blame.DESTINATION)
    assert verdict.text


@every
def test_a_well_peer_passes_the_probe(peer, courier):
    assert courier.probe().outcome is Outcome.ACCEPTED


@network
def test_a_refusal_is_about_the_instance(peer, courier):
    peer.refuse()
    verdict = courier.deliver(consignment())
    assert (verdict.outcome, verdict.blame) == (Outcome.REFUSED, Blame.INSTANCE)


@network
def test_a_peer_that_drops_mid_body_is_ill_and_may_come_back(peer, courier):
    peer.drop = True
    verdict = courier.deliver(consignment())
    assert (verdict.outcome, verdict.blame) == (Outcome.DEFERRED, Blame.DESTINATION)
    peer.drop = False
    assert courier.deliver(consignment()).outcome is Outcome.ACCEPTED


@network
def test_a_silent_peer_is_ill(peer, impatient):
    peer.delay_s = 5.0
    verdict = impatient.deliver(consignment())
    assert (verdict.outcome, verdict.blame) == (Outcome.DEFERRED, Blame.DESTINATION)


@network
def test_a_silent_peer_is_left_for_a_new_association(peer, impatient):
    """What it answers too late must never be taken for the answer to the next instance."""
    peer.delay_s = 5.0
    assert impatient.deliver(consignment()).outcome is Outcome.DEFERRED
    peer.delay_s = 0.0
    peer.refuse()
    outcome = Outcome.DEFERRED
    for _ in range(3):  # the machine may pause for longer than so impatient a courier waits
        if outcome is Outcome.DEFERRED:
            outcome = impatient.deliver(consignment()).outcome
    assert outcome is Outcome.REFUSED


@network
def test_nobody_there_is_told_in_words(peer, courier):
    peer.close()
    for verdict in (courier.deliver(consignment()), courier.probe()):
        assert (verdict.outcome, verdict.blame) == (Outcome.DEFERRED, Blame.DESTINATION)
        assert "connect" in verdict.text


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def server_side(authority, name, clients=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if clients:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_side(folder, authority, identity=None):
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    if identity is None:
        return ClientTls(ca_file=ca)
    identity.private_key_and_cert_chain_pem.write_to_path(str(folder / "id.pem"))
    return ClientTls(ca_file=ca, cert_file=folder / "id.pem", key_file=folder / "id.pem")


@pytest.mark.parametrize("kind", NETWORK, ids=lambda p: p.kind)
@pytest.mark.parametrize(
    ("name", "right_authority", "identified", "outcome"),
    [
        ("localhost", True, True, Outcome.ACCEPTED),
        ("localhost", True, False, Outcome.DEFERRED),
        ("elsewhere.example", True, True, Outcome.DEFERRED),
        ("localhost", False, True, Outcome.DEFERRED),
    ],
    ids=["mutual", "no-client-certificate", "wrong-name", "wrong-authority"],
)
def test_certificates_decide(kind, name, right_authority, identified, outcome, authority, tmp_path):
    peer = kind(tmp_path, server_side(authority, name, authority))
    try:
        trusted = authority if right_authority else trustme.CA()
        identity = authority.issue_cert("gateway.example") if identified else None
        courier = COURIERS[kind.kind](peer.settings(tls=client_side(tmp_path, trusted, identity)), "EDGEGW")
        courier.prepare([(CT, ELE)])
        verdict = courier.deliver(consignment())
        courier.close()
        assert verdict.outcome is outcome, verdict
        assert len(peer.got) == (outcome is Outcome.ACCEPTED)
    finally:
        peer.close()


def test_one_association_serves_many_and_a_dropped_one_is_opened_again(tmp_path):
    peer, opened = DimsePeer(tmp_path), []
    peer.server.bind(evt.EVT_ACCEPTED, lambda event: opened.append(event.assoc))
    courier = COURIERS["dimse"](peer.settings(), "EDGEGW")
    courier.prepare([(CT, ELE)])
    assert [courier.deliver(consignment()).outcome for _ in range(3)] == [Outcome.ACCEPTED] * 3
    assert len(opened) == 1
    opened[0].abort()
    time.sleep(1.1)  # a peer that drops what is idle; one that drops work is ill
    assert courier.deliver(consignment()).outcome is Outcome.ACCEPTED
    assert len(opened) == 2
    courier.close()
    peer.close()


class Proxy:
    """A forward proxy (RFC 9110 7.6, 9.3.6): passes on what comes in absolute form, and tunnels CONNECT."""

    def __init__(self):
        self.asked, self.status = [], b"200 Connection established"
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client):
        head = b""
        while b"\r\n\r\n" not in head:
            head += client.recv(65536)
        method, target, _ = head.split(b" ", 2)
        self.asked.append((method.decode(), target.decode()))
        tunnel = method == b"CONNECT"
        if tunnel and not self.status.startswith(b"200"):
            client.sendall(b"HTTP/1.1 " + self.status + b"\r\nContent-Length: 0\r\n\r\n")
            client.close()
            return
        place = target if tunnel else target.split(b"/")[2]
        service = socket.create_connection(("127.0.0.1", int(place.rpartition(b":")[2])), 10)
        if tunnel:
            client.sendall(b"HTTP/1.1 " + self.status + b"\r\n\r\n")
        else:
            service.sendall(head)
        threading.Thread(target=self._pump, args=(service, client), daemon=True).start()
        self._pump(client, service)

    @staticmethod
    def _pump(source, target):
        try:
            while block := source.recv(65536):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other side is done

    def close(self):
        hang_up(self.server)


@pytest.fixture
def proxy():
    started = Proxy()
    yield started
    started.close()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_web_service_is_reached_through_a_proxy(secure, proxy, authority, tmp_path):
    peer = StowPeer(tmp_path, server_side(authority, "localhost") if secure else None)
    tls = {"tls": client_side(tmp_path, authority)} if secure else {}
    courier = COURIERS["stow"](peer.settings(proxy=f"http://127.0.0.1:{proxy.port}", **tls), "EDGEGW")
    assert courier.deliver(consignment()).outcome is Outcome.ACCEPTED
    courier.close()
    peer.close()
    assert peer.got == [WHOLE]
    place = f"localhost:{peer.port}"
    assert proxy.asked == [("CONNECT", place) if secure else ("POST", f"http://{place}/studies")]


def test_a_proxy_that_refuses_makes_the_destination_ill(proxy, authority, tmp_path):
    proxy.status = b"407 Proxy Authentication Required"
    peer = StowPeer(tmp_path, server_side(authority, "localhost"))
    tls = client_side(tmp_path, authority)
    courier = COURIERS["stow"](peer.settings(proxy=f"http://127.0.0.1:{proxy.port}", tls=tls), "EDGEGW")
    verdict = courier.deliver(consignment())
    courier.close()
    peer.close()
    assert (verdict.outcome, verdict.blame) == (Outcome.DEFERRED, Blame.DESTINATION)
    assert peer.got == []


def test_a_syntax_the_peer_does_not_take_is_named_as_such(tmp_path):
    _config.UNRESTRICTED_STORAGE_SERVICE = False
    entity = AE("PEER")
    entity.add_supported_context(CT, ELE)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    port = server.socket.getsockname()[1]
    settings = DimseDestination(name="p", kind="dimse", host="127.0.0.1", port=port, ae_title="PEER", timeout_s=20)
    courier = COURIERS["dimse"](settings, "EDGEGW")
    try:
        verdict = courier.deliver(consignment(syntax=J2K))
        assert verdict.outcome is Outcome.REFUSED and verdict.syntax_refused
        assert courier.accepts(CT) == frozenset({ELE})
    finally:
        courier.close()
        entity.shutdown()


def test_a_port_that_answers_nothing_is_left_in_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = DimseDestination(name="p", kind="dimse", host="127.0.0.1", port=port, ae_title="P", timeout_s=0.5)
        assert COURIERS["dimse"](settings, "E").probe().outcome is Outcome.DEFERRED
