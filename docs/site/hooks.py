"""What mkdocs.yml cannot say: every public name has a docstring and a place, and links out of docs/ lead somewhere."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

import griffe
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

# As a part of mkdocs, whose warnings end a strict build.
LOG = logging.getLogger("mkdocs.hooks.csk")
ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {"csk_sdk": "sdk", "csk_artifacts_builder": "artifacts_builder"}
# Where files of the repository that the pages link to are in the site.
SOURCE = "source"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
# What searching needs in pages opened from the disk: Material's `offline` plugin takes it from a CDN.
SHIM = re.compile(r'src="https?://[^"]*/iframe-worker/shim"')
FETCHED = re.compile(r"""<(?:script|img|iframe|link)[^>]*?(?:src|href)="?(https?://[^"\s>]+)""")
REFERENCE = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """The decisions stand in the navigation in their order, by what their files are called."""
    decisions = sorted(Path(config.docs_dir, "decisions").glob("[0-9]*.md"))
    for section in config.nav:
        for entry in section.get("Explanation", ()) if isinstance(section.get("Explanation"), list) else ():
            if "Decisions" in entry:
                entry["Decisions"] += [f"decisions/{page.name}" for page in decisions]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Whatever a page links to outside docs/ is copied into the site; folders are left to their README."""
    linked = {
        target for file in files.documentation_pages() for target in _outside(file.src_uri, ROOT / "docs")
    }
    pending = sorted(linked)
    while pending:
        target = pending.pop()
        file = File.generated(config, f"{SOURCE}/{target}", abs_src_path=str(ROOT / target))
        files.append(file)
        if file.is_documentation_page():
            more = set(_outside(file.src_uri, ROOT / "docs")) - linked
            linked |= more
            pending += sorted(more)
    _require_documented(files)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links are written for the repository; here they lead to where its files are in the site."""
    uri = page.file.src_uri

    def moved(match: re.Match[str]) -> str:
        target, anchor = match[1], match[2] or ""
        there = _in_site(_in_repository(uri, target))
        return relpath(there, Path(uri).parent.as_posix()) + anchor

    return "".join(
        part if part.startswith("```") else LINK.sub(moved, part)
        for part in re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    )


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Nothing is fetched from elsewhere when a page is read."""
    return _self_contained(
        output, relpath("site/iframe-worker.js", Path(page.url).parent.as_posix()), page.url
    )


def on_post_template(output: str, template_name: str, **_: Any) -> str:
    """The same of pages that are made of no Markdown: 404.html, which a server shows at any depth."""
    return _self_contained(output, "/site/iframe-worker.js", template_name)


def _self_contained(page: str, shim: str, name: str) -> str:
    """Warn, and so end the build, of whatever the page would fetch."""
    page = SHIM.sub(f'src="{shim}"', page)
    for fetched in FETCHED.findall(page):
        LOG.warning("%s fetches %s", name, fetched)
    return page


def _outside(uri: str, docs: Path) -> list[str]:
    """The files of the repository outside docs/ that a page links to."""
    path = ROOT / _of_repository(uri)
    targets = (_in_repository(uri, target) for target, _ in LINK.findall(path.read_text(encoding="utf-8")))
    return [target for target in targets if not target.startswith("docs/") and (ROOT / target).is_file()]


def _of_repository(uri: str) -> str:
    return uri.removeprefix(f"{SOURCE}/") if uri.startswith(f"{SOURCE}/") else f"docs/{uri}"


def _in_repository(uri: str, target: str) -> str:
    return normpath(f"{Path(_of_repository(uri)).parent.as_posix()}/{target}")


def _in_site(path: str) -> str:
    if path == "docs/decisions":
        path = "docs/decisions/README.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{SOURCE}/{path}"


def _require_documented(files: Files) -> None:
    """Warn, and so end the build, of every public name without a docstring or a place in the reference."""
    pages = [Path(file.abs_src_path).read_text(encoding="utf-8") for file in files.documentation_pages()]
    shown = {name for page in pages for name in REFERENCE.findall(page)}
    for package, folder in PACKAGES.items():
        module = griffe.load(
            package, search_paths=[ROOT / folder], allow_inspection=False, resolve_aliases=True
        )
        for name in sorted(module.exports or ()):
            if f"{package}.{name}" not in shown:
                LOG.warning("%s.%s is public, and no page under docs/api shows it", package, name)
            for problem in undocumented(_target(module[name]), f"{package}.{name}"):
                LOG.warning("%s", problem)


def undocumented(named: Any, path: str) -> list[str]:
    """What lacks a docstring: the object, its public methods and properties, fields that no docstring names."""
    problems = [] if named.has_docstring else [f"{path} has no docstring"]
    if not named.is_class:
        return problems
    text = named.docstring.value if named.has_docstring else ""
    inherited = {name: _target(member) for name, member in named.inherited_members.items()}
    for name, member in {**inherited, **named.members}.items():
        if name.startswith("_") or member.is_alias:
            continue
        is_field = member.is_attribute and "property" not in member.labels
        if not (member.has_docstring or (is_field and f"`{name}`" in text)):
            problems.append(f"{path}.{name} has no docstring")
    return problems


def _target(named: Any) -> Any:
    # Members that are seen through an import are aliases, too, like those that a class body imports.
    return named.final_target if named.is_alias else named
