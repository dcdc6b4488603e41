"""Sphinx configuration."""

project = "npusim"
author = "the npusim developers"
extensions = ["myst_parser"]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
