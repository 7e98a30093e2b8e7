"""Loading, validation and documentation of the configuration."""

from pathlib import Path

import pytest
import yaml

from ssondo.config import Config
from ssondo.config.loading import RENAMED_KEYS, load_config, load_files
from ssondo.errors import SsondoError

ROOT = Path(__file__).parents[2]


def test_committed_config_is_the_default() -> None:
    assert load_config(yaml.safe_load((ROOT / "config.yaml").read_text())) == Config()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"probee": {}}, "config: unknown key 'probee' (did you mean 'probe'?)"),
        ({"probe": {"step": 3}}, "config: unknown key 'probe.step' (did you mean 'steps'?)"),
        (
            {"students": {"mine": {"architecture": "dymn", "setings": {}}}},
            "config: unknown key 'students.mine.setings' (did you mean 'settings'?)",
        ),
        (
            {"teachers": {"mine": {"kind": "matpac", "checkpoint": {"sha": "x"}}}},
            "config: unknown key 'teachers.mine.checkpoint.sha' (did you mean 'sha256'?)",
        ),
        (
            {"runtime": {"cluster_memory_mb": 8000}},
            "config: unknown key 'runtime.cluster_memory_mb'; it was renamed to 'cluster.memory_mb'",
        ),
        (
            {"probe": {"steps": "many"}},
            "config: probe.steps: 'many' is not allowed; it should be a whole number",
        ),
        (
            {"distill": {"batch_size": 0}},
            "config: distill.batch_size: 0 is not allowed; it should be greater than or equal to 1",
        ),
        (
            {"students": {"mine": {"architecture": "dymn", "window_s": 0.01}}},
            "config: students.mine.window_s: 0.01 is not allowed; it should be greater than or equal to 0.1",
        ),
        (
            {"audioset": 3},
            "config: audioset: 3 is not allowed; it should be a section, i.e. keys with values",
        ),
        ({"distill": None}, "config: distill: this section is empty; add keys or remove it"),
        (
            {"paths": {"data": "my data"}},
            "config: paths.data: 'my data' is not allowed; "
            "it should be a path of letters, digits and . / ~ + @ = _ -, without spaces",
        ),
        (
            {"name": "my exp"},
            "config: name: 'my exp' is not allowed; "
            "it should be a name of letters, digits and _, not beginning with _, without spaces and hyphens",
        ),
        (
            {"teachers": {"my-teacher": {"kind": "yamnet", "checkpoint": {"path": "x"}}}},
            "config: teachers.my-teacher: 'my-teacher' is not allowed; "
            "it should be a name of letters, digits and _, not beginning with _, without spaces and hyphens",
        ),
        ({"table1": {"teachers": []}}, "config: table1.teachers: the list is empty; at least 1 entry is required"),
        (
            {"teachers": {"mine": {"kind": "onnx", "checkpoint": "mine.onnx"}}},
            "config: teachers.mine.checkpoint: 'mine.onnx' is not allowed; "
            "it should be a section; write {path: mine.onnx}",
        ),
        (
            {"students": {"mine": {"architecture": "dymn", "pretrained": "https://x.org/y.pt"}}},
            "config: students.mine.pretrained: 'https://x.org/y.pt' is not allowed; "
            "it should be a section; write {url: https://x.org/y.pt}",
        ),
        (
            {"teachers": {"mine": {"kind": "callable", "callable": "ct.embed"}}},
            "config: teachers.mine.callable: 'ct.embed' is not allowed; "
            "it should be of the form package.module:function, without spaces and hyphens",
        ),
        (
            {"teachers": {"mine": {"kind": "yamnet", "checkpoint": {"path": "x", "sha256": "ABC"}}}},
            "config: teachers.mine.checkpoint.sha256: 'ABC' is not allowed; "
            "it should be 64 hexadecimal digits in lower case",
        ),
        (
            {"audioset": {"source": "youtube"}},
            "config: audioset.source: 'youtube' is not allowed; it should be a section; write {kind: youtube}",
        ),
        (
            {"audioset": {"segments": {"train": "x.csv"}}},
            "config: audioset.segments.train: 'x.csv' is not allowed; it should be a list; write it in [ ]",
        ),
        (
            {"students": {"mine": {"architecture": "dymn", "settings": {"anneal": None}}}},
            "config: students.mine.settings.anneal: None is not allowed; "
            "it should be a number, true or false, a string, or a list of whole numbers",
        ),
        (
            {"audioset": {"source": {"kind": "foldr"}}},
            "config: audioset.source.kind: 'foldr' is not allowed; it should be one of "
            "'youtube', 'folder', 'hdf5', 'parquet', 'webdataset', 'renderer'",
        ),
        (
            {"audioset": {"source": {"kind": "folder", "pth": "x"}}},
            "config: unknown key 'audioset.source.pth' (did you mean 'path'?) (and 1 more)",
        ),
        ({"audioset": {"source": {"kind": "folder"}}}, "config: audioset.source.path: this key is missing"),
        (
            {"teachers": {"mine": {"kind": "onnx"}}},
            "config: teachers.mine: kind onnx needs sample_rate and embedding_dim",
        ),
        (
            {"probe": {"patience": 20}},
            "config: probe: patience is 20, below validate_every (50): a probe would stop between two validations; "
            "raise patience or lower validate_every",
        ),
        (
            {"teachers": {"mine": {"kind": "matpac", "checkpoint": {"path": "x"}, "sample_rate": 16000}}},
            "config: teachers.mine: kind matpac has its own sample_rate; leave sample_rate out",
        ),
        (
            {"teachers": {"mine": {"kind": "yamnet", "checkpoint": {"path": "x"}, "embedding_dim": 8}}},
            "config: teachers.mine: kind yamnet has its own embedding_dim; leave embedding_dim out",
        ),
        (
            {"table1": {"tasks": ["esc5"]}},
            "config: table1.tasks: 'esc5' is not one of openmic, nsynth, gtzan, mtt, fsd50k, esc50, us8k "
            "(did you mean 'esc50'?)",
        ),
        (
            {"tasks": {"average": {"kind": "esc50"}}, "table1": {"tasks": ["average"]}},
            "config: tasks.average: Table 1 already has a column of this name; rename the task",
        ),
        *(
            ({section: {key: entries}}, f"config: {section}.{key}: {repeated!r} is listed more than once; list it once")
            for section, key, entries, repeated in (
                ("table1", "teachers", ["m2d", "m2d"], "m2d"),
                ("table1", "students", ["dymn", "mobilenetv3", "dymn"], "dymn"),
                ("table1", "baselines", ["supervised", "supervised"], "supervised"),
                ("table1", "tasks", ["esc50", "gtzan", "esc50"], "esc50"),
                ("table1", "seeds", [1, 1], 1),
                ("table2", "losses", ["l1", "mse", "l1"], "l1"),
                ("table2", "music", ["gtzan", "gtzan"], "gtzan"),
                ("table2", "environment", ["esc50", "esc50"], "esc50"),
                ("fig2", "n_clusters", [0, 30, 30], 30),
                ("probe", "seeds", [0, 0], 0),
            )
        ),
        (
            {"runtime": {"gpus": 8, "nodes": 2}},
            "config: distill.batch_size: 120 clips cannot be shared evenly by the 16 processes of runtime.gpus and "
            "runtime.nodes; set it to a multiple of 16",
        ),
        (
            {"runtime": {"gpus": 7}, "distill": {"batch_size": 112}},
            "config: supervise.batch_size: 120 clips cannot be shared evenly by the 7 processes of runtime.gpus and "
            "runtime.nodes; set it to a multiple of 7",
        ),
        *(
            (
                {section: {"n_clusters": counts}},
                f"config: {section}.n_clusters: 1 is not allowed; it should be 0, for no clusters, or at least 2",
            )
            for section, counts in (("table1", 1), ("table2", 1), ("fig2", [0, 1, 2]))
        ),
        (
            {"audioset": {"sample_rate": 16000}},
            "config: audioset.sample_rate: 16000 is not allowed; the students require 32000 "
            "(to keep only the bandwidth of the published pipeline, set audioset.bandlimit_rate: 16000)",
        ),
        (
            {"audioset": {"segments": {"classes": ""}}},
            "config: table1.baselines: supervised needs labels; set audioset.segments.classes, or remove supervised",
        ),
        (
            {"audioset": {"source": {"kind": "folder", "path": "x"}, "segments": {"train": []}}},
            "config: table1.baselines: supervised needs labels; set audioset.segments.train, or remove supervised",
        ),
        (
            {
                "audioset": {"source": {"kind": "folder", "path": "x"}, "segments": {"train": []}},
                "distill": {"prediction_weight": 0.5},
            },
            "config: distill.prediction_weight: needs labels; set audioset.segments.train",
        ),
        (
            {"audioset": {"source": {"kind": "folder", "path": "x", "eval_share": 0}, "segments": {"train": []}}},
            "config: audioset.source.eval_share: 0 is not allowed; it should be greater than 0",
        ),
        (
            {"audioset": {"segments": {"train": []}}},
            "config: audioset.segments.train: the list is empty; give the paths or URLs of AudioSet's segment lists",
        ),
    ],
)
def test_invalid_value_is_reported_in_one_line_with_its_key_and_a_remedy(values: dict, sentence: str) -> None:
    with pytest.raises(SsondoError) as error:
        load_config(values)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("written", "meant"), [("./data", "data"), ("data/", "data"), ("/scratch//me/", "/scratch/me"), ("../x", "../x")]
)
def test_folders_of_the_workflow_are_normalised(written: str, meant: str) -> None:
    paths = load_config({"paths": {"data": written, "results": written}}).paths
    assert (paths.data, paths.results) == (meant, meant)


