"""Hooks of MkDocs: the site also has the repository's files to which its pages link, such as the dated reports.

The site is laid out as the repository is, with the content of `docs/` at its root. Links on the way between the two are
changed alike; one to a folder, which a browser could not open, is its text alone. The page of the Python API lists what
`raymc.PUBLIC` names.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PUBLIC = "<!-- what raymc has by name -->"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to, and what the added pages link to, and so on; and the pages of the navigation."""
    unread = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    in_nav = re.findall(r"[\w/.-]+\.md", str(config.nav))
    wanted = {path for path in in_nav if not (ROOT / "docs" / path).exists()}
    while unread or wanted:
        for path in wanted:
            files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
            unread += [path] if path.endswith(".md") else []
        there = {file.src_uri for file in files}
        wanted = {path for path in linked(unread.pop()) if place_of(path) not in there} if unread else set()
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """The page with its links as the site is laid out."""
    uri = page.file.src_uri
    here = uri if page.file.generated_by else f"docs/{uri}"

    def changed(link: re.Match[str]) -> str:
        mark, text, target, anchor = link.groups(default="")
        path = aimed(here, target)
        if (ROOT / path).is_dir():
            return text
        if not (ROOT / path).is_file():
            return link[0]  # an address elsewhere; or broken, which MkDocs says
        return f"{mark}[{text}]({os.path.relpath(place_of(path), os.path.dirname(uri) or '.')}{anchor})"

    return LINK.sub(changed, markdown.replace(PUBLIC, references()))


def references() -> str:
    """An entry for each name that the package imports when it is asked for, then for the classes that these return."""
    names = {}
    for node in parsed("__init__").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PUBLIC":
            names = ast.literal_eval(node.value)
    entries = {f"raymc.{module}.{name}": f"raymc.{name}" for name, module in names.items()}
    for module in names.values():
        found = [node.name for node in parsed(module.replace(".", "/")).body if isinstance(node, ast.ClassDef)]
        for name in found:
            if name not in names and not name.startswith("_"):
                entries[f"raymc.{module}.{name}"] = f"raymc.{module}.{name}"
    options = "options: {{heading: {}, inherited_members: true}}"
    return "\n\n".join(f"::: {path}\n    {options.format(heading)}" for path, heading in entries.items())


def parsed(module: str) -> ast.Module:
    """A file of the package."""
    return ast.parse((ROOT / "raymc" / f"{module}.py").read_text(encoding="utf-8"))


def linked(page: str) -> set[str]:
    """The repository's files, by their paths, that a page links to."""
    found = {aimed(page, link[3]) for link in LINK.finditer((ROOT / page).read_text(encoding="utf-8"))}
    return {path for path in found if (ROOT / path).is_file()}


def aimed(page: str, target: str) -> str:
    """Where a page's link leads, as a path in the repository."""
    return os.path.normpath(os.path.join(os.path.dirname(page), target))


def place_of(path: str) -> str:
    """Where the site has a file of the repository; its first page stands for the README."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")
