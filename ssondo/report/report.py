"""The results of a run on one page that opens without a network: tables, curves, run times, origins."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from ssondo.report.page import duration, render
from ssondo.report.page_run import (
    Job,
    clips_section,
    clusters_section,
    read_availability,
    read_benchmarks,
    times_section,
    training_section,
)
from ssondo.report.page_scores import origin, scores_section, table1_section, table2_section, versions_section
from ssondo.report.rule_graph import Drawing, draw_rules
from ssondo.report.score_table import Table
from ssondo.report.scores import ScoreFile, TaskScores, comparability_notes, pool_scores, read_score_files
from ssondo.report.table1 import build_table1
from ssondo.report.table2 import build_table2
from ssondo.storage.atomic_files import read_json, write_text

log = logging.getLogger(__name__)


def _scores_of_table(score_files: list[ScoreFile], table: dict[str, Any]) -> TaskScores:
    """The scores that a table of the configuration is made from."""

    def belongs(file: ScoreFile) -> bool:
        model = file.model
        if model.row_kind == "teacher":
            return True
        if model.row_kind != "distilled":
            return model.seed in table["seeds"] and model.row_kind in table.get("baselines", [])
        return (
            model.seed in table["seeds"]
            and model.n_clusters == table["n_clusters"]
            and model.loss in table.get("losses", [table.get("loss")])
            and model.teacher in table.get("teachers", [table.get("teacher")])
            and model.student in table.get("students", [table.get("student")])
        )

    return pool_scores(filter(belongs, score_files))


def _headline(table: Table) -> str:
    """The best result in one sentence; empty if no student has a share of its teacher."""
    rows = [row for row in table.rows if row.cells[-1].mean is not None]
    if not rows:
        return ""
    best = max(rows, key=lambda row: row.cells[-1].mean or 0.0)
    small = best.ids["parameters"]
    large = next((row.ids["parameters"] for row in table.rows if row.labels[:2] == [best.ids["teacher"], "teacher"]), 0)
    size = f" with {small / 1e6:.2f} of its {large / 1e6:.2f} million parameters" if small and large else ""
    text = f"{best.labels[0]} reaches {best.cells[-1].mean:.1f} % of the average of {best.ids['teacher']}{size}"
    baselines = [
        f"{row.labels[1]} {row.cells[-2].mean:.1f}"
        for row in table.rows
        if row.group == best.group and row.ids["row_kind"] != "distilled" and row.cells[-2].mean is not None
    ]
    average = best.cells[-2].mean
    return text + (f" (average {average:.1f}; {', '.join(baselines)})." if average is not None and baselines else ".")


def _tiles(scores: TaskScores, jobs: list[Job], availability: Path | None) -> dict[str, str]:
    tiles = {
        "models": f"{len({model for model, _ in scores})}",
        "downstream tasks": f"{len({task for _, task in scores})}",
        "probe runs": f"{sum(len(score.runs) for score in scores.values()):,}",
    }
    if availability is not None:
        tiles["training clips"] = f"{read_availability(availability)['train']['n_ok']:,}"
    if jobs:
        tiles["time of all jobs"] = duration(sum(job.seconds for job in jobs))
    return tiles


def _drawing(rule_graph: Path | None, jobs: list[Job]) -> Drawing | None:
    if rule_graph is None or not rule_graph.is_file():
        return None
    seconds: Counter[str] = Counter()
    for job in jobs:
        seconds[job.rule] += job.seconds  # type: ignore[assignment]
    counts = Counter(job.rule for job in jobs)
    notes = {rule: f"{n} job{'s' if n > 1 else ''}, {duration(seconds[rule])}" for rule, n in counts.items()}
    return draw_rules(read_json(rule_graph), notes)


def report(
    *,
    title: str,
    table1: dict[str, Any],
    scores: list[Path],
    benchmarks: Path,
    out: Path,
    clusters: list[Path] | None = None,
    histories: list[Path] | None = None,
    availability: Path | None = None,
    rule_graph: Path | None = None,
    table2: dict[str, Any] | None = None,
    fig2: Path | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """Write all results on one page that opens without a network.

    Args:
        title: Heading of the page.
        table1: Section `table1` of the configuration, as JSON.
        scores: Paths of all score files that probe wrote; the page shows the content of the file of each number.
        benchmarks: Folder of Snakemake's run times, {rule}/{wildcards}.tsv; missing files are left out.
        out: Path of the page that is written, as HTML.
        clusters: Paths of the metrics that cluster wrote; its pictures are taken from the same folder.
        histories: Paths of the history of each training as CSV; its curves are taken from the same folder.
        availability: Folder that availability wrote to.
        rule_graph: Path of a JSON file with the sources of each rule, which Snakemake writes when a run starts;
            without the file the page has no graph.
        table2: Section `table2` of the configuration, as JSON.
        fig2: Path of the figure that fig2 wrote, as SVG.
        config: Settings of the run as JSON, which the page shows.
    """
    score_files = read_score_files(scores)
    pooled = pool_scores(score_files)
    jobs = read_benchmarks(benchmarks)
    scores1 = _scores_of_table(score_files, table1)
    first = build_table1(scores1, table1["teachers"], table1["students"], table1["tasks"])
    notes = ["Per cent, mean ± 95 % interval over runs; bold: the best of a student; a number opens its origin."]
    if any(cell.published is not None for row in first.rows for cell in row.cells):
        notes.append("Small: the published number, in brackets ours less it; ≠: the two 95 % intervals do not overlap.")
    second = None
    if table2:
        scores2 = _scores_of_table(score_files, table2)
        second = table2_section(build_table2(scores2, table2["losses"], table2["music"], table2["environment"]))
    context = {
        "title": title,
        "headline": _headline(first),
        "tiles": _tiles(pooled, jobs, availability),
        "table1": table1_section(first, scores1),
        "notes": [*notes, *comparability_notes(pooled.values())],
        "table2": second,
        "fig2": fig2,
        "scores": scores_section(pooled),
        "training": training_section(histories) if histories else None,
        "clusters": clusters_section(clusters) if clusters else None,
        "clips": clips_section(availability) if availability else None,
        "rules": _drawing(rule_graph, jobs),
        "times": times_section(jobs) if jobs else None,
        "versions": versions_section(pooled),
        "config": config,
        "origins": [origin(score) for score in pooled.values()],
    }
    write_text(out, render(context))
    log.info("report: %d scores -> %s (open it in a browser)", len(scores), out)