def test_files_are_merged_over_config_yaml_as_snakemake_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text("name: one\nprobe: {steps: 7, patience: 60}\n")
    Path("mine.yaml").write_text("probe: {steps: 9}\n")
    config = load_files([Path("mine.yaml")])
    assert (config.name, config.probe.steps, config.probe.patience) == ("one", 9, 60)


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n", "it has no keys"), ("a: [\n", "is not YAML"), ("probee: {}\n", "unknown key 'probee'")],
)
def test_file_that_is_not_a_configuration_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    with pytest.raises(SsondoError, match=message):
        load_files([Path("mine.yaml")])


def test_keys_of_the_default_source_do_not_remain_with_another_source() -> None:
    source = Config().audioset.source.model_dump() | {"kind": "renderer", "seed": 3}
    loaded = load_config({"audioset": {"source": source}}).audioset.source
    assert loaded.model_dump() == {"kind": "renderer", "seed": 3, "n_train": 6000, "n_eval": 400}


def test_every_pattern_has_a_description_for_error_messages() -> None:
    from typing import get_args

    from ssondo.config.base import PlainPath
    from ssondo.config.loading import PATTERNS

    found: set[str] = set()

    def visit(part: object) -> None:
        if isinstance(part, dict):
            found.update(value for key, value in part.items() if key == "pattern" and isinstance(value, str))
            found.update(key for key in part.get("patternProperties", {}))
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            visit(inner)

    visit(Config.model_json_schema())
    # The schema lacks the pattern of PlainPath because a validator precedes it.
    assert found | {get_args(PlainPath)[-1].metadata[0].pattern} == set(PATTERNS)


