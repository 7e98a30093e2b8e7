"""The verb that writes the results of a run on one page, which opens without a network."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssondo.errors import SsondoError
from ssondo.probe.model_id import ModelId
from ssondo.report import page_run, page_scores
from ssondo.report.fig2 import build_fig2
from ssondo.report.page import Section, duration, render
from ssondo.report.rule_graph import draw_rules
from ssondo.report.score_table import Table
from ssondo.report.scores import ScoreFile, TaskScores, comparability_notes, pool_scores, read_score_files
from ssondo.report.table1 import build_table1
from ssondo.report.table2 import build_table2
from ssondo.storage.atomic_files import read_json, write_text

log = logging.getLogger(__name__)

# Property of a model for each key of a table of the configuration that selects models.
_SELECTORS = {
    "seeds": "seed",
    "n_clusters": "n_clusters",
    "losses": "loss",
    "teachers": "teacher",
    "students": "student",
}


def _scores_of_table(score_files: list[ScoreFile], table: dict[str, Any]) -> TaskScores:
    """Return the scores that a section of the configuration (table1, table2 or fig2) selects."""

    def selects(model: ModelId, key: str) -> bool:
        allowed = table.get(key, table.get(_SELECTORS[key]))
        return getattr(model, _SELECTORS[key]) in (allowed if isinstance(allowed, list) else [allowed])

    def belongs(file: ScoreFile) -> bool:
        match file.model.row_kind:
            case "teacher":
                return file.model.teacher in table.get("teachers", [])
            case "distilled":
                return all(selects(file.model, key) for key in _SELECTORS)
            case baseline:
                return baseline in table.get("baselines", []) and selects(file.model, "seeds")

    return pool_scores(filter(belongs, score_files))


def _headline(table: Table) -> str:
    """Return the best result in one sentence; empty if no student has a share of its teacher."""
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


def _tiles(scores: TaskScores, jobs: list[page_run.Job], availability: Path | None) -> dict[str, str]:
    tiles = {
        "models": f"{len({model for model, _ in scores})}",
        "downstream tasks": f"{len({task for _, task in scores})}",
        "probe runs": f"{sum(len(score.runs) for score in scores.values()):,}",
    }
    if availability is not None:
        tiles["training clips"] = f"{page_run.read_availability(availability)['train']['n_ok']:,}"
    if jobs:
        tiles["time of all jobs"] = duration(sum(job.seconds for job in jobs))
    return tiles


def _rules_section(path: Path, jobs: list[page_run.Job]) -> Section | None:
    """Return the section with the graph of the rules; None if the file is missing or holds no acyclic graph."""
    try:
        sources = {rule: [str(source) for source in sources] for rule, sources in read_json(path).items()}
    except (SsondoError, OSError, AttributeError, TypeError):
        return None
    seconds: Counter[str] = Counter()
    for job in jobs:
        seconds[job.rule] += job.seconds  # type: ignore[assignment]
    counts = Counter(job.rule for job in jobs)
    graph = draw_rules(
        sources, {rule: f"{n} job{'s' if n > 1 else ''}, {duration(seconds[rule])}" for rule, n in counts.items()}
    )
    notes = ["An arrow is left out where a longer path leads to the same rule."]
    return Section("Rules", "rules", graph=graph, notes=notes) if graph else None


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
    fig2: dict[str, Any] | None = None,
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
        histories: Paths of the history of each training as CSV, from which its curves are drawn.
        availability: Folder that availability wrote to.
        rule_graph: Path of a JSON file with the sources of each rule, which Snakemake writes when a run starts;
            without a readable file the page has a note in place of the graph.
        table2: Section `table2` of the configuration, as JSON.
        fig2: Section `fig2` of the configuration, as JSON.
        config: Settings of the run as JSON, which the page shows.
    """
    score_files = read_score_files(scores)
    pooled = pool_scores(score_files)
    jobs = page_run.read_benchmarks(benchmarks)
    scores1 = _scores_of_table(score_files, table1)
    first = build_table1(scores1, table1["teachers"], table1["students"], table1["tasks"])
    sections = [page_scores.table1_section(first, scores1, comparability_notes(pooled.values()))]
    if table2:
        scores2 = _scores_of_table(score_files, table2)
        second = build_table2(scores2, table2["losses"], table2["music"], table2["environment"])
        sections.append(page_scores.table2_section(second))
    if fig2:
        sections.append(page_scores.fig2_section(build_fig2(_scores_of_table(score_files, fig2), fig2["tasks"])))
    sections.append(page_scores.scores_section(pooled))
    if histories:
        sections.append(page_run.training_section(histories))
    if clusters:
        sections.append(page_run.clusters_section(clusters))
    if availability:
        sections.append(page_run.clips_section(availability))
    made_with = page_scores.versions_section(pooled)
    if rule_graph:
        rules = _rules_section(rule_graph, jobs)
        if rules is not None:
            sections.append(rules)
        else:
            log.warning(
                "report: the graph of the rules is left out: %s is missing or holds no graph; Snakemake writes it at "
                "the start without --no-hooks",
                rule_graph,
            )
            made_with = replace(made_with, notes=["The graph of the rules is left out; the log says why."])
    if jobs:
        sections.append(page_run.times_section(jobs))
    page = render(
        title=title,
        headline=_headline(first),
        tiles=_tiles(pooled, jobs, availability),
        sections=[*sections, made_with],
        config=config,
        origins=[page_scores.origin(score) for score in pooled.values()],
    )
    write_text(out, page)
    log.info("report: %d scores -> %s (open it in a browser)", len(scores), out)
