"""Render a template to one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mace_exp.report import formatting
from mace_exp.utils.files import atomic_file

FILTERS = (
    "percent",
    "signed_percent",
    "interval",
    "quantity",
    "signed",
    "duration",
    "megabytes",
    "moment",
)


@cache
def environment() -> Environment:
    """Return the template environment: escaping on, formatting functions as filters."""
    env = Environment(
        loader=PackageLoader("mace_exp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in FILTERS:
        env.filters[name] = getattr(formatting, name)
    return env


def render(page: str, values: dict[str, Any]) -> str:
    """Render `<page>.html` with inline style and script; the policy forbids everything else.

    `<page>.css` and `<page>.js` are appended to the style and script that all pages share.
    """
    env = environment()
    style = source(env, "style.css") + source(env, f"{page}.css")
    script = source(env, "page.js") + source(env, f"{page}.js")
    return env.get_template(f"{page}.html").render(
        **values, style=Markup(style), script=Markup(script), policy=policy(script)
    )


def source(env: Environment, name: str) -> str:
    """Return the text of a template file, unrendered."""
    assert env.loader is not None
    return env.loader.get_source(env, name)[0]


def policy(script: str) -> str:
    """Return a content security policy: only this script and inline images, nothing external."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def save(path: Path, text: str) -> Path:
    """Write the page atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return path
