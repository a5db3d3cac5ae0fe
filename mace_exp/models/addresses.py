"""Sources of models that people copy from elsewhere, and how they are to be written here."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUB = re.compile(
    r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/(?:models/)?|hf://(?:models/)?"
)
_PAGE = re.compile(
    r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)"
    r"(?:/(?P<kind>tree|blob|resolve|raw|commit)/(?P<page>[^/?#]+)|[@:](?P<given>[^/?#]+))?"
    r"(?:/(?P<inner>[^?#]*))?/?(?:[?#].*)?"
)
_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
_WHOLE = ("", "main")
"""Revisions that a hub id without one stands for."""


def corrected(source: str) -> str | None:
    """Return what a source that does not exist as written is, and what to give instead; it
    continues a sentence. None if nothing better is known."""
    bare = source.strip()
    if bare != source and (Path(bare).exists() or HUB_ID.fullmatch(bare)):
        return f"has white space around it: give {bare}"
    cached = _CACHED.fullmatch(bare)
    if cached:
        hub_id = "/".join(cached.groups())
        return f"is the name of a folder in the hub's cache: give the hub id {hub_id}"
    if bare.startswith("file:"):
        path = unquote(re.sub("^file:(//(localhost)?(?=/))?", "", bare))
        return f"is the address of a file: give the path {path}"
    address = _HUB.match(bare)
    if address is None and "://" in bare:
        return (
            "is an address of the network, from which nothing is read: download the model, and "
            "give its folder, or its .safetensors file"
        )
    page = _PAGE.fullmatch(bare[address.end() :] if address else bare)
    return page and _of_page(page, is_address=address is not None)


def _of_page(page: re.Match[str], *, is_address: bool) -> str | None:
    """Return the same for a hub id with more than the hub id, or behind the hub's address."""
    name, revision = page["id"], page["page"] or page["given"] or ""
    inner = "" if page["kind"] == "tree" else (page["inner"] or "").strip("/")
    if not is_address and not page["given"] and inner:
        return None  # a path of three folders
    what = "is the address of a page" if is_address else "is a hub id with more than its name"
    options = "" if revision in _WHOLE else f" --revision {revision}"
    if inner:
        return (
            f"{what}: a file of a repository is read from the disk. Download it (hf download "
            f"{name} {inner}{options} --local-dir DIR), and give DIR/{inner}"
        )
    if options:
        return (
            f"{what}: a hub id is read at its latest revision. Download this one (hf download "
            f"{name}{options} --local-dir DIR), and give DIR"
        )
    return f"{what}: give the hub id {name}"
