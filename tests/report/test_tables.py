"""Tables and Fig. 2 from invented scores; the expected numbers are calculated by hand or are the paper's."""

import csv
import re
import shutil
import subprocess

import pytest
from score_files import distilled, model, write_score

from ssondo.config.report import TABLE1_COLUMNS
from ssondo.errors import SsondoError
from ssondo.report.fig2 import _plot_fig2, build_fig2, fig2
from ssondo.report.score_table import TableCell, escape_latex
from ssondo.report.scores import published, read_scores
from ssondo.report.scores import scores as collect
from ssondo.report.table1 import build_table1, table1
from ssondo.report.table2 import table2

PDFLATEX = shutil.which("pdflatex") or ""
SEVEN = ["openmic", "nsynth", "gtzan", "mtt", "fsd50k", "esc50", "us8k"]


def make_table1(folder, scores, teachers=("matpac",), students=("dymn",), tasks=("esc50", "us8k")):
    outputs = {
        "markdown": folder / "table1.md",
        "csv": folder / "table1.csv",
        "latex": folder / "table1.tex",
        "figure": folder / "table1.png",
        "svg": folder / "table1.svg",
    }
    table1(scores=scores, teachers=list(teachers), students=list(students), tasks=list(tasks), **outputs)
    return outputs


def collected(folder, files):
    collect(scores=files, out=folder / "scores.csv")
    return folder / "scores.csv"


def read_csv(path):
    return list(csv.DictReader(path.open(encoding="utf-8")))


@pytest.fixture
def scores(tmp_path):
    return [
        write_score(tmp_path, model("teacher", "matpac"), "esc50", [0.90, 0.92], parameters=86_000_000),
        write_score(tmp_path, model("teacher", "matpac"), "us8k", [0.80, 0.80], parameters=86_000_000),
        write_score(tmp_path, model("supervised", student="dymn"), "esc50", [0.95, 0.95]),
        write_score(tmp_path, model("supervised", student="dymn"), "us8k", [0.60, 0.62]),
        write_score(tmp_path, distilled(), "esc50", [0.90, 0.90]),
        write_score(tmp_path, distilled(), "us8k", [0.72, 0.74]),
    ]


def test_markdown_has_mean_interval_share_of_teacher_and_parameters(scores, tmp_path):
    text = make_table1(tmp_path, scores)["markdown"].read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    teacher, supervised, distil = (next(r for r in rows if p in r) for p in ("| teacher", "supervised", "from"))
    # Standard deviation of 0.90 and 0.92 is 0.01414; 1.96 * 0.01414 / sqrt(2) = 0.0196.
    assert "91.0 ± 2.0" in teacher
    assert "86.00M" in teacher
    assert "**95.0 ± 0.0**" in supervised
    assert "**73.0 ± 2.0**" in distil
    # (90 + 73) / (91 + 80) = 95.3 %
    assert "95.3 %" in distil
    assert "**81.5**" in distil
    assert len({line.count("|") for line in rows}) == 1


def test_published_values_are_below_ours_with_the_difference_and_a_sign(scores, tmp_path):
    text = make_table1(tmp_path, scores)["markdown"].read_text()
    # Table 1 of the paper: DyMN from MATPAC, ESC-50 91.9 ± 0.1, UrbanSound8K 86.2 ± 0.3.
    assert "91.9 ± 0.1 (-1.9 ≠)" in text
    assert "86.2 ± 0.3 (-13.2 ≠)" in text
    # MATPAC itself, 93.1 and 89.7: ours are 91.0 and 80.0.
    assert "93.1 ± 0.1 (-2.1" in text
    assert "89.7 ± 0.3 (-9.7 ≠)" in text


def test_no_published_line_where_the_paper_has_no_number(tmp_path):
    path = write_score(tmp_path, model("teacher", "yamnet"), "drums", [0.6, 0.7])
    text = make_table1(tmp_path, [path], teachers=["yamnet"], students=[], tasks=["drums"])["markdown"].read_text()
    assert "published" not in text


