"""A real mosquitto with mutual TLS, and mosquitto_sub as the one who writes down everything."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from pathlib import Path

import trustme

from tests.ports import free_port

ACL = Path(__file__).parents[1] / "gateway/fleet/examples/mosquitto.acl"


class Broker:
    """mosquitto on 127.0.0.1; a user is a certificate's common name."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        """`hosts`: by what other names it is reached."""
        self.folder = folder
        folder.mkdir()
        self.port = free_port()
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(folder / "ca.pem")
        self._issue("broker", "127.0.0.1", "localhost", *hosts)
        acl = ACL.read_text() + "user monitor\ntopic readwrite gw/#\ntopic readwrite homeassistant/#\n"
        acl += "user gateway\ntopic write homeassistant/#\n"
        (folder / "acl").write_text(acl)
        (folder / "acl").chmod(0o600)
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"user root\npersistence false\nper_listener_settings false\nlistener {self.port} 127.0.0.1\n"
            f"cafile {folder}/ca.pem\ncertfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n"
            f"require_certificate true\nuse_identity_as_username true\nacl_file {folder}/acl\n"
        )
        self.process: subprocess.Popen | None = None
        self._others: list[subprocess.Popen] = []

    def _issue(self, name: str, *hosts: str) -> None:
        if not (self.folder / f"{name}.pem").exists():
            cert = self.ca.issue_cert(*(hosts or (f"{name}.test",)), common_name=name)
            cert.private_key_pem.write_to_path(self.folder / f"{name}.key")
            for blob in cert.cert_chain_pems:
                blob.write_to_path(self.folder / f"{name}.pem", append=True)

    def start(self) -> Broker:
        with open(self.folder / "broker.log", "ab") as log:
            self.process = subprocess.Popen(
                ["/usr/sbin/mosquitto", "-c", str(self._config), "-v"], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return self
            except OSError:
                assert self.process.poll() is None, self.log()
                time.sleep(0.02)
        raise AssertionError(self.log())

    def log(self) -> str:
        return (self.folder / "broker.log").read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        for process in [*self._others, self.process]:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait(10)

    def table(self, gateway: str = "gateway", more: str = "", host: str = "127.0.0.1") -> str:
        """The [mqtt] table of a box."""
        self._issue(gateway)
        return (
            f'[mqtt]\nhost = "{host}"\nport = {self.port}\nwill_delay_s = 1\ninterval_s = 2\n{more}\n'
            f'tls = {{ ca_file = "{self.folder}/ca.pem", cert_file = "{self.folder}/{gateway}.pem", '
            f'key_file = "{self.folder}/{gateway}.key" }}\n'
        )

    def as_user(self, user: str) -> list[str]:
        self._issue(user)
        files = ["--cafile", f"{self.folder}/ca.pem", "--cert", f"{self.folder}/{user}.pem"]
        return ["-V", "5", "-h", "127.0.0.1", "-p", str(self.port), *files, "--key", f"{self.folder}/{user}.key"]

    def publish(self, topic: str, payload: bytes, *options: str, user: str = "monitor") -> str:
        done = subprocess.run(
            [
                "mosquitto_pub",
                *self.as_user(user),
                "-q",
                "1",
                "-t",
                topic,
                *(() if "-n" in options else ("-s",)),
                *options,
            ],
            input=payload,
            capture_output=True,
            timeout=30,
        )
        return done.stderr.decode()

    def record(self, *topics: str, user: str = "monitor") -> Record:
        """Write down what is on these topics; returns when the subscription stands."""
        path = self.folder / f"record{len(self._others)}.jsonl"
        asked = [word for topic in topics or ("gw/#", "homeassistant/#") for word in ("-t", topic)]
        subscribed = self.log().count("SUBACK")
        with open(path, "wb") as file:
            self._others.append(
                subprocess.Popen(["mosquitto_sub", *self.as_user(user), "-q", "1", "-F", "%j", *asked], stdout=file)
            )
        deadline = time.monotonic() + 30
        while self.log().count("SUBACK") == subscribed and time.monotonic() < deadline:
            time.sleep(0.02)
        return Record(path)


class Record:
    """What a subscriber heard, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def lines(self) -> list[dict]:
        whole = self._path.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def text(self) -> str:
        return self._path.read_text()

    def of(self, end: str) -> list[dict]:
        """Payloads of the topics that end so, oldest first; None for an empty one."""
        found = [line for line in self.lines() if line["topic"].endswith(end)]
        return [json.loads(line["payload"]) if line["payload"] else None for line in found]

    def last(self, end: str) -> dict | None:
        found = self.of(end)
        return found[-1] if found else None
