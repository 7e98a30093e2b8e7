"""Published files can be loaded by the public functions. The tests build them from the lists of their keys."""

import zipfile
from collections import OrderedDict
from pathlib import Path

import fill
import pytest
import torch

from ssondo import get_ssondo, load_teacher
from ssondo.errors import SsondoError
from ssondo.students.student import Student, initialise_backbone

# Numbers of classes of the published heads, by file name.
HEADS = {"gtzan": 10, "openmic": 20, "nsynth": 11, "esc50": 50, "us8k": 10, "magna-tag-a-tune": 50, "fsd50k": 200}
M2D = "m2d_vit_base-80x608p16x16-221006-mr7_enconly"
SETTINGS = {
    "mobilenetv3": {"model_name": "mn10_im", "width_mult": 1.0, "strides": [2, 2, 2, 2], "se_dims": "c", "se_r": 4},
    "dymn": {"model_name": "dymn10_im", "width_mult": 1.0, "strides": [2, 2, 2, 2], "pretrain_final_temp": 30.0},
    "eres2net": {"model_name": "ERes2Net", "m_channels": 16, "feat_dim": 128, "num_blocks": [3, 4, 6, 3, 3]},
}


def assert_holds(model: torch.nn.Module, expected: dict[str, torch.Tensor]) -> None:
    state = model.state_dict()
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def student_file(path: Path, architecture: str) -> Path:
    """An S-SONDO checkpoint with its embedded config."""
    state = {f"student_model.{key}": value for key, value in fill.state_dict(architecture).items()}
    config = {
        "student_model": {**SETTINGS[architecture], "sr": 32000},
        "classification_head": {"head_type": "mlp", "n_classes": 3840, "pooling": "mean", "last_activation": ""},
        "preprocess": {
            "logmelspec": {"win_len": 0.032, "hop_len": 0.016, "n_mels": 128, "f_min": 50, "f_max": 16000},
            "slice_audio": {"win_len": 10, "step_size": 10},
        },
    }
    torch.save({"epoch": 199, "state_dict": OrderedDict(state), "training_config": config}, path)
    return path


@pytest.mark.slow
def test_matpac_loads_from_its_published_file(tmp_path):
    weights = fill.state_dict("matpac")
    torch.save(weights, tmp_path / "matpac_plus_6s_2048_enconly.pt")
    assert_holds(load_teacher("matpac", tmp_path / "matpac_plus_6s_2048_enconly.pt"), weights)


@pytest.mark.slow
@pytest.mark.parametrize("place", [f"{M2D}/checkpoint-300.pth", f"{M2D}.zip"])
def test_m2d_loads_from_its_published_file_and_from_its_archive(place, tmp_path):
    weights = fill.state_dict("m2d")
    (tmp_path / M2D).mkdir()
    file = tmp_path / M2D / "checkpoint-300.pth"
    torch.save({"model": weights}, file)
    with zipfile.ZipFile(tmp_path / f"{M2D}.zip", "w") as archive:
        archive.write(file, f"{M2D}/checkpoint-300.pth")
    assert_holds(load_teacher("m2d", tmp_path / place), weights)


@pytest.mark.parametrize(("file", "architecture"), [("mn10_im.pt", "mobilenetv3"), ("dymn10_im.pt", "dymn")])
def test_imagenet_weights_load_without_their_classifier(file, architecture, tmp_path):
    backbone = {
        key.removeprefix("model."): value
        for key, value in fill.state_dict(architecture).items()
        if key.startswith("model.")
    }
    classifier = {"classifier.2.weight": torch.zeros(1280, 960), "classifier.2.bias": torch.zeros(1280)}
    classifier |= {"classifier.5.weight": torch.zeros(1000, 1280), "classifier.5.bias": torch.zeros(1000)}
    torch.save(OrderedDict(backbone | classifier), tmp_path / file)
    assert_holds(initialise_backbone(Student(architecture).model, tmp_path / file), backbone)


@pytest.mark.parametrize("architecture", SETTINGS)
def test_published_student_loads_by_the_path_of_its_file(architecture, tmp_path):
    model = get_ssondo(student_file(tmp_path / f"matpac_{architecture}.ckpt", architecture))
    assert_holds(model.student_model, fill.state_dict(architecture))
    assert model.embedding_dim == {"mobilenetv3": 960, "dymn": 960, "eres2net": 1024}[architecture]


def test_every_published_head_loads_by_the_path_of_its_file(tmp_path):
    checkpoint = student_file(tmp_path / "matpac_mobilenetv3.ckpt", "mobilenetv3")
    for name, n_classes in HEADS.items():
        head = {
            "probe.linear_probe.weight": torch.randn(n_classes, 960),
            "probe.linear_probe.bias": torch.randn(n_classes),
        }
        torch.save(head, tmp_path / f"{name}.pth")
        model = get_ssondo(checkpoint, head=str(tmp_path / f"{name}.pth"))
        assert torch.equal(model.head.weight, head["probe.linear_probe.weight"])
        assert model.head.out_features == n_classes


class Recipe:
    """An object that a training script may save in a checkpoint together with the weights."""


@pytest.mark.parametrize("load", [lambda path: load_teacher("matpac", path), get_ssondo], ids=["teacher", "student"])
def test_file_with_other_objects_than_tensors_is_refused_and_the_message_names_trust_checkpoint(load, tmp_path):
    torch.save({"model": {}, "state_dict": {}, "recipe": Recipe()}, tmp_path / "objects.pt")
    with pytest.raises(SsondoError, match=r"objects.pt: refused, .*Recipe.*load it with trust_checkpoint=True"):
        load(tmp_path / "objects.pt")
