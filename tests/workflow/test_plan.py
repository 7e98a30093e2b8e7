import re
import shlex
from pathlib import Path

import pytest

from ssondo.config import Config
from ssondo.config.loading import load_config
from ssondo.errors import SsondoError
from ssondo.probe.model_id import ModelId
from ssondo.provenance import user_code
from ssondo.workflow.cli_options import to_cli_options
from ssondo.workflow.experiment import Experiment
from ssondo.workflow.input_digests import InputDigests
from ssondo.workflow.launch import processes_per_node
from ssondo.workflow.preflight import check_config, source_of
from ssondo.workflow.rules import RULES, distill, tasks

ROOT = Path(__file__).parents[2]
OWN = {"kind": "table", "path": "mine.csv"}
ONLY_ESC50 = {"table1": {"tasks": ["esc50"]}, "table2": None, "fig2": None}


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    return Experiment(Config(), InputDigests(tmp_path / "cache.json"))


@pytest.mark.parametrize(
    "model",
    [
        ModelId("teacher", teacher="m2d"),
        ModelId("distilled", "matpac", "dymn", "cosine", 50, 3),
        ModelId("supervised", student="dymn", seed=1),
        ModelId("untrained", student="eres2net"),
    ],
)
def test_model_can_be_parsed_from_its_path(model: ModelId) -> None:
    assert ModelId.parse(model.path) == model


def test_path_that_names_no_model_is_rejected() -> None:
    with pytest.raises(ValueError, match="students/x names no model"):
        ModelId.parse("students/x")


def test_options_are_quoted_for_the_shell() -> None:
    text = to_cli_options(
        name="it's", n=3, rate=8e-4, on=True, off=False, none=None, empty=[], many=[1, 2], spec={"b": 1, "a": "x y"}
    )
    assert shlex.split(text) == [
        *("--name", "it's", "--n", "3", "--rate", "0.0008", "--on", "--no-off", "--many", "1", "2"),
        *("--spec", '{"a": "x y", "b": 1}'),
    ]


def test_default_configuration_has_the_models_of_the_papers_tables(experiment: Experiment) -> None:
    assert len(experiment.targets.table1_models()) == 2 + 3 + 6
    assert len(experiment.targets.table2_models()) == 5
    assert [model.n_clusters for model in experiment.targets.fig2_models()] == [0, 30, 40, 45, 50, 55, 60]
    # Cosine at k = 0 is in Table 2 and Fig. 2, and k = 50 in Table 1 and Fig. 2; each is trained once.
    assert len([m for m in experiment.targets.models() if m.row_kind == "distilled"]) == 6 + 5 + 7 - 2


def test_report_shows_no_proxy_password_and_no_cookies_file(tmp_path: Path) -> None:
    source = {"kind": "youtube", "cookies": "/home/me/cookies.txt", "proxies": ["http://me:secret@proxy:80"]}
    experiment = Experiment(load_config({"audioset": {"source": source}}), InputDigests(tmp_path / "cache.json"))
    reported = experiment.job("report").options["config"]
    assert "secret" not in str(reported)
    assert "cookies.txt" not in str(reported)
    assert reported["audioset"]["source"]["requests_per_hour"] == 300


def test_every_rule_has_a_function_in_the_module_named_like_its_file() -> None:
    files = {path.stem: path.read_text() for path in (ROOT / "rules").glob("*.smk") if path.stem != "common"}
    rules = {rule: name for name, text in files.items() for rule in re.findall(r"^rule (\w+):", text, re.MULTILINE)}
    assert {rule: job.__module__.rpartition(".")[2] for rule, job in RULES.items()} == rules
    assert all(job.__name__ == rule for rule, job in RULES.items())


def test_options_of_a_rule_contain_no_settings_of_other_rules(experiment: Experiment) -> None:
    options = experiment.options("probe", model="teacher/m2d", task="esc50")
    assert "--steps 3000" in options
    assert "--n-clusters" not in options
    other = Experiment(load_config({"distill": {"learning_rate": 0.1}}), experiment.digests)
    assert other.options("probe", model="teacher/m2d", task="esc50") == options


