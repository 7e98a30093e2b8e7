"""Table 2: distillation losses, averaged over music and over environment tasks."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssondo.errors import SsondoError
from ssondo.report.score_table import (
    Entry,
    Published,
    Row,
    Table,
    average_of,
    csv_text,
    latex_table,
    mark_best_of_columns,
    markdown_table,
)
from ssondo.report.scores import ABLATED, Cell, Cells, Setting, published, read_scores, remarks
from ssondo.storage.atomic_files import write_text

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

# What the paper averages.
_MUSIC, _ENVIRONMENT = {"openmic", "nsynth", "gtzan", "mtt"}, {"fsd50k", "esc50", "us8k"}


def _one_setting(cells: Cells, loss: str) -> Setting | None:
    found = {setting for setting, _ in cells if setting.row_kind == "distilled" and setting.loss == loss}
    if len(found) > 1:
        names = " and ".join(sorted(setting.name for setting in found))
        raise SsondoError(f"table2 has one row for the loss {loss} and got {names}; give the scores of one")
    return found.pop() if found else None


def build_table2(cells: Cells, losses: list[str], music: list[str], environment: list[str]) -> Table:
    """Table 2: averages over the music tasks, the environment tasks and all, for each loss."""
    papers = {paper["loss"]: paper for paper in published("table2")}
    tasks = [*music, *environment]
    settings = {loss: _one_setting(cells, loss) for loss in losses}
    ablated = {(setting.teacher, setting.student) for setting in settings.values() if setting} <= {ABLATED}
    compares = ablated and set(music) == _MUSIC and set(environment) == _ENVIRONMENT
    rows = []
    used: list[Cell] = []
    for loss, setting in settings.items():
        found = {task: cells[setting, task] for task in tasks if setting and (setting, task) in cells}
        used += found.values()
        entries = []
        for name, members in (("music", music), ("environment", environment), ("average", tasks)):
            entry = Entry(average_of([100 * found[task].mean if task in found else None for task in members]))
            if compares and loss in papers:
                entry.published = Published(float(papers[loss][name]))
            entries.append(entry)
        rows.append(Row([loss], entries))
    mark_best_of_columns(rows)
    table = Table("Table 2: distillation losses", ["loss"], ["music", "environment", "average"], rows)
    table.notes = [
        f"Music: {', '.join(music)}. Environment: {', '.join(environment)}. Averages over tasks, in per cent.",
        "'contrastive' is the loss that the paper calls CLAP.",
    ]
    names = sorted({f"{c.setting.student} from {c.setting.teacher}, k={c.setting.n_clusters}" for c in used})
    if names:
        table.notes.append(f"{'; '.join(names)} (k=0: clips drawn at random).")
    table.notes += remarks(used)
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
    """Write Table 2: distillation losses, averaged over music and over environment tasks.

    Args:
        scores: files that probe wrote, of students distilled with each loss.
        losses: rows.
        music: tasks of the first average.
        environment: tasks of the second average.
        markdown: the table for reading, in per cent.
        csv: the table for a spreadsheet, in per cent.
        latex: the table for a paper, in per cent; needs booktabs and graphicx.
    """
    table = build_table2(read_scores(scores), losses, music, environment)
    names = ["music", "environment", "average"]
    lines: list[list[Any]] = [["loss", *(c for n in names for c in (n, f"{n}_published", f"{n}_difference"))]]
    for row in table.rows:
        values = [(e.mean, e.published and e.published.mean, e.difference) for e in row.entries]
        lines.append([*row.labels, *(value for three in values for value in three)])
    write_text(markdown, markdown_table(table))
    write_text(csv, csv_text(lines))
    write_text(latex, latex_table(table))
    log.info("Table 2: %d losses on %d tasks -> %s", len(losses), len(music) + len(environment), markdown)
