"""The published interface."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_students import WINDOW, noise, small
from torch import nn

import ssondo
from ssondo.errors import SsondoError, TransientError
from ssondo.inference.wrapper import SsondoWrapper, get_ssondo, list_heads, list_models
from ssondo.students.checkpoint import save_student


@pytest.fixture(scope="module")
def own_checkpoint(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("model") / "student.ckpt"
    save_student(path, small())
    return str(path)


def test_published_models_and_heads_are_listed():
    assert list(list_models()) == [
        f"{teacher}-{student}" for teacher in ("matpac", "m2d") for student in ("mobilenetv3", "dymn", "eres2net")
    ]
    assert sorted(list_heads()) == ["esc50", "fsd50k", "gtzan", "magna-tag-a-tune", "nsynth", "openmic", "us8k"]


def test_wrapper_returns_embeddings_of_windows_and_their_mean(own_checkpoint):
    model = get_ssondo(own_checkpoint)
    assert isinstance(model, SsondoWrapper)
    assert not model.training
    clips = noise(2, 2 * WINDOW + 100)
    embeddings = model(clips)
    assert embeddings.shape == (2, 3, 192)
    assert (model.embedding_dim, model.backbone.emb_size) == (192, 192)
    torch.testing.assert_close(model.get_embeddings(clips), embeddings.mean(1))
    torch.testing.assert_close(model.get_embeddings(clips), model.student_model.embed(clips), rtol=1e-5, atol=1e-6)
    assert model(clips[0]).shape == (1, 3, 192)


@pytest.mark.parametrize(
    ("waveforms", "message"),
    [
        (np.zeros((1, WINDOW), np.float32), "the waveforms are of type numpy.ndarray; give a tensor"),
        ([0.0] * WINDOW, "the waveforms are of type list; give a tensor"),
        (
            torch.zeros(1, 2, WINDOW),
            "the waveforms have shape (1, 2, 40960); they must be mono, of shape (batch, samples)",
        ),
        (torch.zeros(2, 0), "the waveforms have shape (2, 0); they must be mono"),
        (
            torch.zeros(1, WINDOW, dtype=torch.int16),
            "the waveforms are of torch.int16; give floating point from -1 to 1",
        ),
    ],
    ids=["numpy", "list", "stereo", "empty", "int16"],
)
def test_invalid_waveforms_give_a_one_line_error(waveforms, message, own_checkpoint):
    model = get_ssondo(own_checkpoint)
    for call in (model, model.get_embeddings, model.preprocess):
        with pytest.raises(SsondoError, match=re.escape(message)) as refused:
            call(waveforms)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_wrapper_accepts_floats_of_any_precision(dtype, own_checkpoint):
    model = get_ssondo(own_checkpoint)
    clips = noise(2, WINDOW).to(dtype)
    assert torch.equal(model.get_embeddings(clips), model.get_embeddings(clips.float()))


def test_sample_rate_is_that_of_the_checkpoint(tmp_path):
    front_end = {"sample_rate": 16000, "f_max": 8000.0}
    save_student(tmp_path / "slow.ckpt", small(front_end=front_end))
    assert get_ssondo(tmp_path / "slow.ckpt").sample_rate == 16000


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_missing_gpu_gives_a_one_line_error(device, own_checkpoint):
    with pytest.raises(SsondoError, match=r"device 'cuda.*this machine has no usable GPU.*; use 'auto' or 'cpu'"):
        get_ssondo(own_checkpoint, device=device)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_device_may_be_a_name_or_a_torch_device(device, own_checkpoint):
    assert next(get_ssondo(own_checkpoint, device=device).parameters()).device.type == "cpu"


def test_return_logits_returns_embeddings_and_logits(own_checkpoint):
    model = get_ssondo(own_checkpoint, return_logits=True)
    embeddings, logits = model(noise(2, WINDOW))
    assert (embeddings.shape, logits.shape) == ((2, 1, 192), (2, 24))


@pytest.mark.parametrize(("head", "n_linear"), [("linear", 1), ("mlp", 3)])
def test_new_head_is_trained_on_a_frozen_student(head, n_linear, own_checkpoint):
    model = get_ssondo(own_checkpoint, head=head, n_classes=5, hidden_sizes=[16, 8])
    assert sum(isinstance(module, nn.Linear) for module in model.head.modules()) == n_linear
    model.freeze_backbone()
    model.train()
    clips = noise(2, WINDOW)
    before = {key: value.clone() for key, value in model.student_model.state_dict().items()}
    logits = model(clips)
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None} == {"head"}
    after = model.student_model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    model.unfreeze_backbone()
    assert model.student_model.training
    model(clips).sum().backward()
    assert model.backbone.features[0][0].weight.grad is not None


def test_new_head_requires_the_number_of_classes(own_checkpoint):
    with pytest.raises(ValueError, match="n_classes is required"):
        get_ssondo(own_checkpoint, head="linear")


def test_published_classifier_loads_from_a_file(own_checkpoint, tmp_path):
    weight, bias = noise(10, 192), noise(10)
    torch.save({"probe.linear_probe.weight": weight, "probe.linear_probe.bias": bias}, tmp_path / "gtzan.pth")
    model = get_ssondo(own_checkpoint, head=str(tmp_path / "gtzan.pth"), return_logits=True)
    logits, embeddings = model(noise(2, 2 * WINDOW))
    assert embeddings.shape == (2, 192)
    torch.testing.assert_close(logits, embeddings @ weight.T + bias)


def test_classifier_of_another_student_is_refused(own_checkpoint, tmp_path):
    torch.save(
        {"probe.linear_probe.weight": torch.zeros(10, 960), "probe.linear_probe.bias": torch.zeros(10)},
        tmp_path / "gtzan.pth",
    )
    with pytest.raises(SsondoError, match=r"weight has shape \[10, 960\], a classifier of 192-dimensional"):
        get_ssondo(own_checkpoint, head=str(tmp_path / "gtzan.pth"))
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SsondoError, match=r"not a classifier; it has no probe\.linear_probe\.weight"):
        get_ssondo(own_checkpoint, head=str(tmp_path / "other.pth"))


def test_error_for_an_unknown_model_or_head_lists_the_existing_ones(own_checkpoint):
    with pytest.raises(
        SsondoError,
        match=r"'matpac-mobilenet' is neither a file nor a published model; .*did you mean 'matpac-mobilenetv3'",
    ):
        get_ssondo("matpac-mobilenet")
    with pytest.raises(SsondoError, match=r"head 'esc10' is neither.* esc50"):
        get_ssondo(own_checkpoint, head="esc10")


def test_error_without_network_names_the_url_and_how_to_use_the_file(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TransientError) as error:
        get_ssondo()
    text = str(error.value)
    assert "https://huggingface.co/mohammedali2501/ssondo/resolve/main/matpac_mobilenetv3.ckpt" in text
    assert "get_ssondo(checkpoint='path/to/matpac_mobilenetv3.ckpt')" in text
    assert "\n" not in text


def test_published_model_is_loaded_from_the_hub_cache(monkeypatch, tmp_path, own_checkpoint):
    # The layout of the hub's cache: refs name a revision, snapshots hold its files.
    repository = tmp_path / "models--mohammedali2501--ssondo"
    revision = "0123456789abcdef0123456789abcdef01234567"
    snapshot = repository / "snapshots" / revision
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    snapshot.joinpath("heads").mkdir(parents=True)
    (snapshot / "m2d_dymn.ckpt").write_bytes(Path(own_checkpoint).read_bytes())
    head = {"probe.linear_probe.weight": torch.zeros(50, 192), "probe.linear_probe.bias": torch.zeros(50)}
    torch.save(head, snapshot / "heads" / "esc50.pth")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert get_ssondo("m2d-dymn", head="esc50")(noise(1, WINDOW)).shape == (1, 50)


def test_importing_the_package_imports_no_torch():
    script = "import ssondo, sys; ssondo.__version__; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_names_of_the_former_module_are_importable(own_checkpoint):
    from ssondo.model import (
        MappingHead,
        SsondoWrapper,
        Student,
        get_ssondo,
        initialise_backbone,
        list_heads,
        list_models,
        load_student,
        save_student,
    )

    student = load_student(own_checkpoint)
    assert isinstance(student, Student)
    assert isinstance(student.classification_head, MappingHead)
    assert isinstance(get_ssondo(own_checkpoint), SsondoWrapper)
    assert (list_models(), list_heads()) == (ssondo.list_models(), ssondo.list_heads())
    assert save_student is ssondo.students.checkpoint.save_student
    assert initialise_backbone is ssondo.students.student.initialise_backbone


def test_public_names_are_importable():
    assert ssondo.get_ssondo is get_ssondo
    assert ssondo.SsondoWrapper is SsondoWrapper
    assert set(ssondo.__all__) <= set(dir(ssondo))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssondo.nothing