@pytest.mark.parametrize(
    ("setting", "loss", "n_clusters", "matters"),
    [
        ({"temperature": 0.5}, "cosine", "50", False),
        ({"temperature": 0.5}, "contrastive", "50", True),
        ({"masking": "published"}, "contrastive", "50", False),
        ({"masking": "published"}, "cluster_aware", "50", True),
        ({"sampling": "uniform"}, "cosine", "0", False),
        ({"sampling": "uniform"}, "cosine", "50", True),
    ],
)
def test_setting_that_a_training_does_not_use_does_not_change_its_options(
    experiment: Experiment, setting: dict, loss: str, n_clusters: str, matters: bool
) -> None:
    wildcards = {"teacher": "m2d", "student": "dymn", "loss": loss, "n_clusters": n_clusters, "seed": "0"}
    other = Experiment(load_config({"distill": setting}), experiment.digests)
    assert (other.options("distill", **wildcards) != experiment.options("distill", **wildcards)) == matters


def test_hash_and_licence_of_weights_are_untracked_options(experiment: Experiment) -> None:
    config = Config().model_dump()
    config["teachers"]["m2d"]["checkpoint"] |= {"sha256": "1" * 64, "licence": "another"}
    other = Experiment(load_config(config), experiment.digests)
    of = {"checkpoint": "teacher-m2d", "file": "x"}
    assert other.options("checkpoint", **of) == experiment.options("checkpoint", **of)
    assert shlex.split(other.untracked_options("checkpoint", **of)) == [
        *("--sha256", "1" * 64, "--licence", "another", "--config-key", "teachers.m2d.checkpoint")
    ]


def test_clip_length_changes_resample_and_not_fetch(experiment: Experiment) -> None:
    other = Experiment(load_config({"audioset": {"clip_s": 5.0}}), experiment.digests)
    of = {"split": "train", "shard": "0000"}
    assert other.options("fetch", **of) == experiment.options("fetch", **of)
    assert other.options("resample", **of) != experiment.options("resample", **of)


def test_every_setting_of_a_rule_is_an_argument_of_its_verb(experiment: Experiment) -> None:
    import dataclasses
    import importlib
    import typing

    from ssondo.workflow.verbs import VERBS

    wildcards = {
        "index": {},
        "fetch": {"split": "train", "shard": "0000"},
        "resample": {"split": "train", "shard": "0000"},
        "checkpoint": {"checkpoint": "teacher-m2d", "file": "x"},
        "embed": {"teacher": "m2d", "split": "train", "shard": "0000"},
        "cluster": {"teacher": "m2d", "n_clusters": "50"},
        "distill": {"teacher": "m2d", "student": "dymn", "loss": "cosine", "n_clusters": "50", "seed": "0"},
        "supervise": {"student": "dymn", "seed": "0"},
        "initialise": {"student": "dymn", "seed": "0"},
        "download": {"task": "esc50", "file": "ESC-50-master.zip"},
        "prepare_task": {"task": "esc50"},
        "embed_task": {"model": "teacher/m2d", "task": "esc50"},
        "probe": {"model": "teacher/m2d", "task": "esc50"},
        "table1": {},
        "table2": {},
        "fig2": {},
        "report": {},
    }
    for rule, names in wildcards.items():
        module, _, verb = VERBS[rule].partition(":")
        hints = typing.get_type_hints(getattr(importlib.import_module(module), verb))
        dataclass_types = [hint for hint in hints.values() if dataclasses.is_dataclass(hint)]
        parameters = {*hints, *(field.name for hint in dataclass_types for field in dataclasses.fields(hint))}
        job = experiment.job(rule, **names)
        options = {*job.options, *job.untracked}
        assert options <= parameters, f"{rule}: {options - parameters}"


