"""Checkpoints of students: those of this library, published ones, and broken ones."""

import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from small_students import PUBLISHED, SMALL, WINDOW, assert_same_embedding, filled, noise, small

from ssondo.errors import SsondoError
from ssondo.storage import atomic_files
from ssondo.students.checkpoint import load_student, save_student

sys.path.append(str(Path(__file__).parents[1] / "parity"))
import fill


@pytest.fixture(scope="module", params=SMALL)
def student(request):
    return filled(request.param)


def test_saved_student_is_loaded_with_its_weights_settings_and_provenance(student, tmp_path):
    save_student(tmp_path / "student.ckpt", student, {"teacher": "yamnet", "seed": 3})
    loaded = load_student(tmp_path / "student.ckpt")
    assert not loaded.training
    assert loaded.provenance == {"teacher": "yamnet", "seed": 3}
    assert loaded.settings.items() >= {**student.settings, "backbone": loaded.settings["backbone"]}.items()
    assert loaded.settings["backbone"].items() >= student.settings["backbone"].items()
    clip = noise(1, 2 * WINDOW)
    assert_same_embedding(loaded.embed(clip), student.embed(clip))
    state = student.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


def test_checkpoint_has_the_published_layout_and_plain_values_only(student, tmp_path):
    save_student(tmp_path / "student.ckpt", student, {"steps": 10})
    checkpoint = torch.load(tmp_path / "student.ckpt", weights_only=True)
    assert set(checkpoint) == {"state_dict", "training_config", "ssondo"}
    assert set(checkpoint["state_dict"]) == {f"student_model.{key}" for key in student.state_dict()}
    name = student.settings["architecture"]
    config = checkpoint["training_config"]
    assert set(config["student_model"]) >= set(PUBLISHED[name]) - {"pretrained_name"}
    assert {key: type(value) for key, value in config["student_model"].items() if key in ("strides", "num_blocks")} == {
        key: type(value) for key, value in PUBLISHED[name].items() if key in ("strides", "num_blocks")
    }
    assert config["classification_head"] == {
        "head_type": "mlp",
        "n_classes": 24,
        "pooling": "mean",
        "activation_att": None,
        "last_activation": "",
        "hidden_features_size": student.settings["hidden"],
    }
    assert config["preprocess"] == {
        "logmelspec": {"win_len": 0.032, "hop_len": 0.016, "n_mels": 128, "f_min": 50, "f_max": 16000},
        "slice_audio": {"win_len": 1.28, "step_size": 1.28},
    }


def test_checkpoint_without_our_key_loads_from_its_published_settings(student, tmp_path):
    student.model.temperature = 7.0  # dymn's; no part of the others
    save_student(tmp_path / "student.ckpt", student)
    checkpoint = torch.load(tmp_path / "student.ckpt", weights_only=True)
    del checkpoint["ssondo"]
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    clip = noise(1, 2 * WINDOW)
    assert_same_embedding(load_student(tmp_path / "foreign.ckpt").embed(clip), student.embed(clip))
    assert_same_embedding(load_student(tmp_path / "student.ckpt").embed(clip), student.embed(clip))


def test_two_saves_are_identical_in_bytes_and_digest(tmp_path):
    student = small()
    digests = [save_student(tmp_path / name / "student.ckpt", student, {"seed": 1}) for name in "ab"]
    assert (tmp_path / "a/student.ckpt").read_bytes() == (tmp_path / "b/student.ckpt").read_bytes()
    written = [atomic_files.digest_path(tmp_path / name / "student.ckpt").read_text() for name in "ab"]
    assert written == [f"{digest}\n" for digest in digests]
    assert digests[0] == digests[1]


def test_digest_covers_weights_and_settings_but_neither_provenance_nor_memory_format(tmp_path):
    path = tmp_path / "student.ckpt"
    digest = save_student(path, small(), {"seed": 1})
    assert save_student(path, small(), {"seed": 2}) == digest
    assert save_student(path, small().to(memory_format=torch.channels_last)) == digest
    assert save_student(path, small(dropout=0.5)) != digest
    changed = small()
    changed.classification_head.mlp[3].bias.data[0] += 1e-6
    assert save_student(path, changed) != digest