@pytest.mark.parametrize(
    ("ours", "ci", "paper", "paper_ci", "disjoint"),
    [
        (90.0, 0.5, 91.0, 0.4, True),
        (90.0, 0.5, 91.0, 0.5, False),
        (90.0, 0.0, 90.04, 0.0, False),  # a published 0.0 may be 0.049
        (90.0, None, 80.0, 0.1, False),  # one run has no interval
    ],
)
def test_intervals_are_disjoint_if_they_do_not_overlap(ours, ci, paper, paper_ci, disjoint):
    assert TableCell(ours, ci, paper, paper_ci).intervals_disjoint is disjoint


def test_paper_average_and_share_appear_with_all_seven_tasks_only(tmp_path):
    files = [
        write_score(tmp_path, of, task, [0.5, 0.5])
        for of in (model("teacher", "matpac"), distilled(student="mobilenetv3"))
        for task in SEVEN
    ]
    lines = read_csv(make_table1(tmp_path, files, students=["mobilenetv3"], tasks=SEVEN)["csv"])
    assert [line["average_published"] for line in lines] == ["75.7", "73.0"]
    assert lines[1]["share_of_teacher_published"] == "96.4"
    assert lines[1]["share_of_teacher"] == "100.0"
    some = read_csv(make_table1(tmp_path, files, students=["mobilenetv3"], tasks=SEVEN[:6])["csv"])
    assert [line["average_published"] for line in some] == ["", ""]


def test_published_averages_agree_with_the_published_scores():
    for row in published("table1"):
        mean = sum(float(row[task]) for task in SEVEN) / 7
        assert float(row["average"]) == pytest.approx(mean, abs=0.11), row
        assert row["row_kind"] in ("teacher", "supervised", "distilled")
    assert len(published("table1")) == 11
    assert {row["loss"] for row in published("table2")} == {"cosine", "contrastive", "kl", "l1", "mse"}
    assert len(published("fig2")) == 49


def test_scores_csv_has_its_columns_in_order_and_scores_in_0_to_1(scores, tmp_path):
    path = collected(tmp_path, scores)
    head = path.read_text().splitlines()[0]
    assert head.startswith("row_kind,teacher,student,task,metric,mean,ci95,n_runs,")
    line = next(row for row in read_csv(path) if row["row_kind"] == "distilled" and row["task"] == "us8k")
    assert (line["teacher"], line["student"], line["metric"], line["n_runs"]) == ("matpac", "dymn", "accuracy", "2")
    assert float(line["mean"]) == pytest.approx(0.73)
    assert float(line["ci95"]) == pytest.approx(0.0196, abs=1e-5)
    assert (line["loss"], line["n_clusters"], line["n_distill_seeds"]) == ("cosine", "50", "1")
    assert line["clip_list_sha256"] == "a" * 64
    assert line["checkpoint_sha256"] == "b" * 64
    assert line["code"] == "0123456789abcdef"
    assert line["files"].endswith("us8k.json")


def test_runs_of_several_trainings_are_pooled_and_counted(tmp_path):
    files = [
        write_score(tmp_path, distilled(seed=0), "esc50", [0.1, 0.2]),
        write_score(tmp_path, distilled(seed=1), "esc50", [0.3, 0.4]),
    ]
    line = read_csv(collected(tmp_path, files))[0]
    assert (line["n_runs"], line["n_distill_seeds"]) == ("4", "2")
    assert float(line["mean"]) == pytest.approx(0.25)
    # Standard deviation of 0.1, 0.2, 0.3, 0.4 is 0.129099; over the root of 4, times 1.96.
    assert float(line["ci95"]) == pytest.approx(0.126517, abs=1e-6)


def test_the_same_score_twice_is_an_error(tmp_path):
    first = write_score(tmp_path, distilled(), "esc50", [0.1])
    (tmp_path / "copy").mkdir()
    second = write_score(tmp_path / "copy", distilled(), "esc50", [0.1])
    with pytest.raises(SsondoError, match="the same model on esc50"):
        read_scores([first, second])


def test_two_losses_in_one_row_of_table1_are_an_error_that_names_both(tmp_path):
    files = [write_score(tmp_path, distilled(loss=loss), "esc50", [0.1]) for loss in ("cosine", "mse")]
    with pytest.raises(SsondoError, match=r"dymn from matpac \(cosine, k=50\) and dymn from matpac \(mse, k=50\)"):
        make_table1(tmp_path, files)


