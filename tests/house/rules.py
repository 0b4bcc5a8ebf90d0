"""The rules of the house, each a function from source to complaints, so that each can be shown to fail."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOOR = {
    "model": 0,
    **dict.fromkeys(("config", "dicom", "identity"), 1),
    "spool": 2,
    **dict.fromkeys(("admit", "route", "prepare", "retire"), 3),
    **dict.fromkeys(("arrive", "send", "confirm", "worklist", "health", "onsite"), 4),
    **dict.fromkeys(("console", "fleet", "emulator"), 5),
    **dict.fromkeys(
        (
            "__main__",
            "__init__",
            "cli",
            "app",
            "supervisor",
            "control",
            "actions",
            "report",
            "vitals",
            "remote",
            "trial",
        ),
        6,
    ),
}
OWNERS = {
    "sqlite3": {
        "spool/ledger.py",
        "spool/ledger_reader.py",
        "spool/rows.py",
        "spool/promises.py",
        "spool/announced.py",
        "fleet/store.py",
    },
    "SSLContext(": {"identity/tls.py", "emulator/link.py"},
    ".listen(": {"dicom/listener.py", "control.py", "identity/web_door.py"},
    "create_server(": {"emulator/wan.py", "emulator/acceptor.py"},
    "threading.Thread(": {"supervisor.py"},
}
ONLY = {"emulator": {"model"}, "fleet": {"model", "config", "identity", "spool"}}
"""What is to judge or to watch a gateway shares with it the words and the tools, and no more."""
BROAD = {"supervisor.py": 1, "dicom/association.py": 1, "identity/bounded_mqtt.py": 1}
ROLLBACK = {"spool/ledger.py", "app.py", "send/folder.py", "fleet/store.py"}
"""`except BaseException` that takes something back and raises again."""
MAX_FILE_LINES, MAX_FUNCTION_LINES = 500, 60


def sources() -> dict[str, str]:
    """Path below gateway/ -> text."""
    package = ROOT / "gateway"
    return {str(path.relative_to(package)): path.read_text() for path in sorted(package.rglob("*.py"))}


def room(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def floor_faults(name: str, text: str) -> list[str]:
    faults, own = [], room(name)
    for node in ast.walk(ast.parse(text)):
        modules = []
        if isinstance(node, ast.ImportFrom) and node.module:
            modules = [node.module]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        for module in modules:
            parts = module.split(".")
            if parts[0] != "gateway" or len(parts) < 2 or parts[1] == own:
                continue
            higher = FLOOR[parts[1]] > FLOOR[own]
            beside = FLOOR[parts[1]] == FLOOR[own] and FLOOR[own] not in (1, 6)
            if higher or beside or parts[1] not in ONLY.get(own, FLOOR):
                faults.append(f"{name} imports {module}")
    return faults


def owner_faults(name: str, text: str) -> list[str]:
    code = ast.unparse(ast.parse(text))
    return [
        f"{name} uses {word}"
        for word, owners in OWNERS.items()
        if word in code and name not in owners and not (room(name) == "emulator" and "Thread" in word)
    ]


def size_faults(name: str, text: str) -> list[str]:
    faults = [f"{name} has {text.count(chr(10))} lines"] if text.count("\n") > MAX_FILE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES:
            faults.append(f"{name}:{node.lineno} {node.name} is too long")
    return faults


def annotation_faults(name: str, text: str) -> list[str]:
    faults = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            if bare or node.returns is None:
                faults.append(f"{name}:{node.lineno} {node.name} is not annotated: {bare}")
    return faults


def broad_faults(name: str, text: str) -> list[str]:
    broad = {"Exception": 0, "BaseException": 0, "": 0}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            kind = ast.unparse(node.type) if node.type else ""
            if kind in broad:
                raises = isinstance(node.body[-1], ast.Raise)
                if (kind == "BaseException" and raises and name in ROLLBACK) or (
                    raises and kind == "BaseException" and name == "spool/ledger.py"
                ):
                    continue
                broad[kind] += 1
    return [f"{name} catches too much"] if sum(broad.values()) > BROAD.get(name, 0) else []
