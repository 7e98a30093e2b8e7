"""The page needs no network, gives the origin of each number and never interprets data as HTML."""

import base64
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from score_files import PIXEL, distilled, model, write_availability, write_results, write_score

from ssondo.errors import SsondoError
from ssondo.report.page import duration
from ssondo.report.page_run import read_benchmarks
from ssondo.report.report import report
from ssondo.report.rule_graph import draw_rules

_VOID = {"meta", "input", "img", "hr", "br", "link"}


class Page(HTMLParser):
    """A parsed page; an incorrectly nested tag fails an assertion."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.targets, self.attributes, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if "id" in values:
            self.ids.append(values["id"])
        if "popovertarget" in values:
            self.targets.append(values["popovertarget"])
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def results(tmp_path):
    return write_results(tmp_path)


def render_page(results):
    report(**results)
    return Page(results["out"].read_text(encoding="utf-8"))


def test_page_refers_to_nothing_outside_itself(results):
    page = render_page(results)
    for tag, name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), (tag, name, value)
    text = results["out"].read_text()
    assert not re.search(r"https?://|@import|url\(", text)


def test_page_supports_phones_and_both_colour_schemes(results):
    page = render_page(results)
    assert ("meta", "name", "viewport") in page.attributes
    assert ("meta", "content", "light dark") in page.attributes
    assert "prefers-color-scheme:dark" in results["out"].read_text()


def test_links_and_buttons_have_targets_and_ids_are_unique(results):
    page = render_page(results)
    assert len(page.ids) == len(set(page.ids))
    assert page.targets
    assert set(page.targets) <= set(page.ids)
    assert {value[1:] for tag, name, value in page.attributes if name == "href"} <= set(page.ids)


def test_every_score_opens_its_origin(results):
    page = render_page(results)
    text = page.text
    # Once from Table 1, once from the list of all scores, once to close it.
    assert sum(target == "origin-distilled-matpac-dymn-cosine-50-esc50" for target in page.targets) == 3
    for expected in (
        "feed" * 16,  # the clip list
        "b" * 64,  # the checkpoint
        "0123456789abcdef",  # the code
        "2,000 (1,200 train, 400 valid, 400 test), 7 missing",
        'epochs 100, head "linear"',
        "rate 0.001, decay 0, batch 64 (2x)",
        "torch 2.14.1",
        "86.40, 86.40 %",
        "trained on NVIDIA H100, 80 GiB, driver 570.1, CUDA 13.0, A large one, 16 cores, 128 GiB, 2 processes; torch 2",
        "embedded on A small one, 2 cores, 2 processes",
        "scored on A small one, 4 cores environment python 3.11, torch 2.14.1",
    ):
        assert expected in text, expected


def test_headline_gives_the_share_of_the_teacher_and_the_size(results):
    # 86.4 of 91.0 is 94.9 %.
    text = render_page(results).text
    assert "dymn reaches 94.9 % of the average of matpac with 2.97 of its 86.00 million parameters" in text
    assert "(average 86.4; supervised 80.0)" in text


def test_published_numbers_are_below_ours(results):
    # The paper's DyMN from MATPAC on ESC-50: 91.9 ± 0.1, ours 86.4 ± 0.0.
    assert "91.9 (-5.5 ≠)" in render_page(results).text


def test_scores_on_different_clips_get_a_note_that_they_are_not_comparable(results):
    assert "were measured on different lists of clips, so they are not comparable" in render_page(results).text


def test_page_has_trainings_clusters_clips_and_run_times(results):
    page = render_page(results)
    text = page.text
    assert "0.250 0.830 0.400 505" in text  # loss, cosine, constant, median speed
    assert "1 h 2 min" in text
    assert "private video train unavailable 3 3.00" in text
    assert "k3 3 60 1.5 – 1.25 33 10 30" in text
    images = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    pictures = [base64.b64decode(image.removeprefix("data:image/png;base64,")) for image in images]
    # Sizes and map of the clustering, plots of the corpus.
    assert pictures == [PIXEL, PIXEL, (results["availability"] / "availability.png").read_bytes()]


def section(results, key):
    """The HTML of a section of the page."""
    render_page(results)
    text = results["out"].read_text(encoding="utf-8")
    return text.partition(f'<section id="{key}">')[2].partition("</section>")[0]


def test_curves_of_trainings_are_drawn_with_the_values_of_each_epoch(results):
    training = section(results, "training")
    assert re.findall(r'<svg class="chart".*aria-label="([^"]*)"', training) == ["training loss", "on eval clips"]
    assert re.findall(r"<title>(.*)</title>", training) == [
        "epoch 1: loss 0.9, loss distillation 0.8",
        "epoch 2: loss 0.5, loss distillation 0.4",
        "epoch 3: loss 0.25, loss distillation 0.2",
        "epoch 2: eval cosine 0.71, constant cosine 0.4",
        "epoch 3: eval cosine 0.83, constant cosine 0.4",
    ]
    assert training.count("<polyline") == 4
    assert training.count("dashed") == 1
    assert "<img" not in training


def test_fig2_has_a_chart_for_each_task_with_its_own_scores_and_the_published_ones(results, tmp_path):
    of = {"student": "mobilenetv3"}
    results["scores"] += [
        write_score(tmp_path, distilled(n_clusters=k, **of), task, [0.90, 0.92])
        for k in (0, 50)
        for task in ("esc50", "t")
    ]
    results["scores"] += [
        write_score(tmp_path, distilled(**of, **other), "t", [0.1]) for other in ({"seed": 1}, {"loss": "mse"})
    ]
    results["fig2"] = {
        "teacher": "matpac",
        "loss": "cosine",
        "n_clusters": [0, 50],
        "seeds": [0],
        "tasks": ["esc50", "t"],
    } | of
    fig2 = section(results, "fig2")
    assert re.findall(r"<title>(.*)</title>", fig2) == [
        "clusters 0: ours 91 ± 2, published (read off the chart) 90.3",
        "clusters 50: ours 91 ± 2, published (read off the chart) 91",
        "clusters 0: ours 91 ± 2",
        "clusters 50: ours 91 ± 2",
    ]
    assert re.findall(r"<figcaption>(.*)</figcaption>", fig2) == ["esc50, per cent", "t, per cent"]
    assert fig2.count('class="band"') == 2


def test_curves_of_18_trainings_of_100_epochs_take_less_than_600_kb(results, tmp_path):
    paths = []
    for i in range(18):
        paths.append(tmp_path / f"training{i}" / "history.csv")
        paths[-1].parent.mkdir()
        lines = [f"{n},{n * 312},{1 / n:.6g},0.001,12345.67,{1 - 1 / n:.6g},0.412345" for n in range(1, 101)]
        paths[-1].write_text(
            "epoch,step,loss,learning_rate,clips_per_s,eval_cosine,constant_cosine\n" + "\n".join(lines)
        )
    results["histories"] = paths
    training = section(results, "training")
    assert training.count("<title>") == 18 * 2 * 100
    assert len(training) < 600_000


def test_components_of_the_loss_are_not_scores(results):
    assert "training epochs loss eval cosine constant cosine clips/s" in render_page(results).text


def test_tables_contain_only_scores_of_their_seeds_and_settings(results, tmp_path):
    for changes in ({"seed": 1}, {"n_clusters": 0}, {"loss": "mse"}):
        results["scores"].append(write_score(tmp_path, distilled(**changes), "esc50", [0.1, 0.1]))
    results["table2"] = {
        "teacher": "matpac",
        "student": "dymn",
        "losses": ["mse", "kl"],
        "n_clusters": 50,
        "seeds": [0],
        "music": ["esc50"],
        "environment": [],
    }
    page = render_page(results)
    assert "dymn reaches 94.9 % of the average of matpac" in page.text
    text = results["out"].read_text()
    table2 = text.partition('<section id="table2">')[2].partition("</section>")[0]
    assert re.findall(r"<td[^>]*>([^<]+)</td>", table2) == ["mse", "10.0", "–", "10.0", "kl", "–", "–", "–"]


def test_clips_are_counted_by_split_by_reason_and_by_class(results):
    text = render_page(results).text
    assert "train 100 97 97.0 3 0 " in text  # listed, available, per cent, unavailable, failed
    assert "eval 2 1 50.0 0 1 " in text
    assert "timeout eval failed 1 50.00" in text
    assert "97 training clips" in text
    # The class with the most missing clips comes first; a class without listed clips in a split is left out.
    train, evaluation = text.partition("Classes of the train clips")[2].split("Classes of the eval clips")
    assert "failed Whoosh, swoosh, swish 3 0 0.0 3 0 Speech 97 97 100.0 0 0" in train
    assert "failed Whoosh, swoosh, swish 2 1 50.0 0 1" in evaluation
    assert "Speech" not in evaluation.partition("Rules")[0]


def test_corpus_without_labels_and_missing_clips_has_no_classes_and_no_reasons(results, tmp_path):
    (tmp_path / "bare").mkdir()
    clips = {"train": [("", "OK", "")] * 4, "eval": []}
    results["availability"] = write_availability(tmp_path / "bare", clips)
    text = render_page(results).text
    assert "train 4 4 100.0 0 0 " in text
    assert "eval 0 0 – 0 0 " in text
    assert "Classes of" not in text
    assert "Reasons" not in text


def test_classes_of_audioset_are_folded_and_take_less_than_500_kb(results, tmp_path):
    (tmp_path / "large").mkdir()
    classes = [(f"/m/{i:06d}", f"A class with a name of some length, number {i}") for i in range(527)]
    clips = {split: [(mid, "OK", "") for mid, _ in classes] for split in ("train", "eval")}
    render_page(results)
    small = results["out"].stat().st_size
    results["availability"] = write_availability(tmp_path / "large", clips, classes)
    render_page(results)
    text = results["out"].read_text(encoding="utf-8")
    assert text.count("<tr>") > 2 * 527
    assert len(text.encode()) - small < 500_000
    titles = re.findall(r"<details( open)?><summary>(Classes[^<]*)", text)
    assert titles == [("", f"Classes of the {split} clips, the one that lost most first: 527") for split in clips]


def test_numbers_sort_by_value_and_not_by_their_text(results):
    orders = [value for tag, name, value in render_page(results).attributes if tag == "td" and name == "data-order"]
    assert "3725.5" in orders
    assert "97" in orders


def test_rule_graph_is_drawn_with_job_counts_and_without_shortcuts(results):
    render_page(results)
    text = results["out"].read_text()
    drawing = re.search(r'<svg class="graph".*?</svg>', text, re.DOTALL)[0]
    assert drawing.count('class="node"') == 3
    assert drawing.count('class="edge"') == 2
    assert "1 job, 1 h 2 min" in drawing


def test_versions_and_machines_of_the_scores_are_counted(results):
    text = render_page(results).text.partition("what version scores")[2]
    assert "processor A small one 3" in text
    assert "gpu (distill) NVIDIA H100 3" in text


def test_score_without_a_machine_has_no_line_about_it(results):
    for path in results["scores"]:
        value = json.loads(path.read_text())
        del value["environment_of"]
        path.write_text(json.dumps(value | {"environment": {"python": "3.11"}}))
    text = render_page(results).text
    assert "trained on" not in text
    assert "environment python 3.11" in text


def test_names_from_data_are_text_and_never_markup(results, tmp_path):
    markup = "<script>alert(1)</script>&\"'"
    results["title"] = markup
    path = results["availability"] / "availability.json"
    value = json.loads(path.read_text())
    value["train"]["reasons"]["FAILED"] = {markup: 1}
    path.write_text(json.dumps(value))
    results["scores"].append(
        write_score(tmp_path / "audio", model("teacher", "x"), "t", [0.5], environment={"a": markup})
    )
    page = render_page(results)
    assert results["out"].read_text().count("<script>") == 1
    assert page.text.count("<script>alert(1)</script>&\"'") == 5  # title twice, reason, origin, made with


def test_sections_without_data_are_left_out(results):
    small = {name: results[name] for name in ("title", "table1", "scores", "out")}
    page = render_page({**small, "benchmarks": results["benchmarks"] / "absent"})
    assert [key for key in page.ids if not key.startswith("origin-")] == ["table1", "scores", "made"]


def test_equal_results_give_equal_bytes(results):
    render_page(results)
    first = results["out"].read_bytes()
    render_page(results)
    assert results["out"].read_bytes() == first


def test_run_times_are_read_by_rule_and_incomplete_files_are_left_out(tmp_path):
    (tmp_path / "embed" / "yamnet").mkdir(parents=True)
    (tmp_path / "embed" / "yamnet" / "train-0000.tsv").write_text("s\th:m:s\tmax_rss\n12.5\t0:00:12\t-\n")
    (tmp_path / "table1.tsv").write_text("s\th:m:s\tmax_rss\n1.0\t0:00:01\t100.5\n")
    (tmp_path / "broken.tsv").write_text("")
    jobs = read_benchmarks(tmp_path)
    assert [(job.rule, job.wildcards, job.seconds, job.max_rss_mb) for job in jobs] == [
        ("embed", "yamnet/train-0000", 12.5, None),
        ("table1", "", 1.0, 100.5),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.42, "0.4 s"), (42.4, "42 s"), (59.7, "1 min 0 s"), (200, "3 min 20 s"), (3 * 3600 + 300, "3 h 5 min")],
)
def test_durations_are_written_in_words(seconds, text):
    assert duration(seconds) == text


def test_missing_history_is_an_error_that_names_the_command_to_make_it(results):
    results["histories"] = [results["histories"][0].with_name("none.csv")]
    with pytest.raises(SsondoError, match=r"none\.csv.*snakemake"):
        report(**results)


# The graph of the rules


def test_edges_that_a_longer_path_replaces_are_not_drawn():
    drawing = draw_rules({"c": ["b", "a", "d"], "b": ["a"], "d": ["a"]}, {})
    assert [box.name for box in drawing.boxes] == ["a", "b", "d", "c"]
    assert len(drawing.curves) == 4


def test_rules_are_drawn_below_their_sources_and_just_above_their_first_reader():
    drawing = draw_rules({"b": ["a"], "c": ["b"], "d": ["c", "late"]}, {})
    y = {box.name: box.y for box in drawing.boxes}
    assert y["a"] < y["b"] < y["c"] == y["late"] < y["d"]


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "{}", '{"a": 1}', '{"a": ["b"], "b": ["a"]}'])
def test_page_without_a_readable_rule_graph_leaves_the_section_out_and_says_so(results, text, caplog):
    if text is None:
        results["rule_graph"].unlink()
    else:
        results["rule_graph"].write_text(text)
    page = render_page(results)
    assert "rules" not in page.ids
    assert "times" in page.ids
    clause = "The graph of the rules is left out; the log says why."
    assert page.text.count(clause) == 1
    reason = f"{results['rule_graph']} is missing or holds no graph; "
    assert f"the graph of the rules is left out: {reason}" in caplog.text


def test_boxes_of_the_graph_do_not_overlap():
    nodes = [f"a_rather_long_rule_{i}" for i in range(8)]
    drawing = draw_rules({"all": nodes}, {})
    centres = sorted(box.x for box in drawing.boxes if box.name != "all")
    assert len(centres) == 8
    assert all(b - a > drawing.box_width for a, b in pairwise(centres))
    assert 2 * max(map(abs, centres)) + drawing.box_width < drawing.width