def published_checkpoint(name: str) -> dict:
    state = OrderedDict((f"student_model.{key}", value) for key, value in fill.state_dict(name).items())
    head = {"head_type": "mlp", "n_classes": 3840, "pooling": "mean", "activation_att": None, "last_activation": ""}
    if name != "mobilenetv3":  # the published settings of MobileNetV3 do not include it
        head["hidden_features_size"] = 1280
    return {
        "epoch": 199,
        "state_dict": state,
        "optimizer_states": [{"state": {}}],
        "training_config": {
            "student_model": PUBLISHED[name],
            "classification_head": head,
            "preprocess": {
                "logmelspec": {"win_len": 0.032, "hop_len": 0.016, "n_mels": 128, "f_min": 50, "f_max": 16000},
                "slice_audio": {"win_len": 10, "step_size": 10},
            },
            "knowledge_distillation": {"temperature": 0.0, "lambda": 0, "loss": "cosine_similarity"},
        },
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_checkpoint_loads_unchanged(name, tmp_path):
    torch.save(published_checkpoint(name), tmp_path / "published.ckpt")
    student = load_student(tmp_path / "published.ckpt")
    assert (student.settings["architecture"], student.window, student.sample_rate) == (name, 320_000, 32_000)
    expected = fill.state_dict(name)
    state = student.state_dict()
    assert sorted(state) == sorted(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)
    if name == "dymn":
        assert student.model.temperature == 30.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: c.pop("training_config"), "not a student checkpoint"),
        (lambda c: c["training_config"].pop("preprocess"), "'preprocess'"),
        (
            lambda c: c["training_config"]["student_model"].update(se_dims="f"),
            "se_dims is 'f', but only 'c' is implemented",
        ),
        (lambda c: c["training_config"]["student_model"].update(width_mult=0.4), "width_mult"),
        (
            lambda c: c["training_config"]["student_model"].update(model_name="resnet"),
            "model_name is 'resnet'; it must begin with mn or dymn, or be ERes2Net",
        ),
        (lambda c: c["training_config"]["classification_head"].update(head_type="rnn"), "head_type is 'rnn'"),
        (
            lambda c: c["state_dict"].pop("student_model.model.features.0.0.weight"),
            "1 missing (e.g. model.features.0.0",
        ),
        (
            lambda c: c["state_dict"].update({"student_model.model.extra": torch.zeros(1)}),
            "1 unknown (e.g. model.extra",
        ),
        (lambda c: c.update(ssondo={"format": 99}), "format 99"),
    ],
)
def test_unusable_checkpoint_is_refused_with_the_reason(change, text, tmp_path):
    checkpoint = published_checkpoint("mobilenetv3")
    checkpoint["training_config"]["student_model"] = dict(PUBLISHED["mobilenetv3"])
    change(checkpoint)
    torch.save(checkpoint, tmp_path / "bad.ckpt")
    with pytest.raises(SsondoError) as error:
        load_student(tmp_path / "bad.ckpt")
    assert text in str(error.value)
    assert "bad.ckpt" in str(error.value)
    assert "\n" not in str(error.value)


def test_checkpoint_with_objects_is_loaded_only_with_trust_checkpoint(tmp_path):
    checkpoint = published_checkpoint("mobilenetv3")
    checkpoint["callbacks"] = Path("somewhere")
    torch.save(checkpoint, tmp_path / "objects.ckpt")
    with pytest.raises(SsondoError, match="trust_checkpoint=True"):
        load_student(tmp_path / "objects.ckpt")
    assert load_student(tmp_path / "objects.ckpt", trust_checkpoint=True).embedding_dim == 960


def test_checkpoint_that_names_other_code_is_loaded_only_with_trust_checkpoint(tmp_path):
    save_student(tmp_path / "student.ckpt", small())
    checkpoint = torch.load(tmp_path / "student.ckpt", weights_only=True)
    checkpoint["ssondo"]["settings"]["architecture"] = "antigravity:Net"
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    with pytest.raises(SsondoError, match=r"code outside this library \(antigravity:Net\).*trust_checkpoint=True"):
        load_student(tmp_path / "foreign.ckpt")
    assert "antigravity" not in sys.modules
