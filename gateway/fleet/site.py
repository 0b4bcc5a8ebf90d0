"""From a request to a page: the table of addresses."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.resources import files
from urllib.parse import urlsplit

from gateway.fleet.alarms_page import alarms_page
from gateway.fleet.box_page import box_page, past_of
from gateway.fleet.exporter import CONTENT_TYPE, Exporter
from gateway.fleet.fleet_page import fleet_page
from gateway.fleet.inventory import Inventory
from gateway.fleet.markup import h
from gateway.fleet.operators import MAX_NAME, Denied, Operators
from gateway.fleet.page import View, whole
from gateway.fleet.rollout_page import rollout_page
from gateway.fleet.server import Request, Response
from gateway.fleet.settings import ThresholdSettings
from gateway.fleet.store import History, Store
from gateway.fleet.subscriber import Line
from gateway.fleet.waves import Progress

STATIC = {
    "fleet.css": "text/css; charset=utf-8",
    "fleet.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Site:
    """Answers requests; threads may share it."""

    def __init__(
        self,
        inventory: Inventory,
        lines: list[Line],
        store: Store,
        history: History,
        exporter: Exporter,
        operators: Operators,
        thresholds: ThresholdSettings,
        progress: Callable[[], list[Progress]],
    ) -> None:
        """`progress` is asked while the inventory is locked."""
        self._inventory = inventory
        self._lines = lines
        self._store = store
        self._history = history
        self._exporter = exporter
        self._operators = operators
        self._thresholds = thresholds
        self._progress = progress
        self._static = {name: files("gateway.fleet").joinpath("static", name).read_bytes() for name in STATIC}
        self._posts: dict[str, Callable[[Request], Response]] = {
            "/sign-in": self._sign_in,
            "/sign-out": self._sign_out,
            "/acknowledge": self._acknowledge,
        }

    def answer(self, request: Request) -> Response:
        """Answer one request."""
        if request.method != "POST":
            return self._look(request)
        post = self._posts.get(request.path)
        if post is None:
            return self._plain(request, 405, "This address takes no form.")
        try:
            return post(request)
        except Denied as error:
            return self._plain(request, 403, error.detail)

    def _view(self, request: Request) -> View:
        operators = self._operators
        return View(
            path=request.path,
            query=request.query,
            lines=self._lines,
            thresholds=self._thresholds,
            now=time.monotonic(),
            wall=time.time(),
            operator=operators.name(request),
            way_in=operators.way_in(request),
            form_token=operators.form_token(request),
            store_fault=self._store.reason,
        )

    def _look(self, request: Request) -> Response:
        path, view = request.path, self._view(request)
        if path == "/metrics":
            return Response(self._exporter.text(), CONTENT_TYPE)
        if path.startswith("/static/") and path[8:] in STATIC:
            name = path[8:]
            return Response(self._static[name], STATIC[name], headers={"Cache-Control": "max-age=600"})
        if path == "/sign-in":
            return Response(_sign_in_page(view))
        if path.startswith("/box/"):
            return self._box(request, view)
        with self._inventory.lock:
            boxes = list(self._inventory.boxes.values())
            if path == "/":
                return Response(fleet_page(boxes, view, self._progress()))
            if path == "/alarms":
                return Response(alarms_page(boxes, view))
            if path == "/rollout":
                return Response(rollout_page(boxes, view, self._progress()))
        return self._plain(request, 404, "There is no such page.")

    def _box(self, request: Request, view: View) -> Response:
        tenant, _, name = request.path.removeprefix("/box/").partition("/")
        past = past_of((tenant, name), self._history, view)
        with self._inventory.lock:
            box = self._inventory.boxes.get((tenant, name))
            if box is None:
                return self._plain(request, 404, "No such box has been heard of.")
            return Response(box_page(box, past, view))

    def _plain(self, request: Request, status: int, sentence: str) -> Response:
        title = "Not done" if status != 404 else "Not found"
        return Response(whole(self._view(request), title, h("p", sentence)), status=status)

    def _sign_in(self, request: Request) -> Response:
        return _see_other("/alarms", self._operators.sign_in(request))

    def _sign_out(self, request: Request) -> Response:
        return _see_other("/", self._operators.sign_out(request))

    def _acknowledge(self, request: Request) -> Response:
        who, form = self._operators.check(request), request.form
        key = (form.get("tenant", ""), form.get("box", ""))
        with self._inventory.lock:
            done = self._inventory.acknowledge(key, form.get("code", ""), form.get("since", ""), who, time.time())
        if not done:
            return self._plain(request, 409, "This alarm does not hold any more.")
        back = form.get("back", "/alarms")
        parts = urlsplit(back)
        ours = back.startswith("/") and not back.startswith(("//", "/\\")) and not parts.netloc and back.isprintable()
        return _see_other(back if ours else "/alarms")


def _see_other(where: str, cookie: str = "") -> Response:
    headers = {"Location": where, "Cache-Control": "no-store", **({"Set-Cookie": cookie} if cookie else {})}
    return Response(status=303, headers=headers)


def _sign_in_page(view: View) -> bytes:
    if not view.way_in:
        sentence = (
            "Nobody can sign in from here: no operator token is configured, and this is not the monitor's machine."
        )
        return whole(view, "Sign in", h("p", sentence))
    name = h(
        "input", name="name", id="name", required=True, maxlength=MAX_NAME, autocomplete="username", autofocus=True
    )
    token = h("input", name="token", id="token", type="password", required=True, autocomplete="current-password")
    return whole(
        view,
        "Sign in",
        h("p", "Who acknowledges an alarm is written down with it."),
        h(
            "form",
            h("label", h("span", "Your name"), name),
            h("label", h("span", "Operator token"), token) if view.way_in == "token" else "",
            h("button", "Sign in", type="submit"),
            method="post",
            action="/sign-in",
            class_="filter",
        ),
    )
