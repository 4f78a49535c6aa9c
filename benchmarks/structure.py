"""Measure the structure of the source tree: lines, files, and names with two meanings.

Run from the root of a checkout: ``python benchmarks/structure.py [SRC]``.
"""

import ast
import collections
import sys
from pathlib import Path

LANGUAGES = (".py", ".cpp", ".js", ".css", ".html", ".j2", ".jinja")


def defined(path: Path) -> set[str]:
    """Return the names that a module defines at its top level, private ones and mains aside."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return {name for name in names if not name.startswith("_")}


def main() -> None:
    """Print the measures of the tree below the first argument, by default ``src``."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "src")
    files = [path for path in root.rglob("*") if path.suffix in LANGUAGES]
    lines = collections.Counter[str]()
    for path in files:
        lines[path.suffix] += len(path.read_text().splitlines())
    modules = [path for path in files if path.suffix == ".py"]
    by_name = collections.Counter(name for path in modules for name in defined(path))
    twice = sorted(name for name, count in by_name.items() if count > 1)
    print(f"lines in {root}: {sum(lines.values())} ({dict(lines)})")
    print(f"Python files: {len(modules)}")
    print(f"names defined in two modules or more: {len(twice)}")
    print("  " + ", ".join(f"{name} ({by_name[name]})" for name in twice))


if __name__ == "__main__":
    main()
