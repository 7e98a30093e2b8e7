"""The page is complete without a network, gives the origin of each number and takes no data as HTML."""

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
    """A parsed page; tags that are not nested correctly are an error."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.targets, self.attributes, self.words = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if "id" in found:
            self.ids.append(found["id"])
        if "popovertarget" in found:
            self.targets.append(found["popovertarget"])
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


def made(results):
    report(**results)
    return Page(results["out"].read_text(encoding="utf-8"))


def test_the_page_refers_to_nothing_outside_itself(results):
    page = made(results)
    for tag, name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), (tag, name, value)
    text = results["out"].read_text()
    assert not re.search(r"https?://|@import|url\(", text)


def test_the_page_is_for_phones_and_for_both_colour_schemes(results):
    page = made(results)
    assert ("meta", "name", "viewport") in page.attributes
    assert ("meta", "content", "light dark") in page.attributes
    assert "prefers-color-scheme:dark" in results["out"].read_text()


def test_every_link_and_every_opener_finds_its_target_and_no_id_comes_twice(results):
    page = made(results)
    assert len(page.ids) == len(set(page.ids))
    assert page.targets
    assert set(page.targets) <= set(page.ids)
    assert {value[1:] for tag, name, value in page.attributes if name == "href"} <= set(page.ids)


def test_every_score_opens_its_origin(results):
    page = made(results)
    text = page.text
    # Once from Table 1, once from the list of all scores, once to close it.
    assert sum(target == "origin-distilled-matpac-dymn-cosine-50-esc50" for target in page.targets) == 3
    for said in (
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
        assert said in text, said


def test_headline_has_the_share_of_the_teacher_and_the_size(results):
    # 86.4 of 91.0 is 94.9 %.
    text = made(results).text
    assert "dymn reaches 94.9 % of the average of matpac with 2.97 of its 86.00 million parameters" in text
    assert "(average 86.4; supervised 80.0)" in text


def test_published_numbers_are_below_ours(results):
    # The paper's DyMN from MATPAC on ESC-50: 91.9 ± 0.1, ours 86.4 ± 0.0.
    assert "91.9 (-5.5 ≠)" in made(results).text


def test_scores_on_different_clips_get_a_note_that_they_do_not_compare(results):
    assert "stand on different lists of clips, so they do not compare" in made(results).text


def test_page_has_trainings_clusters_clips_and_run_times(results):
    page = made(results)
    text = page.text
    assert "0.250 0.830 0.400 505" in text  # loss, cosine, constant, median speed
    assert "1 h 2 min" in text
    assert "private video train unavailable 3 3.00" in text
    assert "k3 3 60 1.5 – 1.25 33 10 30" in text
    images = [value for tag, name, value in page.attributes if tag == "img" and name == "src"]
    found = [base64.b64decode(image.removeprefix("data:image/png;base64,")) for image in images]
    # Curves of the training, sizes and map of the clustering, plots of the corpus.
    assert found == [PIXEL, PIXEL, PIXEL, (results["availability"] / "availability.png").read_bytes()]


def test_parts_of_the_loss_are_not_scores(results):
    assert "training epochs loss eval cosine constant cosine clips/s" in made(results).text


def test_tables_have_the_scores_of_their_own_seeds_and_settings(results, tmp_path):
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
    page = made(results)
    assert "dymn reaches 94.9 % of the average of matpac" in page.text
    text = results["out"].read_text()
    table2 = text.partition('<section id="table2">')[2].partition("</section>")[0]
    assert re.findall(r"<td[^>]*>([^<]+)</td>", table2) == ["mse", "10.0", "–", "10.0", "kl", "–", "–", "–"]


def test_clips_are_counted_by_split_by_reason_and_by_class(results):
    text = made(results).text
    assert "train 100 97 97.0 3 0 " in text  # listed, there, per cent, unavailable, failed
    assert "eval 2 1 50.0 0 1 " in text
    assert "timeout eval failed 1 50.00" in text
    assert "97 training clips" in text
    # The class that lost most comes first, a class that a split lacks not at all.
    train, evaluation = text.partition("Classes of the train clips")[2].split("Classes of the eval clips")
    assert "failed Whoosh, swoosh, swish 3 0 0.0 3 0 Speech 97 97 100.0 0 0" in train
    assert "failed Whoosh, swoosh, swish 2 1 50.0 0 1" in evaluation
    assert "Speech" not in evaluation.partition("Rules")[0]


def test_a_corpus_without_labels_or_gaps_has_neither_classes_nor_reasons(results, tmp_path):
    (tmp_path / "bare").mkdir()
    clips = {"train": [("", "OK", "")] * 4, "eval": []}
    results["availability"] = write_availability(tmp_path / "bare", clips)
    text = made(results).text
    assert "train 4 4 100.0 0 0 " in text
    assert "eval 0 0 – 0 0 " in text
    assert "Classes of" not in text
    assert "Reasons" not in text


def test_classes_of_audioset_are_folded_and_take_less_than_500_kb(results, tmp_path):
    (tmp_path / "large").mkdir()
    classes = [(f"/m/{i:06d}", f"A class with a name of some length, number {i}") for i in range(527)]
    clips = {split: [(mid, "OK", "") for mid, _ in classes] for split in ("train", "eval")}
    made(results)
    small = results["out"].stat().st_size
    results["availability"] = write_availability(tmp_path / "large", clips, classes)
    made(results)
    text = results["out"].read_text(encoding="utf-8")
    assert text.count("<tr>") > 2 * 527
    assert len(text.encode()) - small < 500_000
    titles = re.findall(r"<details( open)?><summary>(Classes[^<]*)", text)
    assert titles == [("", f"Classes of the {split} clips, the one that lost most first: 527") for split in clips]


def test_numbers_sort_by_value_and_not_by_their_text(results):
    orders = [value for tag, name, value in made(results).attributes if tag == "td" and name == "data-order"]
    assert "3725.5" in orders
    assert "97" in orders


def test_the_rule_graph_is_drawn_with_job_counts_and_without_shortcuts(results):
    made(results)
    text = results["out"].read_text()
    drawing = re.search(r'<svg class="graph".*?</svg>', text, re.DOTALL)[0]
    assert drawing.count('class="node"') == 3
    assert drawing.count('class="edge"') == 2
    assert "1 job, 1 h 2 min" in drawing


def test_versions_and_machines_of_the_scores_are_counted(results):
    text = made(results).text.partition("what version scores")[2]
    assert "processor A small one 3" in text
    assert "gpu (distill) NVIDIA H100 3" in text


def test_score_without_a_machine_has_no_line_about_it(results):
    for path in results["scores"]:
        value = json.loads(path.read_text())
        del value["environment_of"]
        path.write_text(json.dumps(value | {"environment": {"python": "3.11"}}))
    text = made(results).text
    assert "trained on" not in text
    assert "environment python 3.11" in text


def test_names_from_data_are_text_and_never_markup(results, tmp_path):
    evil = "<script>alert(1)</script>&\"'"
    results["title"] = evil
    path = results["availability"] / "availability.json"
    value = json.loads(path.read_text())
    value["train"]["reasons"]["FAILED"] = {evil: 1}
    path.write_text(json.dumps(value))
    results["scores"].append(
        write_score(tmp_path / "audio", model("teacher", "x"), "t", [0.5], environment={"a": evil})
    )
    page = made(results)
    assert results["out"].read_text().count("<script>") == 1
    assert page.text.count("<script>alert(1)</script>&\"'") == 5  # title twice, reason, origin, made with


def test_sections_without_data_are_left_out(results):
    small = {name: results[name] for name in ("title", "table1", "scores", "out")}
    page = made({**small, "benchmarks": results["benchmarks"] / "absent"})
    assert [key for key in page.ids if not key.startswith("origin-")] == ["table1", "scores", "made"]


def test_equal_results_give_equal_bytes(results):
    made(results)
    first = results["out"].read_bytes()
    made(results)
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


def test_every_rule_is_drawn_below_its_sources_and_just_above_its_first_reader():
    drawing = draw_rules({"b": ["a"], "c": ["b"], "d": ["c", "late"]}, {})
    y = {box.name: box.y for box in drawing.boxes}
    assert y["a"] < y["b"] < y["c"] == y["late"] < y["d"]


def test_rules_that_depend_on_each_other_in_a_circle_have_no_drawing(results):
    assert draw_rules({"a": ["b"], "b": ["a"]}, {}) is None
    results["rule_graph"].write_text(json.dumps({"a": ["b"], "b": ["a"]}))
    assert "rules" not in made(results).ids


def test_boxes_of_the_graph_do_not_overlap():
    nodes = [f"a_rather_long_rule_{i}" for i in range(8)]
    drawing = draw_rules({"all": nodes}, {})
    centres = sorted(box.x for box in drawing.boxes if box.name != "all")
    assert len(centres) == 8
    assert all(b - a > drawing.box_width for a, b in pairwise(centres))
    assert 2 * max(map(abs, centres)) + drawing.box_width < drawing.width