@pytest.mark.parametrize(
    ("section", "name", "values", "message"),
    [
        ("tasks", "esc50", {"kind": "esc50", "path": "no"}, "config: tasks.esc50.path: no does not exist"),
        (
            "audioset",
            "source",
            {"kind": "folder", "path": "no"},
            "config: audioset.source.path: no is not a folder",
        ),
        (
            "teachers",
            "m2d",
            {"kind": "m2d", "checkpoint": {"path": "no.pt"}},
            "config: teachers.m2d.checkpoint.path: no.pt is not a file",
        ),
        (
            "teachers",
            "mine",
            {"kind": "callable", "callable": "nowhere.at_all:f", "sample_rate": 16000, "embedding_dim": 8},
            "config: teachers.mine.callable: there is no module nowhere.at_all; check PYTHONPATH",
        ),
    ],
)
def test_missing_file_or_module_is_named_with_its_key(section: str, name: str, values: dict, message: str) -> None:
    config = Config().model_dump()
    config[section][name] = values
    with pytest.raises(SsondoError) as error:
        check_config(load_config(config))
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("table2", "table2 is null in this configuration; set it to have the table"),
        ("fig2", "fig2 is null in this configuration; set it to have the figure"),
        ("compose", "compose writes the lists of a rendered corpus; audioset.source.kind is youtube"),
        ("list_folder", "list_folder lists a folder's files; audioset.source.kind is youtube"),
    ],
)
def test_rule_that_the_configuration_does_not_use_is_rejected_in_one_line(
    tmp_path: Path, rule: str, message: str
) -> None:
    experiment = Experiment(load_config({"table2": None, "fig2": None}), InputDigests(tmp_path / "cache.json"))
    with pytest.raises(SsondoError) as error:
        experiment.options(rule)
    assert str(error.value) == message


def test_users_module_is_found_without_running_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, text in {
        "own_package/__init__.py": "raise RuntimeError('no GPU here')",
        "own_package/models.py": "",
        "own_namespace/models.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for package in ("own_package", "own_namespace"):
        assert source_of(f"{package}.models:embed") == str(tmp_path / package / "models.py")
    for absent in ("own_package.absent:embed", "own_package.models.absent:embed", "absent.models:embed", ".models:x"):
        assert source_of(absent) is None


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_command_with_the_largest_allowed_number_of_shards_is_accepted_by_the_system(
    tmp_path: Path, weight: float
) -> None:
    def with_shards(n_shards: int) -> Config:
        return load_config({"audioset": {"n_train_shards": n_shards}, "distill": {"prediction_weight": weight}})

    def allowed(n_shards: int) -> bool:
        try:
            check_config(with_shards(n_shards))
        except SsondoError:
            return False
        return True

    most = max(n for n in range(500, 2500, 100) if allowed(n))
    experiment = Experiment(with_shards(most), InputDigests(tmp_path / "cache.json"))
    stages = ("audio", "embeddings/matpac")
    read = [
        path for split in ("train", "eval") for stage in stages for path in experiment.paths.shard_paths(stage, split)
    ]
    names = {"teacher": "matpac", "student": "dymn", "loss": "cosine", "n_clusters": "50", "seed": "0"}
    segments = experiment.inputs("distill", **names)["segments"]
    assert len(" ".join([*read, *segments])) < 2**17 - 8_000


OWN_STUDENT = """
class Tiny(Other):
    def __init__(self, channels, bands: int = 4, *, names=("a",), rate=2, deep=False, extra: float | None = None):
        pass

class Open(Other):
    def __init__(self, **settings): ...

class Inherits(Other): ...
"""


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (
            {"architecture": "mobilenetv3", "settings": {"width": 0.4}},
            "settings.width: this setting does not exist; the settings are width_mult, strides, add_last "
            "(did you mean 'width_mult'?)",
        ),
        (
            {"architecture": "dymn", "settings": {"width_mult": "0.4"}},
            "settings.width_mult: '0.4' is not allowed; it must be a number",
        ),
        (
            {"architecture": "dymn", "settings": {"width_mult": True}},
            "settings.width_mult: True is not allowed; it must be a number",
        ),
        (
            {"architecture": "dymn", "settings": {"anneal": 1}},
            "settings.anneal: 1 is not allowed; it must be true or false",
        ),
        (
            {"architecture": "mobilenetv3", "settings": {"strides": 2}},
            "settings.strides: 2 is not allowed; it must be a list",
        ),
        (
            {"architecture": "eres2net", "settings": {"m_channels": 16.5}},
            "settings.m_channels: 16.5 is not allowed; it must be a whole number",
        ),
        (
            {"architecture": "eres2net", "window_s": 0.28},
            "window_s: 0.28 is too short for eres2net; it needs at least 0.288",
        ),
        (
            {"architecture": "eres2net", "settings": {"add_last": "no"}},
            "settings.add_last: 'no' is not allowed; it must be true or false",
        ),
        ({"architecture": "own_student:Tiny"}, "settings: channels is missing"),
        (
            {"architecture": "own_student:Tiny", "settings": {"channels": 1, "names": 3}},
            "settings.names: 3 is not allowed; it must be a list",
        ),
        (
            {"architecture": "broken_student:Tiny"},
            "architecture: {folder}/broken_student.py: invalid syntax (line 1)",
        ),
    ],
)
def test_student_that_cannot_be_built_is_rejected_before_any_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, student: dict, message: str
) -> None:
    (tmp_path / "own_student.py").write_text(OWN_STUDENT)
    (tmp_path / "broken_student.py").write_text("class class")
    monkeypatch.syspath_prepend(tmp_path)
    config = load_config({"students": {**Config().model_dump()["students"], "mine": student}})
    with pytest.raises(SsondoError) as error:
        check_config(config)
    assert str(error.value) == f"config: students.mine.{message.format(folder=tmp_path)}"


