"""Table 2: distillation losses, averaged over music tasks and over environment tasks."""

import logging
from pathlib import Path

from ssondo.report.score_table import Column, Row, Table, TableCell, average_of, mark_best, write_table
from ssondo.report.scores import ABLATED, TaskScore, TaskScores, comparability_notes, only_model, published, read_scores

log = logging.getLogger(__name__)

# The tasks that the paper averages.
_MUSIC, _ENVIRONMENT = {"openmic", "nsynth", "gtzan", "mtt"}, {"fsd50k", "esc50", "us8k"}


def build_table2(scores: TaskScores, losses: list[str], music: list[str], environment: list[str]) -> Table:
    """Return Table 2: averages over the tasks of `music`, those of `environment` and all of them, for each loss.

    Raises:
        SsondoError: If a loss has scores of several models.
    """
    papers = {paper["loss"]: paper for paper in published("table2")}
    averages = {"music": music, "environment": environment, "average": [*music, *environment]}
    models = {
        loss: only_model(
            {model for model, _ in scores if model.row_kind == "distilled" and model.loss == loss},
            f"table2 has one row for the loss {loss}",
        )
        for loss in losses
    }
    ablated = {(model.teacher, model.student) for model in models.values() if model} <= {ABLATED}
    comparable = ablated and set(music) == _MUSIC and set(environment) == _ENVIRONMENT
    rows = []
    used: list[TaskScore] = []
    for loss, model in models.items():
        by_task = {task: scores[model, task] for task in averages["average"] if model and (model, task) in scores}
        used += by_task.values()
        cells = []
        for name, tasks in averages.items():
            cell = TableCell(average_of([100 * by_task[task].mean if task in by_task else None for task in tasks]))
            if comparable and loss in papers:
                cell.published = float(papers[loss][name])
            cells.append(cell)
        rows.append(Row([loss], cells, {"loss": loss}))
    mark_best(rows)
    columns = [Column(name, name, ("mean", "published", "difference")) for name in averages]
    table = Table("Table 2: distillation losses", ["loss"], columns, rows)
    table.notes = [
        f"Music: {', '.join(music)}. Environment: {', '.join(environment)}. Averages over tasks, in per cent.",
        "'contrastive' is the loss that the paper calls CLAP.",
    ]
    names = sorted({f"{s.model.student} from {s.model.teacher}, k={s.model.n_clusters}" for s in used})
    if names:
        table.notes.append(f"{'; '.join(names)} (k=0: clips drawn at random).")
    table.notes += comparability_notes(used)
    return table


def table2(
    *,
    scores: list[Path],
    losses: list[str],
    music: list[str],
    environment: list[str],
    markdown: Path,
    csv: Path,
    latex: Path,
) -> None:
    """Write Table 2: distillation losses, averaged over music tasks and over environment tasks.

    Args:
        scores: Paths of the score files that probe wrote for students distilled with each loss.
        losses: Names of the losses, which are rows.
        music: Names of the tasks of the first average.
        environment: Names of the tasks of the second average.
        markdown: Path of the table in Markdown that is written, in per cent.
        csv: Path of the table as CSV that is written, in per cent.
        latex: Path of the table in LaTeX that is written, in per cent; it needs booktabs and graphicx.
    """
    table = build_table2(read_scores(scores), losses, music, environment)
    write_table(table, markdown=markdown, csv=csv, latex=latex)
    log.info("Table 2: %d losses on %d tasks -> %s", len(losses), len(music) + len(environment), markdown)
