"""What a signed command can do. Each verb is a few lines over the same actions that the control socket has."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from gateway.actions import actions
from gateway.config.destinations import ClientTls
from gateway.config.mqtt import MqttSettings
from gateway.health import host
from gateway.health.commands import Deed, Done
from gateway.health.messages import Message
from gateway.identity.tls import client_context
from gateway.model.errors import GatewayError
from gateway.model.verdict import Outcome
from gateway.onsite import errand
from gateway.trial import CONFIRM_S

if TYPE_CHECKING:
    from gateway.app import Gateway

log = logging.getLogger("gateway.remote")

UPDATE_HOOK = Path("/usr/lib/dicom-gateway/update")
"""Called with `check`, `install VERSION` or `confirm`; part of the image, no setting: `config.apply` could set it."""
UPDATE_S = 3600.0
ASK_S = 20.0
UPLOAD_S = 30.0


class LogLevel:
    """A level that ends by itself."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("gateway")
        self._before: int | None = None
        self._until = 0.0

    def set(self, level: str, for_s: float) -> None:
        """Log at this level for so long."""
        if self._before is None:
            self._before = self._logger.level
        self._until = time.monotonic() + for_s
        self._logger.setLevel(level.upper())

    def tick(self) -> None:
        """Go back when the time is over."""
        if self._before is not None and time.monotonic() >= self._until:
            self._logger.setLevel(self._before)
            self._before = None
            log.warning("log_level_reverted")


def deeds(
    gateway: Gateway,
    look_now: Callable[[], None],
    rebirth: Callable[[], None],
    bundle: Callable[[], list[Message]],
    *,
    managed: bool = "INVOCATION_ID" in os.environ,
    hook: Path | None = None,
) -> dict[str, Deed]:
    """Return what this box can do, by verb. `managed`: systemd starts us again; `hook`: what updates an image."""
    do = actions(gateway)

    def destination(verb: Callable[[Mapping[str, Any]], Done]) -> Deed:
        """Act on a destination that there is."""

        def deed(command_id: str, args: Mapping[str, Any]) -> Done:
            if "destination" in args and args["destination"] not in gateway.lanes:
                return Done(False, "unknown_destination")
            return verb(args)

        return deed

    def retry(args: Mapping[str, Any]) -> Done:
        return Done(True, values={"deliveries": int(do["queue_retry"](args, []))})

    def pause(args: Mapping[str, Any]) -> Done:
        do["lane_pause"](args, [])
        return Done(True)

    def test(args: Mapping[str, Any]) -> Done:
        answer = do["echo"](args, [])
        good = answer["outcome"] == Outcome.ACCEPTED
        return Done(good, "reached" if good else "not_reached", {"ms": round(answer["seconds"] * 1000)})

    found: dict[str, Deed] = {
        "health.report": lambda _, args: _then(look_now),
        "rebirth": lambda _, args: _then(rebirth),
        "queue.pause": destination(pause),
        "queue.resume": destination(lambda args: pause({**args, "for_s": 0})),
        "queue.retry": destination(retry),
        "destination.test": destination(test),
        "log.level": lambda _, args: _then(lambda: do["log_level"](args, [])),
        "config.apply": lambda command_id, args: gateway.trial.begin(
            command_id, args["config"], args["sha256"], args.get("confirm_s", CONFIRM_S)
        ),
    }
    mqtt = gateway.settings.mqtt
    if mqtt and mqtt.diagnostics_url:
        found["diag.bundle"] = lambda _, args: _upload(mqtt, bundle())
    if managed:
        found["service.restart"] = lambda _, args: _restart(gateway, args, lambda: gateway.supervisor.end())
        found["reboot"] = lambda _, args: _restart(gateway, args, lambda: machine("reboot"))
    if hook:
        found["update.check"] = lambda id_, args: _hook(gateway, "update.check", id_, [str(hook), "check"])
        found["update.install"] = lambda id_, args: _hook(
            gateway, "update.install", id_, [str(hook), "install", args["version"]]
        )
        found["update.confirm"] = lambda id_, args: _hook(gateway, "update.confirm", id_, [str(hook), "confirm"])
    return {verb: _guarded(deed) for verb, deed in found.items()}


def _guarded(deed: Deed) -> Deed:
    """A command that fails is answered so; it must not end the room that does commands."""

    def guarded(command_id: str, args: Mapping[str, Any]) -> Done:
        try:
            return deed(command_id, args)
        except (GatewayError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            log.error("command_failed reason=%s", type(error).__name__)
            return Done(False, "failed")

    return guarded


def machine(verb: str) -> None:
    """`reboot` or `poweroff`: by our own right, or by asking root; raises GatewayError."""
    if host.run(["systemctl", verb]) is None:
        errand.send(errand.Errand(verb, "", uuid4().hex), ASK_S)


def _then(act: Callable[[], object]) -> Done:
    act()
    return Done(True)


def _restart(gateway: Gateway, args: Mapping[str, Any], act: Callable[[], object]) -> Done:
    """End, unless a scanner is just sending; the next life tells the end of the command."""
    if not args.get("force") and any(listener.associations for listener in gateway.listeners):
        return Done(False, "busy")
    act()
    return Done(True, later=True)


def update_hook() -> Path | None:
    """Return what updates this box, where it is one of our images."""
    return UPDATE_HOOK if os.access(UPDATE_HOOK, os.X_OK) and shutil.which("rauc") else None


def _hook(gateway: Gateway, verb: str, command_id: str, words: list[str]) -> Done:
    """Let it work beside us: an installation takes minutes, and ends in a restart of the box."""

    def work() -> None:
        try:
            good = subprocess.run(words, stdin=subprocess.DEVNULL, timeout=UPDATE_S).returncode == 0
        except (OSError, subprocess.TimeoutExpired):
            good = False
        if gateway.health and gateway.health.commands:
            gateway.health.commands.finish(verb, command_id, Done(True) if good else Done(False, "hook_failed"))

    gateway.supervisor.spawn("update", work)
    return Done(True, later=True)


def _upload(mqtt: MqttSettings, messages: list[Message]) -> Done:
    """Put what is told anyway, as one JSON document, where the configuration says; nothing else leaves."""
    import urllib3  # wanted when this is asked for, and not at each start

    document = {message.topic.split("/", 4)[-1]: message.body for message in messages if message.body is not None}
    assert mqtt.diagnostics_url is not None
    with urllib3.PoolManager(ssl_context=client_context(mqtt.tls or ClientTls())) as pool:
        try:
            answer = pool.request(
                "PUT",
                mqtt.diagnostics_url,
                body=json.dumps(document),
                headers={"Content-Type": "application/json"},
                timeout=UPLOAD_S,
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError:
            return Done(False, "not_uploaded")
    return Done(answer.status < 300, "uploaded" if answer.status < 300 else "not_uploaded", {"http": answer.status})