@pytest.mark.parametrize(
    "student",
    [
        {"architecture": "mobilenetv3", "settings": {"width_mult": 2, "strides": [2, 2, 2, 1]}},
        {"architecture": "dymn", "settings": {"temperature": 3, "anneal": True}},
        {"architecture": "dymn", "settings": {"add_last": False}},
        {"architecture": "eres2net", "window_s": 0.288, "settings": {"m_channels": 32}},
        {
            "architecture": "own_student:Tiny",
            "settings": {"channels": "x", "rate": 0.5, "deep": True, "extra": 1, "names": [1]},
        },
        {"architecture": "own_student:Open", "settings": {"anything": 1}},
        {"architecture": "own_student:Inherits", "settings": {"anything": 1}},
    ],
)
def test_student_that_can_be_built_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, student: dict) -> None:
    (tmp_path / "own_student.py").write_text(OWN_STUDENT)
    monkeypatch.syspath_prepend(tmp_path)
    check_config(load_config({"students": {**Config().model_dump()["students"], "mine": student}}))


@pytest.mark.parametrize("name", ["mobilenetv3", "dymn"])
@pytest.mark.parametrize("is_local", [False, True])
def test_weights_of_width_one_are_rejected_for_another_width(tmp_path: Path, name: str, is_local: bool) -> None:
    values = Config().model_dump()
    student = values["students"][name]
    student["settings"] = {"width_mult": 1}
    check_config(load_config(values))
    student["settings"] = {"width_mult": 0.4}
    if is_local:
        file = tmp_path / student["pretrained"]["url"].rpartition("/")[2]
        file.touch()
        student["pretrained"] = {"path": str(file)}
    with pytest.raises(SsondoError) as error:
        check_config(load_config(values))
    assert str(error.value) == (
        f"config: students.{name}.pretrained: these weights have width 1.0; set it to null, or to weights of width 0.4"
    )
    student["pretrained"] = None
    check_config(load_config(values))


