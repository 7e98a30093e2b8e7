"""The results of a run on one page that opens anywhere, with no network: tables, curves, run times, origins."""

import json
import logging
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ssondo.errors import SsondoError
from ssondo.report.page import (
    Html,
    Section,
    folded,
    join,
    page,
    paragraphs,
)
from ssondo.report.page_clips import clips_part, read_availability
from ssondo.report.page_run import (
    Job,
    clusters_part,
    duration,
    graph_part,
    made_with_part,
    read_benchmarks,
    run_times_part,
    training_part,
)
from ssondo.report.page_scores import fig2_part, origin_box, read_table, scores_part, table1_part, table2_part, value_of
from ssondo.report.scores import Cells, read_scores, remarks
from ssondo.storage.atomic_files import write_text

log = logging.getLogger(__name__)


def _headline(lines: Sequence[dict[str, str]]) -> str:
    """The result in a sentence; empty where no student has a share of its teacher."""
    shares = [(share, line) for line in lines if (share := value_of(line["share_of_teacher"])) is not None]
    if not shares:
        return ""
    share, line = max(shares, key=lambda pair: pair[0])
    teacher = next((t for t in lines if t["row_kind"] == "teacher" and t["teacher"] == line["teacher"]), None)
    small, large = value_of(line["parameters"]), value_of(teacher["parameters"]) if teacher else None
    size = f" with {small / 1e6:.2f} of its {large / 1e6:.2f} million parameters" if small and large else ""
    text = f"{line['student']} reaches {share:.1f} % of the average of {line['teacher']}{size}"
    others = [
        f"{other['row_kind']} {average:.1f}"
        for other in lines
        if other["student"] == line["student"]
        and other["row_kind"] != "distilled"
        and (average := value_of(other["average"])) is not None
    ]
    average = value_of(line["average"])
    beside = f" (average {average:.1f}; {', '.join(others)})" if average is not None and others else ""
    return f"{text}{beside}."


def _tiles(values: Iterable[tuple[str, str]]) -> Html:
    tiles = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(k)}</span></div>' for k, v in values)
    return Html(f'<div class="tiles">{tiles}</div>')


def _lead(lines: Sequence[dict[str, str]], cells: Cells, jobs: Sequence[Job], availability: Path | None) -> Html:
    tiles = [
        ("models", f"{len({setting for setting, _ in cells})}"),
        ("downstream tasks", f"{len({task for _, task in cells})}"),
        ("probe runs", f"{sum(len(cell.runs) for cell in cells.values()):,}"),
    ]
    if availability is not None:
        tiles.append(("training clips", f"{read_availability(availability)['train']['n_ok']:,}"))
    if jobs:
        tiles.append(("time of all jobs", duration(sum(job.seconds for job in jobs))))
    headline = _headline(lines)
    return join([f'<p class="headline">{escape(headline)}</p>' if headline else "", _tiles(tiles)])


def report(
    *,
    title: str,
    table1: Path,
    scores: list[Path],
    benchmarks: Path,
    out: Path,
    clusters: list[Path] | None = None,
    histories: list[Path] | None = None,
    availability: Path | None = None,
    rulegraph: dict[str, Any] | None = None,
    table2: Path | None = None,
    fig2: Path | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """Write all results on one page that opens without a network.

    Args:
        title: heading of the page.
        table1: CSV that table1 wrote.
        scores: files that probe wrote; every number opens what its file says about it.
        benchmarks: folder of Snakemake's run times, {rule}/{wildcards}.tsv; may be absent in part.
        out: the page, HTML.
        clusters: metrics that cluster wrote; tsne.png is taken from the same folder.
        histories: CSV of every training.
        availability: folder that availability wrote to.
        rulegraph: as JSON: each rule and the rules whose files it reads.
        table2: CSV that table2 wrote.
        fig2: CSV that fig2 wrote.
        config: as JSON: the settings of the run, shown as they are.
    """
    lines = read_table(table1)
    if not lines:
        raise SsondoError(f"{table1}: no line in it; remove it, and snakemake makes it again")
    cells = read_scores(scores)
    jobs = read_benchmarks(benchmarks)
    note = "Per cent, mean ± 95 % interval over runs; bold: the best of a student; a number opens its origin."
    beside = "Small: the published number, in brackets ours less it; ≠: the two 95 % intervals do not overlap."
    paper = [beside] if any(line[name] for line in lines for name in line if name.endswith("_published")) else []
    notes = paragraphs([note, *paper, *remarks(cells.values())])
    sections = [Section("table1", "Table 1", join([table1_part(lines, cells), notes]))]
    if table2:
        sections.append(Section("table2", "Table 2: losses", table2_part(table2)))
    if fig2:
        sections.append(Section("fig2", "Fig. 2: number of clusters", fig2_part(fig2)))
    sections.append(Section("scores", "All scores", scores_part(cells)))
    if histories:
        sections.append(Section("training", "Training", training_part(histories)))
    if clusters:
        sections.append(Section("clusters", "Clusters", clusters_part(clusters)))
    if availability is not None:
        sections.append(Section("availability", "Clips", clips_part(availability)))
    if rulegraph:
        sections.append(Section("rules", "Rules", graph_part(rulegraph, jobs)))
    if jobs:
        sections.append(Section("times", "Run times", run_times_part(jobs)))
    made = [made_with_part(cells)]
    if config:
        text = escape(json.dumps(config, indent=2))
        made.append(folded("Settings of the run", Html(f'<div class="scroll"><pre><code>{text}</code></pre></div>')))
    boxes = [origin_box(cell) for cell in cells.values()]
    sections.append(Section("made", "Made with", join([*made, *boxes])))
    write_text(out, page(title, _lead(lines, cells, jobs, availability), sections))
    log.info("report: %d sections, %d scores -> %s (open it in a browser)", len(sections), len(scores), out)
