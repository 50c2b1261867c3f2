"""What the house tests read: the files of `src/nestor`, its rooms, and their syntax trees."""

import ast
import functools
import importlib.util
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "src" / "nestor"

FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted({path.parent.name for path in PACKAGE.glob("*/*.py")})
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if not path.stem.startswith("__"))


@functools.cache
def tree(path: Path) -> ast.Module:
    """The syntax tree of one file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def label(path: Path) -> str:
    """A path as it reads from the root of the repository, for test ids and messages."""
    return path.relative_to(REPO).as_posix()


def module_name(path: Path) -> str:
    """`src/nestor/trees/_dot.py` is `nestor.trees._dot`; a package goes by its folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_names(module: str, is_package: bool, syntax: ast.AST) -> list[tuple[int, str]]:
    """Every dotted name that a module imports, with its line: `from a import b` gives `a.b`."""
    package = module if is_package else module.rpartition(".")[0]
    found = []
    for node in ast.walk(syntax):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            origin = importlib.util.resolve_name(origin, package)
            found += [(node.lineno, f"{origin}.{alias.name}") for alias in node.names]
    return found