def test_setting_of_a_users_class_is_not_passed_to_the_mapping_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssondo.students.student import build_student

    (tmp_path / "own_hidden.py").write_text(
        "from ssondo.students.backbone import Backbone\n"
        "class Tiny(Backbone):\n"
        "    def __init__(self, hidden: int = 8, dropout: float = 0.5) -> None:\n"
        "        super().__init__()\n"
        "        self.embedding_dim, self.hidden_dim, self.dropout = hidden, 3, dropout\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = {"architecture": "own_hidden:Tiny", "settings": {"hidden": 32, "dropout": 0.0, "add_last": False}}
    config = load_config({"students": {**Config().model_dump()["students"], "mine": mine}})
    check_config(config)
    spec = distill.student_spec(config, "mine")
    student = build_student(spec, n_outputs=4, seed=0)
    assert (student.embedding_dim, student.model.dropout) == (32, 0.0)
    assert (student.settings["hidden"], student.settings["dropout"], student.add_last) == (3, 0.2, False)


def test_minimum_window_agrees_with_the_front_end() -> None:
    from ssondo.audio.log_mel_settings import STUDENT

    assert STUDENT.n_frames(round(0.288 * 32_000)) == 17
    assert STUDENT.n_frames(round(0.288 * 32_000) - 1) == 16


def test_task_without_a_local_copy_is_prepared_from_downloaded_files(experiment: Experiment) -> None:
    assert tasks.archives(experiment, "esc50") == ["data/archives/esc50/ESC-50-master.zip"]
    assert len(tasks.archives(experiment, "fsd50k")) == 9
    assert tasks.task_spec(experiment, "fsd50k") == {"kind": "fsd50k", "path": "data/archives/fsd50k"}
    # The checksum and size do not change the file, so they are untracked.
    name = "FSD50K.eval_audio.z01"
    address = "https://zenodo.org/records/4060432/files/FSD50K.eval_audio.z01"
    assert shlex.split(experiment.options("download", task="fsd50k", file=name)) == ["--url", address]
    published = shlex.split(experiment.untracked_options("download", task="fsd50k", file=name))
    assert published[:4] == ["--md5", "3090670eaeecc013ca1ff84fe4442aeb", "--size", "3221225472"]
    assert published[-1] == "tasks.fsd50k.path"


def test_local_copy_is_not_downloaded(tmp_path: Path) -> None:
    config = load_config({"tasks": {"esc50": {"kind": "esc50", "path": "/data/esc"}, "own": OWN}, **ONLY_ESC50})
    experiment = Experiment(config, InputDigests(tmp_path / "cache.json"))
    assert tasks.archives(experiment, "esc50") == tasks.archives(experiment, "own") == []
    assert tasks.task_spec(experiment, "esc50") == {"kind": "esc50", "path": "/data/esc"}


@pytest.mark.parametrize("options", [{}, {"audio": "sounds"}], ids=str)
def test_digest_of_a_table_covers_the_audio_that_it_lists_and_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict
) -> None:
    monkeypatch.chdir(tmp_path)
    sound = Path("data", options.get("audio", "."), "a.wav")
    for file in (sound, Path("data/audio/train-0000.h5"), Path("sounds/a.wav")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"one")
    table = {"kind": "table", "path": "data/barks.csv", "options": options}
    rows = "".join(f"{'abcd'[index % 4]}.wav,{'xy'[index % 2]},{1 + index % 3}\n" for index in range(4))
    Path("data/barks.csv").write_text(f"path,label,fold\n{rows}")
    config = load_config({"tasks": {"barks": table}, "table1": {"tasks": ["barks"]}, "table2": None, "fig2": None})

    def digests() -> dict[str, str]:
        return dict(Experiment(config, InputDigests(Path("cache.json"))).job("prepare_task", task="barks").content)

    before = digests()
    assert set(before) == {"data/barks.csv", str(sound)}
    sound.write_bytes(b"another")
    assert digests()[str(sound)] != before[str(sound)]
    Path("data/barks.csv").write_text("no table")
    assert set(digests()) == {"data/barks.csv"}


