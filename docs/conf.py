"""How Sphinx builds these pages: `make docs`."""

import re
from importlib.metadata import version as installed_version
from typing import Any

project = "Nestor"
author = "The Nestor authors"
copyright = "2026, The Nestor authors"
release = version = installed_version("nestor")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"  # `x` in a docstring is code, as in Markdown

html_theme = "furo"
html_title = "Nestor"


def keep_signs(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Let |x| in a docstring be a norm and *args be arguments; reStructuredText has other plans for both."""
    in_example = False
    for number, line in enumerate(lines):
        in_example = bool(line.strip()) and (in_example or line.lstrip().startswith(">>>"))
        if not in_example:
            pieces = re.split("(`+[^`]*`+)", line)
            pieces[::2] = [re.sub(r"(?<!\\)\||(?<![\w*])\*(?=args)", r"\\\g<0>", p) for p in pieces[::2]]
            lines[number] = "".join(pieces)


def setup(app: Any) -> None:
    """Register what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", keep_signs)
