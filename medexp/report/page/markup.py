"""What the HTML pages share: the frame, its policy, escaping and style (page.css).

A page is one file that needs no network and can reach none: its own policy allows no address but
`data:`, and no script but the one it was written with.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
    "style-src 'unsafe-inline'"
)


def escaped(value: object) -> str:
    """Escaped, whatever stands in an id: surrogates of undecodable file names too."""
    return escape(str(value).encode("utf-8", "replace").decode())


def document(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page around the content of its <main>.

    style: CSS beside page.css; script: the one that the policy lets run, by its digest.
    """
    policy = _POLICY
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        script = f"<script>{script}</script>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escaped(title)}</title>\n<style>{packaged('page.css')}{style}</style>\n"
        f"</head>\n<body>\n<main>\n{body}\n</main>\n{script}</body>\n</html>\n"
    )


def packaged(name: str) -> str:
    """The text of a file beside this module."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def section(title: str, content: str, anchor: str = "") -> str:
    """A section under a heading; nothing where there is no content."""
    name = f' id="{anchor}"' if anchor else ""
    return f"<section{name}><h2>{title}</h2>{content}</section>" if content else ""


def bullets(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escaped(item)}</li>' for item in items)}</ul>" if items else ""


def banners(marks: Mapping[str, str]) -> str:
    """What restricts the numbers of a page, with its reason: PHANTOM and the like."""
    lines = ""
    for mark, reason in marks.items():
        kind = "mark phantom" if mark == "PHANTOM" else "mark"
        lines += f'<p class="{kind}"><strong>{escaped(mark)}</strong> {escaped(reason)}</p>'
    return lines