# The docstring of the class describes these keys.
SECTIONS = ("embed", "cluster", "distill", "supervise", "runtime", "probe", "table1")


def test_every_key_is_described() -> None:
    from ssondo.config.writing import _sections

    undescribed = [
        f"{section.__name__}.{name}"
        for section in _sections(Config, [])
        for name, field in section.model_fields.items()
        if not (field.description or "").endswith(".") and name not in ("paths", "audioset", "segments", *SECTIONS)
    ]
    assert undescribed == []


def test_sample_rate_of_the_corpus_is_that_of_the_students() -> None:
    from ssondo.audio.log_mel_settings import STUDENT
    from ssondo.students.student import Student

    assert Student("mobilenetv3", backbone={"width_mult": 0.1}).sample_rate == STUDENT.sample_rate


def test_every_name_of_a_registry_is_allowed() -> None:
    from typing import get_args

    from ssondo.config.distill import Loss
    from ssondo.config.tasks import Task
    from ssondo.config.teachers import Teacher
    from ssondo.provenance import registered

    assert set(get_args(Loss)) == set(registered("ssondo.distill", "LOSSES"))
    assert set(get_args(Teacher.model_fields["kind"].annotation)) == set(registered("ssondo.teachers", "TEACHERS"))
    assert set(get_args(Task.model_fields["kind"].annotation)) == set(registered("ssondo.tasks", "READERS"))


def test_needs_of_a_loss_are_read_from_its_source() -> None:
    from ssondo.config.signatures import needs_clusters, option_names
    from ssondo.distill import LOSSES
    from ssondo.system.registry import look_up, parameters_of

    for name in LOSSES:
        loss = look_up("loss", name, LOSSES)
        assert needs_clusters(name) == loss.needs_clusters
        assert option_names(name) == set(parameters_of(loss))
    assert needs_clusters("hybrid")
    assert not needs_clusters("cosine")
    assert "temperature" in option_names("kl")


def test_needs_of_a_loss_are_inherited_from_its_base_class(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from ssondo.config import signatures

    source = tmp_path / "gentle.py"
    source.write_text("from ssondo.distill.losses import Hybrid as Sum\n\nclass Gentle(Sum):\n    pass\n")
    monkeypatch.setitem(signatures.LOSSES, "gentle", "ssondo.distill.gentle:Gentle")
    real = signatures.source_file
    monkeypatch.setattr(
        signatures, "source_file", lambda name: source if name == "ssondo.distill.gentle" else real(name)
    )
    assert signatures.needs_clusters("gentle")
    assert signatures.option_names("gentle") == signatures.option_names("hybrid")


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_former_key_is_refused_with_its_present_name(old: str, new: str) -> None:
    *sections, key = old.replace("*", "dymn").split(".")
    values = nested = Config().model_dump()
    # Keys of other sources are ignored, so the source must be one that has the key.
    if sections == ["audioset", "source"] and key == "whole_files":
        values["audioset"]["source"] = {"kind": "hdf5", "path": "clips.h5"}
    for section in sections:
        nested = nested[section]
    nested[key] = 1
    with pytest.raises(SsondoError) as error:
        load_config(values)
    old_key, new_key = old.replace("*", "dymn"), new.replace("*", "dymn")
    assert str(error.value) == f"config: unknown key {old_key!r}; it was renamed to {new_key!r}"


@pytest.mark.parametrize("new", RENAMED_KEYS.values())
def test_present_name_of_a_former_key_exists(new: str) -> None:
    *sections, key = new.replace("*", "dymn").split(".")
    values = Config().model_dump()
    if key == "files_are_clips":
        values["audioset"]["source"] = {"kind": "hdf5", "path": "clips.h5"}
    for section in sections:
        values = load_config(values).model_dump()[section] if section == "audioset" else values[section]
    assert key in values
