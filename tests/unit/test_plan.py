import shlex
from pathlib import Path

import pytest

from ssondo.check import check
from ssondo.config import Config, load_config
from ssondo.errors import SsondoError
from ssondo.paths import Model
from ssondo.plan import Plan, flags
from ssondo.watch import Watch


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(Config(), Watch(tmp_path / "cache.json"))


@pytest.mark.parametrize(
    "model",
    [
        Model("teacher", teacher="m2d"),
        Model("distilled", "matpac", "dymn", "cosine", 50, 3),
        Model("supervised", student="dymn", seed=1),
        Model("untrained", student="eres2net"),
    ],
)
def test_model_is_read_back_from_its_path(model: Model) -> None:
    assert Model.parse(model.path) == model


def test_path_that_names_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="students/x names no model"):
        Model.parse("students/x")


def test_flags_survive_the_shell() -> None:
    text = flags(
        name="it's", n=3, rate=8e-4, on=True, off=False, none=None, empty=[], many=[1, 2], spec={"b": 1, "a": "x y"}
    )
    assert shlex.split(text) == [
        *("--name", "it's", "--n", "3", "--rate", "0.0008", "--on", "--no-off", "--many", "1", "2"),
        *("--spec", '{"a": "x y", "b": 1}'),
    ]


def test_paper_has_the_rows_of_its_tables(plan: Plan) -> None:
    assert len(plan.table1_models()) == 2 + 3 + 6
    assert len(plan.table2_models()) == 5
    assert [model.n_clusters for model in plan.fig2_models()] == [0, 30, 40, 45, 50, 55, 60]
    # Cosine at k = 0 stands in Table 2 and Fig. 2, k = 50 in Table 1 and Fig. 2: each is trained once.
    assert len([m for m in plan.models() if m.row_kind == "distilled"]) == 6 + 5 + 7 - 2


def test_options_of_a_rule_hold_no_other_rules_settings(plan: Plan) -> None:
    options = plan.options("probe", model="teacher/m2d", task="esc50")
    assert "--epochs 100" in options
    assert "--n-clusters" not in options
    other = Plan(load_config({"distill": {"learning_rate": 0.1}}), plan._watch)
    assert other.options("probe", model="teacher/m2d", task="esc50") == options


def test_every_setting_of_a_rule_is_an_argument_of_its_verb(plan: Plan) -> None:
    import importlib
    import inspect

    from ssondo.cli import VERBS

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
        known = set(inspect.signature(getattr(importlib.import_module(module), verb)).parameters)
        given = set(getattr(plan, f"_{rule}")(**names))
        assert given <= known, f"{rule}: {given - known}"


@pytest.mark.parametrize(
    ("section", "name", "values", "sentence"),
    [
        ("tasks", "esc50", {"kind": "esc50", "path": "no"}, "config: tasks.esc50.path: no does not exist"),
        (
            "audioset",
            "source",
            {"kind": "folder", "path": "no"},
            "config: audioset.source.path: no is no folder",
        ),
        (
            "teachers",
            "m2d",
            {"kind": "m2d", "checkpoint": {"path": "no.pt"}},
            "config: teachers.m2d.checkpoint.path: no.pt is no file",
        ),
        (
            "teachers",
            "mine",
            {"kind": "callable", "callable": "nowhere.at_all:f", "sample_rate": 16000, "embedding_dim": 8},
            "config: teachers.mine.callable: there is no module nowhere.at_all; check PYTHONPATH",
        ),
    ],
)
def test_what_must_be_there_is_named_with_its_key(section: str, name: str, values: dict, sentence: str) -> None:
    config = Config().model_dump()
    config[section][name] = values
    with pytest.raises(SsondoError) as error:
        check(load_config(config))
    assert str(error.value) == sentence


def test_watch_sees_content_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "clips" / "abc.wav"
    file.parent.mkdir()
    file.write_bytes(b"one")

    def state() -> dict[str, str]:
        watch = Watch(tmp_path / "cache.json")
        found = watch.tree(str(file.parent))
        watch.save()
        return found

    before = state()
    file.touch()
    assert state() == before
    file.write_bytes(b"two")
    assert state() != before


def test_watch_names_a_clip_in_its_own_shard(tmp_path: Path) -> None:
    from ssondo.segments import shard_of

    for name in ("abc.wav", "Ydef.wav", "ghi_30.wav"):
        (tmp_path / name).write_bytes(name.encode())
    watch = Watch(tmp_path / "cache" / "c.json")
    for clip, name in [("abc", "abc.wav"), ("def", "Ydef.wav"), ("ghi", "ghi_30.wav")]:
        assert name in watch.shard(str(tmp_path), f"{shard_of(clip, 8):04d}", 8)
