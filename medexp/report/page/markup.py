"""What the HTML pages share: templates that escape, and the policy of a page.

A page is one file that needs no network and can reach none: its own policy allows no address but
`data:`, and no script but the one it was written with. Every value that a template prints is
escaped, unless it is Markup already.
"""

import base64
import hashlib
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    "style-src 'unsafe-inline'"
)


@cache
def templates() -> Environment:
    """The templates beside this module. A name that is not there raises, and nothing is trusted."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        finalize=_printable,
    )


def _printable(value: Any) -> Any:
    """Surrogates of undecodable file names cannot be written as UTF-8."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return value.encode("utf-8", "replace").decode()
    return value


def escaped(value: object) -> str:
    """Escaped, whatever stands in an id: surrogates of undecodable file names too."""
    return escape(str(value).encode("utf-8", "replace").decode())


def rendered(
    template: str, *, title: str, styles: tuple[str, ...], script: str = "", **values: Any
) -> str:
    """A whole page from a template that extends document.html.j2.

    styles: names of CSS files beside this module; script: text of the one script that the policy
    lets run, by its digest.
    """
    policy = _POLICY
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
    style = "".join(map(packaged, styles))
    page = templates().get_template(template)
    return page.render(title=title, style=style, script=script, policy=policy, **values)


def packaged(name: str) -> str:
    """The text of a file beside this module."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
