"""The parts of a self-contained HTML page: sections, tables that sort, and origins that open on a click."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path


@dataclass(frozen=True)
class Html:
    """Text that is HTML already; any other text is escaped where it enters the page."""

    text: str


@dataclass(frozen=True)
class Datum:
    """A cell of a table.

    Attributes:
        shown: what stands in the cell.
        order: what it is sorted by; the text itself where None.
        share: length of the bar behind it, in [0, 1]; None for no bar.
        heat: depth of the colour behind it, in [0, 1]; None for none.
        strong: whether it stands out.
    """

    shown: str | Html
    order: float | str | None = None
    share: float | None = None
    heat: float | None = None
    strong: bool = False


Line = list[Datum | str]


def html(value: str | Html) -> str:
    """`value` as HTML."""
    return value.text if isinstance(value, Html) else escape(value)


def number(value: float | None, form: str = ",.0f", share: float | None = None) -> Datum:
    """A number in a table; a dash, sorted last, where there is none."""
    return Datum("–", float("-inf")) if value is None else Datum(f"{value:{form}}", value, share)


def _cell(datum: Datum, numeric: bool) -> str:
    found = {"num": numeric, "strong": datum.strong}
    found |= {"bar": datum.share is not None, "heat": datum.heat is not None}
    classes = [name for name, on in found.items() if on]
    attributes = f' class="{" ".join(classes)}"' if classes else ""
    if datum.order is not None:
        attributes += f' data-order="{escape(str(datum.order))}"'
    if datum.share is not None:
        attributes += f' style="--share:{100 * datum.share:.1f}%"'
    elif datum.heat is not None:
        attributes += f' style="--heat:{3 + 22 * datum.heat:.1f}%"'
    return f"<td{attributes}>{html(datum.shown)}</td>"


def table(heads: Sequence[str], rows: Iterable[Line], *, labels: int = 1, search: str = "", tall: bool = False) -> Html:
    """A table whose columns sort on a click, in a box that scrolls sideways.

    Args:
        heads: of the columns.
        rows: a datum for each column.
        labels: how many columns at the left hold text; the others hold numbers.
        search: what the field above it asks for; empty for no field.
        tall: whether it has so many rows that it scrolls downwards in itself.
    """
    head = "".join(
        f'<th{" class=num" if i >= labels else ""}><button type="button" class="sort">{escape(name)}</button></th>'
        for i, name in enumerate(heads)
    )
    body = "".join(
        "<tr>"
        + "".join(_cell(d if isinstance(d, Datum) else Datum(d), i >= labels) for i, d in enumerate(row))
        + "</tr>"
        for row in rows
    )
    field = f'<input type="search" class="search" placeholder="{escape(search)}" aria-label="{escape(search)}">'
    inner = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    box = f'<div class="scroll{" tall" if tall else ""}">{inner}</div>'
    return Html(f'<div class="tablebox">{field if search else ""}{box}</div>')


def definitions(pairs: Iterable[tuple[str, str | Html]]) -> Html:
    """Names and their values, one below the other."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{html(value)}</dd>" for name, value in pairs)
    return Html(f"<dl>{items}</dl>")


def opener(key: str, shown: str | Html) -> Html:
    """A button that opens the `popover` of the same key."""
    return Html(f'<button type="button" class="open" popovertarget="{escape(key)}">{html(shown)}</button>')


def popover(key: str, title: str, body: Html) -> Html:
    """A box that `opener` opens; it works without a script."""
    close = f'<button type="button" class="close" popovertarget="{escape(key)}" aria-label="close">×</button>'
    return Html(f'<div popover id="{escape(key)}" class="origin">{close}<h3>{escape(title)}</h3>{body.text}</div>')


def folded(title: str, body: Html, *, open_: bool = False) -> Html:
    """A part that unfolds on a click."""
    return Html(f"<details{' open' if open_ else ''}><summary>{escape(title)}</summary>{body.text}</details>")


def paragraphs(texts: Iterable[str]) -> Html:
    """A list of remarks; nothing where there are none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return Html(f'<ul class="notes">{items}</ul>' if items else "")


def picture(path: Path, caption: str) -> Html:
    """A PNG, held in the page itself."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    name = escape(caption)
    image = f'<img src="data:image/png;base64,{data}" alt="{name}">'
    return Html(f'<figure class="plot"><figcaption>{name}</figcaption>{image}</figure>')


