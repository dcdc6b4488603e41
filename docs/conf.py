"""Sphinx configuration."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "npusim"
author = "the npusim developers"
extensions = ["myst_parser", "npusim_reference"]
html_theme = "furo"
html_title = "npusim"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
html_static_path = ["_static"]
html_css_files = ["wide.css"]
smartquotes = False  # they turn --out into a dash
html_show_copyright = False