def test_scores_on_different_clips_get_a_note_that_they_are_not_comparable(scores, tmp_path):
    scores.append(write_score(tmp_path, model("untrained", student="dymn"), "esc50", [0.2], clip_list_sha256="d" * 64))
    text = make_table1(tmp_path, scores)["markdown"].read_text()
    assert "- esc50: the scores were measured on different lists of clips, so they are not comparable: dymn" in text
    assert "us8k: the scores were measured on different" not in text


def test_students_trained_on_different_clips_get_a_note(tmp_path):
    def notes(*lists):
        of = [model("teacher", "matpac"), model("untrained", student="dymn")]
        of += [distilled(), model("supervised", student="dymn")]
        files = [
            write_score(tmp_path, of, "esc50", [0.5], training_clip_list_sha256=clips)
            for of, clips in zip(of, (None, None, *lists), strict=True)
        ]
        return make_table1(tmp_path, files)["markdown"].read_text()

    note = "- Students were trained on different lists of clips: dymn (supervised) against dymn from matpac"
    assert note in notes("a" * 64, "b" * 64)
    assert "different lists" not in notes("a" * 64, "a" * 64)


def test_scores_on_equal_clips_get_no_note(scores, tmp_path):
    assert "not comparable" not in make_table1(tmp_path, scores)["markdown"].read_text()


def test_missing_clips_other_options_and_optimistic_scores_get_a_note(tmp_path):
    files = [
        write_score(tmp_path, model("teacher", "matpac"), "esc50", [0.5], n_missing=1234),
        write_score(tmp_path, distilled(), "esc50", [0.5], options={"head": "mlp"}, optimistic=True),
    ]
    text = make_table1(tmp_path, files)["markdown"].read_text()
    assert "1,234 clips of the data set are missing" in text
    assert "probes with different options" in text
    assert "optimistic" in text


def test_a_missing_score_is_a_dash_and_no_average(scores, tmp_path):
    outputs = make_table1(tmp_path, scores[:-1])
    line = next(row for row in read_csv(outputs["csv"]) if row["row_kind"] == "distilled")
    assert (line["us8k"], line["average"]) == ("", "")
    assert "–: no score." in outputs["markdown"].read_text()


def test_baselines_without_scores_have_no_rows(scores, tmp_path):
    table = build_table1(read_scores(scores), ["matpac"], ["dymn"], ["esc50"])
    assert [row.model.row_kind for row in table.rows] == ["teacher", "supervised", "distilled"]


