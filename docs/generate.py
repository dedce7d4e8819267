"""Write what the documentation derives from the code: JSON Schemas, the deployment states, TFLite's operators.

python docs/generate.py            writes
python docs/generate.py --check    exits 1 where a file is stale
"""

import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec

from converters.importers.tflite.table import RULES
from converters.inspect import Inspection
from converters.tflite.versions import MAXIMA
from converters.write.tflite import ops  # noqa: F401 - fills the table
from converters.write.tflite.table import TABLE
from device_agent.core.deployment import MOVES
from lepton_edge.bundle.manifest import Manifest
from lepton_edge.wire.authenticator import Header
from lepton_edge.wire.enrolment import Enrolment
from lepton_edge.wire.goal import Goal, SignedGoal
from lepton_edge.wire.messages import BODIES, TERMINAL, ManagerStatus

DOCS = Path(__file__).parent
SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "manifest": Manifest,
    "goal": Goal,
    "signed-goal": SignedGoal,
    "enrolment": Enrolment,
    "authenticator": Header,
    "manager-status": ManagerStatus,
    "inspection": Inspection,
    **{kind.value: body for kind, body in BODIES.items()},
}


def schema(kind: type[msgspec.Struct]) -> str:
    document = msgspec.json.encode(msgspec.json.schema(kind), order="deterministic")
    return msgspec.json.format(document, indent=2).decode() + "\n"


def states() -> str:
    """The table MOVES as a Mermaid diagram."""
    lines = [
        "# The deployment states",
        "",
        "Drawn from the table in device_agent/core/deployment.py by docs/generate.py. An arrow's label is the event;",
        "what a restart does to a state is left out where it begins that state again.",
        "",
        "```mermaid",
        "stateDiagram-v2",
        "    [*] --> pending",
    ]
    for (state, event), move in MOVES.items():
        target = move.state.value if move.state else "the state before"
        if target == state.value:
            continue
        lines.append(f"    {_node(state.value)} --> {_node(target)}: {event.value}")
    lines += [f"    {_node(state.value)} --> [*]" for state in sorted(TERMINAL)]
    return "\n".join([*lines, "```", ""])


def _node(name: str) -> str:
    return name.replace("-", "_").replace(" ", "_")


def operators() -> str:
    """What the TFLite writer and reader know, from their tables."""
    int8 = {name for name, rows in TABLE.items() if any(entry.int8 for entry in rows.values())}
    old = MAXIMA["tflite-runtime"]
    lines = [
        "# TFLite: which operators",
        "",
        "Drawn from the tables of the writer, the reader and the versions by docs/generate.py. A name here says that",
        "there is a form, not that every use has one: what cannot be said is refused with the reason",
        "([tflite.md](tflite.md)).",
        "",
        f"## Written: {len(TABLE)} operators of ONNX, in the canonical graph",
        "What other operators the importers and the canonical form turn into these is written too.",
        "",
        f"**In int8, and in float ({len(int8)}):** {_listed(int8)}.",
        "",
        f"**In float or whole numbers ({len(TABLE) - len(int8)}):** {_listed(set(TABLE) - int8)}.",
        "",
        f"## Read: {len(RULES)} operators of TFLite",
        f"{_listed(RULES)}.",
        "",
        "## In LiteRT and not in tflite-runtime 2.14",
        f"{_listed(code for code in MAXIMA['litert'] if code not in old)}.",
    ]
    return "\n".join([*lines, ""])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def pages() -> dict[Path, str]:
    found = {DOCS / "schema" / f"{name}.json": schema(kind) for name, kind in SCHEMAS.items()}
    return found | {DOCS / "deployment-states.md": states(), DOCS / "tflite-operators.md": operators()}


def main() -> None:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(path.name for path in stale)}; run python docs/generate.py" if stale else 0)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(pages()[path])


if __name__ == "__main__":
    main()