def test_file_names_are_appended_to_the_mirror(tmp_path: Path) -> None:
    task = {"kind": "nsynth", "mirror": "https://mirror.example/nsynth/", "verify": False}
    experiment = Experiment(
        load_config({"tasks": {"esc50": task}, **ONLY_ESC50}), InputDigests(tmp_path / "cache.json")
    )
    options = experiment.options("download", task="esc50", file="nsynth-test.jsonwav.tar.gz")
    assert shlex.split(options) == ["--url", "https://mirror.example/nsynth/nsynth-test.jsonwav.tar.gz"]
    assert "--md5" not in experiment.untracked_options("download", task="esc50", file="nsynth-test.jsonwav.tar.gz")


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"kind": "table"}, "config: tasks.mine: kind table needs a path: the CSV"),
        ({"kind": "pattern"}, "config: tasks.mine: kind pattern needs a path: the folder"),
        ({"kind": "rendered", "mirror": "http://x"}, "config: tasks.mine: kind rendered is not downloaded"),
        ({"kind": "esc50", "mirror": "mirror.example"}, "config: tasks.mine.mirror: 'mirror.example' is not allowed"),
    ],
)
def test_task_without_data_is_rejected(task: dict, message: str) -> None:
    with pytest.raises(SsondoError) as error:
        load_config({"tasks": {**Config().model_dump()["tasks"], "mine": task}})
    assert str(error.value).startswith(message)


def test_digest_changes_with_content_and_not_with_modification_time(tmp_path: Path) -> None:
    file = tmp_path / "clips" / "abc.wav"
    file.parent.mkdir()
    file.write_bytes(b"one")

    def state() -> dict[str, str]:
        digests = InputDigests(tmp_path / "cache.json")
        tree = digests.tree(str(file.parent))
        digests.save()
        return tree

    before = state()
    file.touch()
    assert state() == before
    file.write_bytes(b"two")
    assert state() != before


def test_digests_of_a_folder_are_cached_for_later_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "abc.wav").write_bytes(b"one")
    cache = tmp_path / "cache.json"
    before = InputDigests(cache).tree(str(tmp_path / "clips"))
    monkeypatch.setattr("ssondo.workflow.input_digests.file_digest", lambda path: pytest.fail(f"{path} is read again"))
    assert InputDigests(cache).tree(str(tmp_path / "clips")) == before


def test_weights_in_a_package_are_copied_again_from_another_version_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def content(site: str, weights: bytes) -> str:
        file = tmp_path / site / "weights_package" / "model.onnx"
        file.parent.mkdir(parents=True)
        (file.parent / "__init__.py").touch()
        file.write_bytes(weights)
        config = Config().model_dump()
        config["teachers"]["m2d"]["checkpoint"] = {"package": "weights_package:model.onnx"}
        with monkeypatch.context() as patch:
            patch.syspath_prepend(tmp_path / site)
            experiment = Experiment(load_config(config), InputDigests(tmp_path / "cache.json"))
            return experiment.content("checkpoint", checkpoint="teacher-m2d", file="model.onnx")

    assert content("here", b"one") == content("elsewhere", b"one") != content("newer", b"two")


def test_digests_of_a_shard_include_the_files_of_its_clips(tmp_path: Path) -> None:
    from ssondo.storage.segments import shard_of

    for name in ("abc.wav", "Ydef.wav", "ghi_30.wav"):
        (tmp_path / name).write_bytes(name.encode())
    digests = InputDigests(tmp_path / "cache" / "c.json")
    for clip, name in [("abc", "abc.wav"), ("def", "Ydef.wav"), ("ghi", "ghi_30.wav")]:
        assert name in digests.shard(str(tmp_path), f"{shard_of(clip, 8):04d}", 8)


