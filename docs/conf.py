"""The documentation as a site: `make site` builds it with Sphinx into `build/site`. Every warning fails the build.

The source folder is the repository, because pages link to the READMEs of plugins and examples, which are pages of the
site too.
"""

from configparser import ConfigParser
from pathlib import Path

_METADATA = ConfigParser(interpolation=None)
_METADATA.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")

project = "jimsapi"
author = _METADATA["metadata"]["author"]
project_copyright = author
version = release = _METADATA["metadata"]["version"]

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = [
    "CHANGELOG.md",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/results/*.md",
    "benchmarks/results/second-day/*.md",
    "deploy/README.md",
    "docs/*.md",
    "examples/README.md",
    "examples/**/README.md",
    "plugins/*/README.md",
]
exclude_patterns = [".*", "build", "dist", "**/*.egg-info", "**/__pycache__", "**/build", "**/node_modules"]

myst_heading_anchors = 4
# Blocks that are only indented are commands of a shell, nearly all of them.
highlight_language = "sh"
# Examples shorten JSON and other code with `…`, which their languages do not have.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = f"jimsapi {version}"
templates_path = ["_templates"]
# The address of the site itself leads to the first page.
html_additional_pages = {"index": "redirect.html"}
html_copy_source = False
html_show_sphinx = False