def assert_valid_latex(text):
    """Check that braces are balanced, rows have a cell for each column, and special characters are escaped."""
    assert text.count("\\begin{") == text.count("\\end{")
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", text):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    columns = len(re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)[1])
    rows = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert rows
    assert all(len(re.findall(r"(?<!\\)&", row)) == columns - 1 for row in rows)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[_#%^~]", body)
    assert text.isascii()


def test_latex_is_well_formed_with_names_that_need_escaping(tmp_path):
    files = [
        write_score(tmp_path, model("teacher", "my_teacher"), "es_c&50", [0.5, 0.6]),
        write_score(tmp_path, distilled("my_teacher", "mn_04"), "es_c&50", [0.5, 0.6], n_missing=3),
        write_score(tmp_path, model("untrained", student="mn_04"), "es_c&50", [0.1, 0.1]),
    ]
    outputs = make_table1(tmp_path, files, teachers=["my_teacher"], students=["mn_04"], tasks=["es_c&50", "none_yet"])
    text = outputs["latex"].read_text()
    assert_valid_latex(text)
    assert "\\toprule" in text
    assert "mn\\_04" in text
    assert "\\textbf{55.0 $\\pm$ 9.8}" in text


def test_latex_of_published_rows_is_well_formed(scores, tmp_path):
    text = make_table1(tmp_path, scores)["latex"].read_text()
    assert_valid_latex(text)
    assert "$\\neq$" in text


@pytest.mark.slow
@pytest.mark.skipif(not PDFLATEX, reason="needs LaTeX: apt-get install texlive-latex-base texlive-latex-recommended")
def test_latex_compiles(scores, tmp_path):
    odd = write_score(tmp_path, model("teacher", "m_2d"), "es_c&50", [0.5, 0.6], n_missing=3, optimistic=True)
    (tmp_path / "second").mkdir()
    wide = [write_score(tmp_path, distilled(), task, [0.8, 0.81]) for task in SEVEN[:5]]
    first = make_table1(tmp_path, [*scores, *wide], tasks=SEVEN)["latex"]
    second = make_table1(tmp_path / "second", [odd], teachers=["m_2d"], students=[], tasks=["es_c&50"])["latex"]
    third = {"markdown": tmp_path / "t.md", "csv": tmp_path / "t.csv", "latex": tmp_path / "t2.tex"}
    files = [write_score(tmp_path, distilled(n_clusters=0), task, [0.75]) for task in SEVEN]
    table2(scores=files, losses=["cosine", "mse"], music=SEVEN[:4], environment=SEVEN[4:], **third)
    inputs = "".join(f"\\input{{{path}}}" for path in (first, second, third["latex"]))
    (tmp_path / "paper.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs,graphicx}}\\begin{{document}}{inputs}\\end{{document}}"
    )
    done = subprocess.run(
        [PDFLATEX, "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "paper.pdf").read_bytes().startswith(b"%PDF")
    assert "Missing character" not in done.stdout
    assert "Overfull" not in done.stdout


def test_latex_special_characters_are_escaped():
    assert escape_latex("a_b & 5 % {x} \\ ~^#$") == (
        r"a\_b \& 5 \% \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{}\#\$"
    )


def test_a_name_with_a_bar_keeps_the_markdown_columns(tmp_path):
    path = write_score(tmp_path, model("teacher", "a|b"), "esc50", [0.5])
    text = make_table1(tmp_path, [path], teachers=["a|b"], students=[], tasks=["esc50"])["markdown"].read_text()
    assert "a\\|b" in text


def test_equal_scores_write_equal_bytes(scores, tmp_path):
    first = {name: path.read_bytes() for name, path in make_table1(tmp_path, scores).items()}
    second = {name: path.read_bytes() for name, path in make_table1(tmp_path, scores).items()}
    assert first == second
    assert first["figure"].startswith(b"\x89PNG")
    assert first["svg"].startswith(b"<?xml")


def test_table2_averages_over_music_and_environment(tmp_path):
    values = {"gtzan": 0.8, "mtt": 0.4, "esc50": 0.9}
    of = distilled(student="mobilenetv3", n_clusters=0)
    files = [write_score(tmp_path, of, task, [v, v]) for task, v in values.items()]
    out = {"markdown": tmp_path / "t.md", "csv": tmp_path / "t.csv", "latex": tmp_path / "t.tex"}
    table2(scores=files, losses=["cosine", "mse"], music=["gtzan", "mtt"], environment=["esc50"], **out)
    cosine, mse = read_csv(out["csv"])
    assert (cosine["music"], cosine["environment"], cosine["average"]) == ("60.0", "90.0", "70.0")
    assert (mse["music"], mse["average"]) == ("", "")
    assert cosine["average_published"] == ""
    assert_valid_latex(out["latex"].read_text())


def test_table2_has_published_numbers_for_the_seven_tasks(tmp_path):
    files = [write_score(tmp_path, distilled(student="mobilenetv3", n_clusters=0), task, [0.75]) for task in SEVEN]
    out = {"markdown": tmp_path / "t.md", "csv": tmp_path / "t.csv", "latex": tmp_path / "t.tex"}
    table2(scores=files, losses=["cosine"], music=SEVEN[:4], environment=SEVEN[4:], **out)
    line = read_csv(out["csv"])[0]
    assert (line["music_published"], line["environment_published"], line["average_published"]) == (
        "71.0",
        "75.0",
        "72.7",
    )
    assert line["average_difference"] == "2.3"


@pytest.mark.parametrize(("student", "n_music"), [("dymn", 4), ("mobilenetv3", 5)])
def test_table2_of_another_student_or_of_other_averages_has_no_published_number(tmp_path, student, n_music):
    files = [write_score(tmp_path, distilled(student=student, n_clusters=0), task, [0.75]) for task in SEVEN]
    out = {"markdown": tmp_path / "t.md", "csv": tmp_path / "t.csv", "latex": tmp_path / "t.tex"}
    table2(scores=files, losses=["cosine"], music=SEVEN[:n_music], environment=SEVEN[n_music:], **out)
    line = read_csv(out["csv"])[0]
    assert {value for name, value in line.items() if name.endswith("_published")} == {""}


def test_columns_of_table1_are_the_names_that_the_configuration_reserves(scores, tmp_path):
    columns = read_csv(make_table1(tmp_path, scores)["csv"])[0]
    assert {name for name in columns if not name.startswith(("esc50", "us8k"))} == set(TABLE1_COLUMNS)


def test_table1_of_another_loss_has_no_published_number_for_its_students(tmp_path):
    files = [
        write_score(tmp_path, of, task, [0.5, 0.5])
        for of in (model("teacher", "matpac"), distilled(student="mobilenetv3", loss="mse"))
        for task in SEVEN
    ]
    teacher, student = read_csv(make_table1(tmp_path, files, students=["mobilenetv3"], tasks=SEVEN)["csv"])
    assert (teacher["esc50_published"], teacher["average_published"]) == ("93.1", "75.7")
    assert {value for name, value in student.items() if "published" in name} == {""}


def test_class_without_test_clips_is_left_out_of_mean_average_precision_only(tmp_path):
    bare = {"classes_without_positive": ["synth_lead"]}
    notes = []
    for task, metric in (("nsynth", "accuracy"), ("mtt", "map")):
        path = write_score(tmp_path, model("teacher", "matpac"), task, [0.5], metric=metric, **bare)
        notes.append(make_table1(tmp_path, [path], students=[], tasks=[task])["markdown"].read_text())
    assert "left out" not in notes[0]
    assert "mtt: classes without a positive test clip are left out of the mean: 1." in notes[1]


def test_all_forms_of_a_table_round_a_half_in_the_same_way(tmp_path):
    # The mean of runs is 0.8464999…, the CSV has 84.65, and the text of both is 84.7.
    runs = [0.8465 - 1e-16, 0.8465 - 1e-16]
    path = write_score(tmp_path, model("teacher", "matpac"), "drums", runs)
    outputs = make_table1(tmp_path, [path], students=[], tasks=["drums"])
    assert read_csv(outputs["csv"])[0]["drums"] == "84.65"
    assert "| 84.7 ± 0.0 |" in outputs["markdown"].read_text()
    assert TableCell(100 * sum(runs) / 2).text == "84.7"


def test_fig2_lists_every_point_with_its_interval_and_the_published_value(tmp_path):
    of = [distilled(student="mobilenetv3", n_clusters=k) for k in (0, 50)]
    files = [write_score(tmp_path, model, "esc50", [0.90, 0.92]) for model in of]
    out = {name: tmp_path / f"fig2.{name}" for name in ("csv", "png", "svg")} | {"markdown": tmp_path / "fig2.md"}
    fig2(scores=files, tasks=["esc50"], **out)
    lines = read_csv(out["csv"])
    assert [(line["n_clusters"], line["mean"], line["published"]) for line in lines] == [
        ("0", "91.0", "90.3"),
        ("50", "91.0", "91.0"),
    ]
    assert float(lines[0]["ci95"]) == pytest.approx(1.96)
    assert out["svg"].read_text().lstrip().startswith("<?xml")
    first = out["svg"].read_bytes()
    fig2(scores=files, tasks=["esc50"], **out)
    assert out["svg"].read_bytes() == first


def test_fig2_of_another_student_has_no_published_number(tmp_path):
    path = write_score(tmp_path, distilled(student="dymn"), "esc50", [0.90, 0.92])
    out = {name: tmp_path / f"fig2.{name}" for name in ("markdown", "csv", "png", "svg")}
    fig2(scores=[path], tasks=["esc50"], **out)
    assert read_csv(out["csv"])[0]["published"] == ""
    assert "ublished" not in out["markdown"].read_text()


def test_legend_of_fig2_has_both_curves_if_the_first_task_has_only_one(tmp_path):
    paths = [write_score(tmp_path, distilled(student="mobilenetv3"), task, [0.9, 0.92]) for task in ("barks", "esc50")]
    figure = _plot_fig2(build_fig2(read_scores(paths), ["barks", "esc50"]))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ours, 95 % interval", "published (read off the chart)"]


def test_fig2_of_two_students_is_an_error(tmp_path):
    files = [write_score(tmp_path, distilled(student=name), "esc50", [0.9]) for name in ("dymn", "eres2net")]
    with pytest.raises(SsondoError, match="one student and loss"):
        out = {name: tmp_path / name for name in ("markdown", "csv", "png", "svg")}
        fig2(scores=files, tasks=["esc50"], **out)