@pytest.mark.parametrize(
    ("runtime", "on_each_node"),
    [({"gpus": 0}, 1), ({"gpus": 1}, 1), ({"gpus": 4}, 4), ({"gpus": 4, "nodes": 2}, 4), ({"gpus": 0, "nodes": 2}, 1)],
)
def test_training_has_a_process_for_each_gpu_that_slurm_allocates(
    experiment: Experiment, runtime: dict, on_each_node: int
) -> None:
    resources = distill.training_resources(load_config({"runtime": runtime}))
    assert processes_per_node(int(resources["gpu"]), str(resources["gres"])) == on_each_node
    assert resources["nodes"] == runtime.get("nodes", 1)
    # With the key `mpi`, the plugin starts the job without srun, so only jobs on several nodes have it.
    assert ("mpi" in resources) == (resources["nodes"] != 1)


@pytest.mark.parametrize(
    ("runtime", "mem_mb"),
    [
        ({}, 32_000),
        ({"gpus": 0, "cache_mb": 100}, 32_000),
        ({"cache_mb": 10_000}, 38_000),
        ({"gpus": 4}, 68_000),
        ({"gpus": 8, "cache_mb": 20_000}, 244_000),
        # SLURM allocates mem_mb on each node.
        ({"gpus": 4, "nodes": 2}, 68_000),
    ],
)
def test_training_requests_the_memory_of_all_processes_on_a_node(runtime: dict, mem_mb: int) -> None:
    assert distill.training_memory_mb(load_config({"runtime": runtime})) == mem_mb


MODELS = '''"""Models."""
from torch import nn

from helpers import scale
import numpy

def embed(waveforms):
    """Embed."""
    if waveforms.ndim != 2:
        raise ValueError("two dimensions")
    return scale(waveforms)
'''


def test_users_module_counts_with_its_imports_from_the_same_folder_but_without_comments_and_messages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, helpers = tmp_path / "own_models.py", tmp_path / "helpers.py"
    models.write_text(MODELS)
    helpers.write_text("def scale(x):\n    return 2 * x\n")
    (tmp_path / "numpy_like.py").write_text("unrelated = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    teacher = {"kind": "callable", "callable": "own_models:embed", "sample_rate": 16_000, "embedding_dim": 8}

    def content() -> str:
        config = load_config(
            {"teachers": {"mine": teacher}, "table1": {"teachers": ["mine"]}, "table2": None, "fig2": None}
        )
        experiment = Experiment(config, InputDigests(tmp_path / "cache.json"))
        return experiment.content("embed", teacher="mine", split="train", shard="0000")

    before = content()
    assert before
    models.write_text(MODELS.replace("Embed.", "Return embeddings.").replace("two dim", "2 dim") + "# the end\n")
    helpers.write_text("# Scale.\ndef scale(x):\n    return 2 * x\n")
    (tmp_path / "numpy_like.py").write_text("unrelated = 2\n")
    assert content() == before
    helpers.write_text("def scale(x):\n    return 3 * x\n")
    changed = content()
    assert changed != before
    models.write_text(MODELS.replace("!= 2", "!= 3"))
    assert content() not in (before, changed)
    models.write_text("def embed(:\n")
    with pytest.raises(SsondoError, match=r"own_models.py: .*\(line 1\)"):
        content()


def test_users_package_counts_with_its_init_and_relative_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "own_package"
    package.mkdir()
    texts = {
        "__init__": "rate = 1\n",
        "models": "from .layers import width\nfrom . import other\n",
        "layers": "width = 1\n",
    }
    for name, text in {**texts, "other": "n = 1\n", "unused": "n = 1\n"}.items():
        (package / f"{name}.py").write_text(text)
    assert set(user_code(package / "models.py", "own_package.models")) == {
        *("own_package", "own_package.models", "own_package.layers", "own_package.other")
    }
    assert set(user_code(package / "__init__.py", "own_package")) == {"own_package"}


def test_file_that_is_no_source_of_the_module_counts_as_a_whole(tmp_path: Path) -> None:
    extension = tmp_path / "fast.cpython-311-x86_64-linux-gnu.so"
    extension.write_bytes(b"\x7fELF 1")
    before = user_code(extension, "fast")
    assert list(before) == [extension.name]
    extension.write_bytes(b"\x7fELF 2")
    assert user_code(extension, "fast") != before
