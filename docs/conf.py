"""Sphinx: pages in MyST Markdown, warnings are errors (see the Makefile)."""

import tomllib
from pathlib import Path

_project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]

project = "Pullback"
version = release = _project["version"]
copyright = "the Pullback authors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"Pullback {release}"
nitpicky = True
