"""How Sphinx makes the site from the Markdown of this repository: `make docs`. Nothing on a page is fetched from elsewhere: it opens offline."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

project = "brokerlens"
author = "The brokerlens authors"
release = re.search(r'version = "(.+?)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))[1]

# The source folder is the repository's own: links between pages are the same on the site as where the files are read as they are.
root_doc = "docs/index"
extensions = ["myst_parser"]
include_patterns = ["README.md", "docs/*.md", "config/README.md", "benchmarks/README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
exclude_patterns = [".*", "results*", "resources", "workflow", "tests"]
suppress_warnings = ["misc.highlighting_failure"]  # display filters and drawings are in no language

myst_heading_anchors = 4

html_theme = "furo"
html_title = f"brokerlens {release}"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
