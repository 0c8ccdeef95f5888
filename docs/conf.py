"""The site: `./dev docs` builds it into build/site, and a warning is an error."""

project = "KeyDNN"
author = copyright = "The KeyDNN authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["design/README.md"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {"description": "A deep learning engine written to be read", "page_width": "1100px", "fixed_sidebar": True}
html_show_sphinx = False
autodoc_typehints = "none"  # signatures stay short; types stand in the Args of each docstring
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["myst.header"]
