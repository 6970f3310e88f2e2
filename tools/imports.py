"""The order of the package's layers: prints it with what breaks it, `python tools/imports.py`.

A module imports from its own layer and from those above it in LAYERS, never from below; within a
layer there are no circles. `tests/repository/test_layers.py` holds both. Imports for type checking
alone, and those inside functions, do not count here.
"""

import ast
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

PACKAGE = "semfaceedit"
ROOT = Path(__file__).resolve().parents[1]
LAYERS = (
    ("__init__", "errors", "kernels"),
    ("files", "tensor_files", "memory", "threads", "failures", "usage", "cli", "outputs"),
    ("model",),
    ("data",),
    ("procedural",),
    ("metrics",),
    ("pictures",),
    ("training",),
    ("editing",),
    ("baking",),
    ("parsing",),
    ("options", "api", "machine"),
    ("evaluation",),
    ("web_editor",),
    ("invert",),  # `edit` begins with it where it is given a photograph
)  # and below all of them the other commands, which import none of each other


def modules() -> dict[str, Path]:
    """Every module of the package but the kernels, by its name within it."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        found[".".join(parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that one imports when it is loaded."""
    package = name.split(".")[:-1]
    found = set()
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
        base = [part for part in base if part]
        for alias in node.names:
            inner = ".".join([*base, alias.name])
            outer = ".".join(base) or "__init__"
            if inner in known:
                found.add(inner)
            else:
                found.add(outer if outer in known else f"{outer}.__init__")
    return {"kernels" if module.startswith("kernels") else module for module in found}


def layer(module: str) -> int:
    """The index of a module's layer; commands come last."""
    top = module.split(".")[0]
    for index, names in enumerate(LAYERS):
        if top in names:
            return index
    return len(LAYERS)


def upward() -> list[tuple[str, str]]:
    """Imports of a lower layer by a higher one, and of a command by a command."""
    known = modules()
    last = len(LAYERS)
    wrong = []
    for name, path in known.items():
        for other in imports(name, path, known):
            if layer(other) > layer(name) or layer(other) == layer(name) == last:
                wrong.append((name, other))
    return [pair for pair in wrong if pair[0] != "__main__"]


def circle() -> list[str] | None:
    """A circle of imports, or None."""
    known = modules()
    graph = {name: imports(name, path, known) for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return None


def main() -> int:
    known = modules()
    members = defaultdict(list)
    for name in known:
        members[layer(name)].append(name)
    for index in sorted(members):
        title = ", ".join(LAYERS[index]) if index < len(LAYERS) else "commands"
        print(f"{index:2} {title}: {len(members[index])} modules")
    wrong, around = upward(), circle()
    for name, other in wrong:
        print(f"   against the order: {name} imports {other}")
    if around:
        print(f"   a circle: {' -> '.join(around)}")
    print(f"{len(known)} modules, {len(wrong)} imports against the order, circles: {around or 0}")
    return int(bool(wrong or around))


if __name__ == "__main__":
    sys.exit(main())