def join(parts: Iterable[Html | str]) -> Html:
    """Parts, one after the other; text is taken as HTML."""
    return Html("".join(part.text if isinstance(part, Html) else part for part in parts))


def plots(parts: Iterable[Html | str]) -> Html:
    """Plots side by side, as many as fit."""
    return Html(f'<div class="plots">{join(parts).text}</div>')


def code(value: object) -> Html:
    """A hash, a path: in a typeface of even width."""
    return Html(f"<code>{escape(str(value))}</code>")


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and a place in the list at the top."""

    key: str
    title: str
    body: Html


def page(title: str, lead: Html, sections: Sequence[Section]) -> str:
    """The whole page; it refers to nothing outside itself."""
    links = "".join(f'<a href="#{section.key}">{escape(section.title)}</a>' for section in sections)
    parts = "".join(
        f'<section id="{section.key}"><h2>{escape(section.title)}</h2>{section.body.text}</section>'
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<header><h1>{escape(title)}</h1>{lead.text}</header>\n<nav>{links}</nav>\n"
        f"<main>{parts}</main>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


_STYLE = """
:root{--bg:#f6f7f9;--card:#fff;--fg:#1b2330;--muted:#5d6878;--line:#dfe3e9;--accent:#2563c9;
--k0:#2563c9;--k1:#d9622b;--k2:#2a9261;--k3:#8a4fc7;--k4:#b3892a;--k5:#5d6878}
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1a2028;--fg:#e4e8ee;--muted:#97a3b3;--line:#2f3844;
--accent:#7aa9f7;--k0:#7aa9f7;--k1:#f0935f;--k2:#63c596;--k3:#bd94ec;--k4:#dbb65c;--k5:#97a3b3}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:3.4rem}
body{margin:0;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
header,main{max-width:1240px;margin:0 auto;padding:0 20px}
header{padding-top:28px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 .6rem}
h2{font-size:1.2rem;margin:0 0 .7rem}
h3{font-size:1rem;margin:.2rem 2rem .6rem 0}
a{color:var(--accent)}
nav{position:sticky;top:0;z-index:5;display:flex;gap:18px;overflow-x:auto;white-space:nowrap;background:var(--bg);
border-bottom:1px solid var(--line);margin:14px 0 18px;padding:9px max(20px,calc((100% - 1200px)/2))}
nav a{text-decoration:none;color:var(--muted)}
nav a:hover{color:var(--accent)}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;margin:0 0 20px}
.headline{font-size:1.08rem;margin:0 0 1rem;max-width:62rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:10px 14px}
.tile b{display:block;font-size:1.35rem;line-height:1.3}
.tile span,.notes,.legend,figcaption,summary,.muted{color:var(--muted);font-size:.87rem}
.notes{padding-left:1.1rem;margin:.8rem 0 0}
.scroll{overflow-x:auto}
.tall{max-height:70vh;overflow-y:auto}
.tall th{position:sticky;top:0;background:var(--card);z-index:2}
.tall th:first-child{z-index:3}
table{border-collapse:collapse;width:100%;font-size:.93rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:5px 8px;border-bottom:1px solid var(--line);white-space:nowrap;vertical-align:top}
th.num,td.num{text-align:right}
th{border-bottom-width:2px;font-weight:600}
th:first-child,td:first-child{position:sticky;left:0;background:var(--card);z-index:1}
tbody tr:hover td{background:color-mix(in srgb,var(--accent) 7%,var(--card))}
td.strong{font-weight:700}
td.bar{background:linear-gradient(90deg,color-mix(in srgb,var(--accent) 17%,transparent) var(--share),transparent 0)
left bottom/100% 100% no-repeat}
td.heat{background:color-mix(in srgb,var(--accent) var(--heat),var(--card))}
td small{display:block;color:var(--muted);font-weight:400;font-size:.78rem}
button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer}
button.sort{font-weight:600;white-space:nowrap}
.sort::after,th.num .sort::before{content:"";display:inline-block;width:.9em;color:var(--accent)}
th.num .sort::after{width:0}
th[aria-sort=ascending]:not(.num) .sort::after,th[aria-sort=ascending].num .sort::before{content:"↑"}
th[aria-sort=descending]:not(.num) .sort::after,th[aria-sort=descending].num .sort::before{content:"↓"}
button.open{text-decoration:underline dotted color-mix(in srgb,var(--muted) 60%,transparent);text-underline-offset:3px}
button.open:hover{color:var(--accent)}
.search{font:inherit;color:inherit;background:var(--bg);border:1px solid var(--line);border-radius:8px;
padding:5px 10px;margin-bottom:8px;width:min(100%,320px)}
.origin{background:var(--card);color:var(--fg);border:1px solid var(--line);border-radius:12px;padding:16px 20px;
width:min(94vw,620px);max-height:86vh;overflow:auto;box-shadow:0 12px 50px #0006}
.origin::backdrop{background:#0005}
.close{float:right;font-size:1.5rem;line-height:1;color:var(--muted)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 16px;margin:0;font-size:.88rem}
dt{color:var(--muted)}
dd{margin:0;overflow-wrap:anywhere}
code{font:.86em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
details{margin:.6rem 0 0}
summary{cursor:pointer;margin-bottom:.5rem}
.pairs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,540px),1fr));gap:4px 28px}
.pairs .plots{grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr))}
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:16px 24px}
.plot{margin:0}
.tablebox+.plots{margin-top:1rem}
.plot img{width:100%;height:auto;background:#fff;border-radius:8px}
svg.chart{width:100%;height:auto;display:block}
svg.graph{display:block;margin:0 auto}
svg text{fill:var(--fg)}
svg .tick{fill:var(--muted);font-size:11px}
svg .name{font-size:13px}
svg .grid{stroke:var(--line);stroke-width:1}
svg .axis{stroke:var(--muted);stroke-width:1}
.node{fill:color-mix(in srgb,var(--accent) 10%,var(--card));stroke:color-mix(in srgb,var(--accent) 55%,var(--line))}
.edge{fill:none;stroke:var(--muted);stroke-width:1.3;opacity:.65}
.curve{fill:none;stroke-width:2}
.dashed{stroke-dasharray:4 4}
.band{opacity:.18}
.legend{margin:.2rem 0 0;display:flex;flex-wrap:wrap;gap:2px 14px}
.key::before{content:"";display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px;
background:var(--c)}
.k0{--c:var(--k0)}.k1{--c:var(--k1)}.k2{--c:var(--k2)}.k3{--c:var(--k3)}.k4{--c:var(--k4)}.k5{--c:var(--k5)}
.curve{stroke:var(--c)}.dot,.band,rect.bar{fill:var(--c)}
@media(max-width:640px){header,main{padding:0 12px}section{padding:14px 12px}th,td{padding:6px 7px}
th:first-child,td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:6.5rem;max-width:42vw}
dl{grid-template-columns:1fr}dt{margin-top:4px}h1{font-size:1.4rem}}
@media print{nav,.search{display:none}section{break-inside:avoid;border:0}}
"""

_SCRIPT = """
for (const head of document.querySelectorAll("th")) {
  head.querySelector("button").addEventListener("click", () => {
    const table = head.closest("table"), body = table.tBodies[0];
    const column = head.cellIndex, numeric = head.classList.contains("num");
    const before = head.getAttribute("aria-sort");
    const down = before ? before === "ascending" : numeric;
    const key = row => {
      const cell = row.cells[column], text = cell.dataset.order ?? cell.textContent.trim();
      const value = text === "-inf" ? -Infinity : Number(text);
      return text !== "" && !Number.isNaN(value) ? value : text;
    };
    const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
      : String(a).localeCompare(String(b), undefined, {numeric: true});
    const rows = [...body.rows].map(row => [key(row), row]);
    rows.sort(([a], [b]) => down ? compare(b, a) : compare(a, b));
    body.append(...rows.map(([, row]) => row));
    for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  });
}
for (const field of document.querySelectorAll(".search")) {
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\\s+/).filter(Boolean);
    for (const row of field.closest(".tablebox").querySelectorAll("tbody tr")) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
    }
  });
}
"""
