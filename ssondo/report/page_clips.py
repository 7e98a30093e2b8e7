"""The report's part on the corpus: which clips are there, why the others are not, and which classes lost most."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssondo.report.page import Datum, Html, Line, code, folded, join, number, paragraphs, picture, plots, table
from ssondo.report.page_scores import read_table
from ssondo.storage.atomic_files import read_json

_ENDINGS = ("there", "unavailable", "failed")
# A table of so many lines stands open.
_FEW = 12


def read_availability(folder: Path) -> dict[str, dict[str, Any]]:
    """What `availability` counted, by split, training clips first."""
    found = read_json(folder / "availability.json")
    return {split: found[split] for split in ("train", "eval")}


def clips_part(folder: Path) -> Html:
    """How many clips of the corpus there are, why not the others, and of which class.

    Args:
        folder: where `availability` wrote its files.
    """
    found = read_availability(folder)
    parts = [_splits(found), plots([picture(folder / "availability.png", "What is missing, and of which classes")])]
    reasons = _reasons(found)
    if reasons:
        heads = ["reason", "split", "status", "clips", "% of the split"]
        listed = table(heads, reasons, labels=3, search="Filter: reason, split, ...", tall=True)
        note = paragraphs(["Unavailable lasts, failed may pass; ssondo retry has a reason's clips asked for again."])
        parts.append(folded("Reasons", join([listed, note]), open_=len(reasons) <= _FEW))
    lines = read_table(folder / "availability.csv")
    for split in found:
        rows = _classes(lines, split)
        if rows:
            heads = ["class", "listed", "there", "per cent", "unavailable", "failed"]
            title = f"Classes of the {split} clips, the one that lost most first: {len(rows)}"
            each = table(heads, rows, search="Filter: class", tall=True)
            parts.append(folded(title, each, open_=len(rows) <= _FEW))
    return join(parts)


def _splits(found: Mapping[str, Mapping[str, Any]]) -> Html:
    rows: list[Line] = []
    for split, counts in found.items():
        n, n_ok = counts["n_listed"], counts["n_ok"]
        rows.append(
            [
                split,
                number(n),
                *_there(n_ok, n),
                number(counts["n_unavailable"]),
                number(counts["n_failed"]),
                Datum(code(counts["clip_list_sha256"][:16])),
            ]
        )
    return table(["split", "listed", "there", "per cent", "unavailable", "failed", "clip list"], rows)


def _there(n_ok: int, n_listed: int) -> list[Datum]:
    """How many are there, with a bar, and how many per cent; none of no clips."""
    share = n_ok / n_listed if n_listed else None
    return [number(n_ok, share=share), number(None if share is None else 100 * share, ".1f")]


def _reasons(found: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """A line for each split and reason, the commonest of a split first."""
    rows: list[Line] = []
    for split, counts in found.items():
        each = [(n, status, reason) for status, of in counts["reasons"].items() for reason, n in of.items()]
        for n, status, reason in sorted(each, key=lambda row: (-row[0], row[2])):
            share = n / counts["n_listed"]
            rows.append([reason, split, status.lower(), number(n), number(100 * share, ".2f", share)])
    return rows


def _classes(lines: Iterable[Mapping[str, str]], split: str) -> list[Line]:
    """A line for each class that the split has, the one with the lowest share first."""
    counted = []
    for line in lines:
        n_listed, *ended = (int(line[f"{split}_{what}"]) for what in ("listed", *_ENDINGS))
        if n_listed:
            counted.append((ended[0] / n_listed, line["mid"], line["display_name"], n_listed, ended))
    return [
        [name or mid, number(n_listed), *_there(ended[0], n_listed), *map(number, ended[1:])]
        for _, mid, name, n_listed, ended in sorted(counted)
    ]
