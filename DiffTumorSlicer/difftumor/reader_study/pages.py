"""HTML pages of the coordinator: one file each, nothing loaded from outside, pictures inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from difftumor.provenance import LEGAL_NOTICE

NOTICE = (
    "This study contains SYNTHETIC images among real ones. Research use only: never for diagnosis."
)
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}"
    "h1{font-size:1.7rem;margin-bottom:.3rem}h2{font-size:1.2rem;margin-top:2rem}"
    "img{max-width:100%;border:1px solid #ddd}table{border-collapse:collapse;margin:.6rem 0;font-size:.92rem}"
    "th,td{border-bottom:1px solid #ddd;padding:.3rem .7rem;text-align:left;vertical-align:top}"
    "th{border-bottom:2px solid #888}td{font-variant-numeric:tabular-nums}"
    ".notice{background:#fff3cd;padding:.7rem 1rem;border-left:4px solid #d39e00}"
    ".good{background:#e3f3e6;padding:.7rem 1rem;border-left:4px solid #2e7d32}"
    ".bad{background:#fde4e1;padding:.7rem 1rem;border-left:4px solid #b3261e}"
    ".quiet{color:#555;font-size:.92rem}.scroll{overflow-x:auto}.whole :not(:last-child){white-space:nowrap}"
    "tr.head td{background:#f3f5f7;font-weight:600}"
)


def page(title: str, notice: str, sections: Sequence[str]) -> str:
    """A whole page.

    Args:
        title: plain text; the legal notice is added.
        notice: likewise.
        sections: HTML.
    """
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>"
        "<meta name='viewport' content='width=device-width'>"
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<p class='notice'>{html.escape(notice)} {html.escape(LEGAL_NOTICE)}</p>"
        f"{''.join(sections)}</html>\n"
    )


def heading(text: str) -> str:
    """A section begins."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """Plain text; `kind` is a class of STYLE."""
    opening = f"<p class='{kind}'>" if kind else "<p>"
    return f"{opening}{html.escape(text)}</p>"


def table(rows: Sequence[Sequence[str]], *, sentences: bool = False) -> str:
    """A table of plain texts, the first row its head; a row of one text is a heading within the table.

    Args:
        sentences: cells hold some, and may break; otherwise only those of the last column do.
    """
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in rows[0])
    body = []
    for row in rows[1:]:
        if len(row) == 1:
            body.append(
                f"<tr class='head'><td colspan='{len(rows[0])}'>{html.escape(row[0])}</td></tr>"
            )
        else:
            body.append(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>")
    kind = "" if sentences else " class='whole'"
    return f"<div class='scroll'><table{kind}><tr>{head}</tr>{''.join(body)}</table></div>"


def picture(path: Path, words: str) -> str:
    """A PNG inside the page, with words for those who do not see it."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f"<img src='data:image/png;base64,{data}' alt='{html.escape(words, quote=True)}'>"
