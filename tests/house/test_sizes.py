"""A mirror, not a gate: where ours stand out. Run with `-rP` to look into it.

In the calmest codebases of the field functions stay under about 60 lines, files under 400 and
arguments under 7. Only what is twice as long or worse fails.
"""

import ast

from tests.house.source import FILES, label, tree

LONGEST_FUNCTION = 120
LONGEST_FILE = 600


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function without its docstring, which is welcome to be long."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = first.end_lineno - first.lineno + 1 if documented else 0
    return node.end_lineno - node.lineno + 1 - docstring


def look(kind: str, sizes: list[tuple[int, str]], calm: int) -> None:
    """Print the five largest, and mark those which are larger than in a calm codebase."""
    for size, what in sorted(sizes, reverse=True)[:5]:
        print(f"{kind} {size:5d} {'!' if size > calm else ' '} {what}")


def test_functions():
    sizes, arguments = [], []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                what = f"{label(path)}:{node.lineno} {node.name}"
                signature = node.args
                count = len(signature.posonlyargs + signature.args + signature.kwonlyargs)
                sizes.append((body_lines(node), what))
                arguments.append((count, what))
    look("lines", sizes, 60)
    look("arguments", arguments, 7)
    too_long = [what for size, what in sizes if size > LONGEST_FUNCTION]
    assert not too_long, f"over {LONGEST_FUNCTION} lines: {too_long}"


def test_files():
    sizes = [(len(path.read_text(encoding="utf-8").splitlines()), label(path)) for path in FILES]
    look("lines", sizes, 400)
    too_long = [what for size, what in sizes if size > LONGEST_FILE]
    assert not too_long, f"over {LONGEST_FILE} lines: {too_long}"
