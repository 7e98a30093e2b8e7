"""Students end to end: windows, checkpoints, the published interface."""

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

import ssondo
from ssondo import artefacts
from ssondo.errors import SsondoError, TransientError
from ssondo.model import (
    SsondoWrapper,
    Student,
    get_ssondo,
    initialise_backbone,
    list_heads,
    list_models,
    load_student,
    reestimate_batchnorm,
    save_student,
)

sys.path.append(str(Path(__file__).parents[1] / "parity"))
import fill

RATE = 32000
WINDOW = 40960  # samples of 1.28 s
SMALL = {
    "mobilenetv3": {"width_mult": 0.2},
    "dymn": {"width_mult": 0.2},
    "eres2net": {"m_channels": 8, "num_blocks": [1, 1, 1, 1, 1]},
}
# What the published training writes, by architecture (SPEC of the published package).
PUBLISHED = {
    "mobilenetv3": {
        "model_name": "mn10_im",
        "sr": 32000,
        "pretrained_name": "mn10_im.pt",
        "width_mult": 1.0,
        "reduced_tail": False,
        "dilated": False,
        "strides": (2, 2, 2, 2),
        "relu_only": False,
        "input_dim_f": 128,
        "input_dim_t": 998,
        "se_dims": "c",
        "se_agg": "max",
        "se_r": 4,
    },
    "dymn": {
        "model_name": "dymn10_im",
        "sr": 32000,
        "width_mult": 1,
        "pretrained_name": "dymn10_im",
        "strides": (2, 2, 2, 2),
        "pretrain_final_temp": 30.0,
    },
    "eres2net": {
        "model_name": "ERes2Net",
        "sr": 32000,
        "m_channels": 16,
        "feat_dim": 128,
        "num_blocks": [3, 4, 6, 3, 3],
        "pooling_func": "TSTP",
        "add_layer": True,
    },
}


def small(name: str = "mobilenetv3", **settings) -> Student:
    torch.manual_seed(0)
    return Student(name, **{"n_outputs": 24, "window_s": 1.28, "backbone": SMALL[name], **settings}).eval()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=SMALL)
def student(request) -> Student:
    built = small(request.param)
    # The fill's numbers: with those of a new model activations vanish, and with them what tests compare.
    filled = {
        key: fill.tensor(key, tuple(value.shape)) if key.endswith(("weight", "bias", "_mean", "_var")) else value
        for key, value in built.state_dict().items()
    }
    built.load_state_dict(filled)
    return built


def assert_same_embedding(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


# --- windows ---


@pytest.mark.parametrize(
    ("n_samples", "parts"),
    [
        (3200, [(0, 3200)]),
        (WINDOW, [(0, WINDOW)]),
        (WINDOW + 1, [(0, WINDOW), (WINDOW, WINDOW + 1)]),
        (3 * WINDOW, [(0, WINDOW), (WINDOW, 2 * WINDOW), (2 * WINDOW, 3 * WINDOW)]),
        (2 * WINDOW + 500, [(0, WINDOW), (WINDOW, 2 * WINDOW), (2 * WINDOW, 2 * WINDOW + 500)]),
    ],
)
def test_embedding_is_the_mean_over_windows_of_which_the_last_is_padded(student, n_samples, parts):
    clip = noise(n_samples)
    windows = torch.zeros(len(parts), WINDOW)
    for window, (start, stop) in zip(windows, parts, strict=True):
        window[: stop - start] = clip[start:stop]
    with torch.no_grad():
        expected = student.model(student.front_end(windows)).mean(0)
    torch.testing.assert_close(student.embed(clip[None])[0], expected, rtol=1e-5, atol=1e-6)


def test_batching_clips_of_different_lengths_changes_no_embedding(student):
    lengths = [3200, WINDOW, 5 * WINDOW + 7, 100, 2 * WINDOW, 3 * WINDOW - 1]
    # What lies behind a clip's end must not matter.
    batch = noise(len(lengths), max(lengths))
    together = student.embed(batch, torch.tensor(lengths))
    for row, length, found in zip(batch, lengths, together, strict=True):
        alone = student.embed(row[None, :length])[0]
        assert_same_embedding(found, alone)


def test_ten_minutes_go_through_the_backbone_in_bounded_chunks():
    student = small()
    sizes = []
    embed_windows = student.model.embed_windows
    student.model.embed_windows = lambda x: (sizes.append(len(x)), embed_windows(x))[1]
    embedding = student.embed(noise(1, 600 * RATE))
    assert embedding.shape == (1, student.embedding_dim)
    assert embedding.isfinite().all()
    assert sum(sizes) == 469  # 600 / 1.28 = 468.75
    assert max(sizes) == 16


@pytest.mark.slow
def test_ten_minutes_have_the_same_embedding_beside_a_tenth_of_a_second(student):
    lengths = [600 * RATE, RATE // 10]
    clips = noise(2, 600 * RATE)
    together = student.embed(clips, lengths)
    for row, length in enumerate(lengths):
        assert_same_embedding(together[row], student.embed(clips[row : row + 1, :length])[0])


def test_what_is_left_over_is_dropped_on_request_as_by_the_published_slicer(tmp_path):
    student = small(add_last=False)
    clip = noise(1, 2 * WINDOW + 500)
    assert_same_embedding(student.embed(clip), student.embed(clip[:, : 2 * WINDOW]))
    assert student.log_mel(clip).shape[1] == 2
    for call in (student.embed, student.log_mel):
        with pytest.raises(SsondoError, match=r"clip of 0.64 s has no window of 1.28 s; set add_last to true"):
            call(noise(1, WINDOW // 2))
    save_student(tmp_path / "student.ckpt", student)
    assert load_student(tmp_path / "student.ckpt").add_last is False


def test_no_clips_give_no_embeddings():
    assert small().embed(torch.zeros(0, 100)).shape == (0, 192)


@pytest.mark.parametrize(
    ("waveforms", "lengths", "text"),
    [
        (torch.zeros(100), None, "shape (batch, samples)"),
        (torch.zeros(1, 100, dtype=torch.int16), None, "torch.int16"),
        (torch.zeros(2, 100), [100], "lengths must be 2 numbers"),
        (torch.zeros(1, 100), [101], "in 1..100"),
        (torch.zeros(1, 100), [0], "in 1..100"),
    ],
)
def test_impossible_waveforms_are_refused(waveforms, lengths, text):
    with pytest.raises(ValueError) as error:
        small().embed(waveforms, lengths)
    assert text in str(error.value)


def test_embed_refuses_a_model_in_training_mode():
    with pytest.raises(ValueError, match="call eval"):
        small().train().embed(noise(1, WINDOW))


def test_mapped_output_is_the_mean_of_the_mapped_windows(student):
    log_mel = student.log_mel(noise(2, 3 * WINDOW))
    with torch.no_grad():
        expected = torch.stack([student(log_mel[:, i]) for i in range(3)]).mean(0)
        torch.testing.assert_close(student(log_mel), expected, rtol=1e-5, atol=1e-6)


def test_windows_may_overlap():
    student = small(step_s=0.64)
    assert student.log_mel(noise(1, 2 * WINDOW)).shape[1] == 3


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("eres2net", {"window_s": 0.2}, "window_s is 0.2: 11 frames, but eres2net needs 17"),
        ("mobilenetv3", {"step_s": 2.0}, "step_s is 2; it must be above 0 and at most window_s (1.28)"),
        ("mobilenetv3", {"front_end": {"mels": 64}}, "unexpected keyword argument 'mels'"),
    ],
)
def test_impossible_setting_is_named(name, settings, text):
    with pytest.raises(SsondoError) as error:
        small(name, **settings)
    assert text in str(error.value)


def test_parameters_are_counted_with_and_without_the_head():
    student = Student("mobilenetv3", n_outputs=527)
    # Linear layers 960 -> 1280 -> 527, by hand.
    assert student.n_parameters == 2_971_664
    assert student.n_parameters_with_head == 2_971_664 + 961 * 1280 + 1281 * 527


# --- batch normalisation ---


def test_reestimated_statistics_are_the_plain_average_over_batches():
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(3, momentum=0.01))
    batches = [2 + 3 * noise(50, 3, seed=i) for i in range(4)]
    model.train()
    model[1].eval()
    assert reestimate_batchnorm(model, batches) == 4
    norm = model[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([b.mean(0) for b in batches]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([b.var(0) for b in batches]).mean(0))
    assert norm.momentum == 0.01
    assert (model.training, model[0].training, norm.training) == (True, True, False)


@torch.no_grad()
def _offset(student: Student, log_mel: torch.Tensor) -> float:
    """How far the channels' means are from 0 on average, in the batch norm where they are farthest."""
    means = []
    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [
        norm.register_forward_hook(
            lambda norm, _args, out: means.append((out.mean((0, 2, 3)) - norm.bias).abs().mean())
        )
        for norm in norms
    ]
    student(log_mel)
    for hook in hooks:
        hook.remove()
    assert len(means) == len(norms)
    return max(means).item()


@pytest.mark.parametrize("name", SMALL)
def test_reestimated_student_normalises_what_it_was_shown(name):
    student = small(name)
    log_mel = student.log_mel(noise(6, WINDOW, seed=4))
    assert _offset(student, log_mel) > 0.5
    reestimate_batchnorm(student, [log_mel])
    # Not 0: the statistics hold the unbiased variance, with which later layers see a little less.
    assert _offset(student, log_mel) < 0.1


def test_reestimation_without_batches_is_an_error():
    with pytest.raises(ValueError, match="no batches"):
        reestimate_batchnorm(small(), [])


# --- our checkpoints ---


def test_saved_student_comes_back_with_weights_settings_and_provenance(student, tmp_path):
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
    written = [artefacts.digest_path(tmp_path / name / "student.ckpt").read_text() for name in "ab"]
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


# --- checkpoints of others ---


def published_checkpoint(name: str) -> dict:
    state = OrderedDict((f"student_model.{key}", value) for key, value in fill.state_dict(name).items())
    head = {"head_type": "mlp", "n_classes": 3840, "pooling": "mean", "activation_att": None, "last_activation": ""}
    if name != "mobilenetv3":  # its published settings do not have it
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
            "se_dims is 'f', only 'c' is implemented",
        ),
        (lambda c: c["training_config"]["student_model"].update(width_mult=0.4), "width_mult"),
        (lambda c: c["training_config"]["student_model"].update(model_name="resnet"), "'resnet' is not known"),
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
    assert "bad.ckpt" in str(error.value) or "resnet" in text
    assert "\n" not in str(error.value)


def test_checkpoint_with_objects_needs_an_opt_in(tmp_path):
    checkpoint = published_checkpoint("mobilenetv3")
    checkpoint["callbacks"] = Path("somewhere")
    torch.save(checkpoint, tmp_path / "objects.ckpt")
    with pytest.raises(SsondoError, match="trust_checkpoint=True"):
        load_student(tmp_path / "objects.ckpt")
    assert load_student(tmp_path / "objects.ckpt", trust_checkpoint=True).embedding_dim == 960


def test_checkpoint_that_names_foreign_code_needs_an_opt_in(tmp_path):
    save_student(tmp_path / "student.ckpt", small())
    checkpoint = torch.load(tmp_path / "student.ckpt", weights_only=True)
    checkpoint["ssondo"]["settings"]["architecture"] = "antigravity:Net"
    torch.save(checkpoint, tmp_path / "foreign.ckpt")
    with pytest.raises(SsondoError, match=r"code of somebody else \(antigravity:Net\).*trust_checkpoint=True"):
        load_student(tmp_path / "foreign.ckpt")
    assert "antigravity" not in sys.modules


# --- pretrained on ImageNet ---


@pytest.mark.parametrize(("name", "wrong_key"), [("mobilenetv3", "features.0.0.weight"), ("dymn", "in_c.0.weight")])
def test_student_starts_from_imagenet_weights_without_their_classifier(name, wrong_key, tmp_path):
    weights = {
        key.removeprefix("model."): value for key, value in fill.state_dict(name).items() if key.startswith("model.")
    }
    classifier = {"classifier.2.weight": torch.zeros(1280, 960), "classifier.5.bias": torch.zeros(1000)}
    torch.save(OrderedDict({**weights, **classifier}), tmp_path / "pretrained.pt")
    student = Student(name)
    assert initialise_backbone(student.model, tmp_path / "pretrained.pt") is student.model
    state = student.model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in weights.items())
    narrow = Student(name, backbone={"width_mult": 0.4})
    with pytest.raises(SsondoError, match=rf"{wrong_key} has shape \[16, 1, 3, 3\].*\[8, 1, 3, 3\].*width_mult"):
        initialise_backbone(narrow.model, tmp_path / "pretrained.pt")


def test_file_that_is_no_state_dict_is_refused_as_pretrained_weights(tmp_path):
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(SsondoError, match="not a state dict"):
        initialise_backbone(small().model, tmp_path / "other.pt")


# --- the published interface ---


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


def test_wrapper_gives_an_embedding_a_window_and_their_mean(own_checkpoint):
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


def test_wrapper_returns_logits_beside_embeddings_on_request(own_checkpoint):
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


def test_new_head_needs_a_number_of_classes(own_checkpoint):
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
    with pytest.raises(SsondoError, match=r"not a classifier \(no probe\.linear_probe\.weight"):
        get_ssondo(own_checkpoint, head=str(tmp_path / "other.pth"))


def test_unknown_model_or_head_is_answered_with_the_known_ones(own_checkpoint):
    with pytest.raises(
        SsondoError, match="'matpac-mobilenet' is neither a file nor a published model; there are matpac-"
    ):
        get_ssondo("matpac-mobilenet")
    with pytest.raises(SsondoError, match=r"head 'esc10' is neither.* esc50"):
        get_ssondo(own_checkpoint, head="esc10")


def test_without_network_one_line_says_what_to_download_and_how_to_use_it(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TransientError) as error:
        get_ssondo()
    text = str(error.value)
    assert "https://huggingface.co/mohammedali2501/ssondo/resolve/main/matpac_mobilenetv3.ckpt" in text
    assert "get_ssondo(checkpoint='path/to/matpac_mobilenetv3.ckpt')" in text
    assert "\n" not in text


def test_published_model_is_taken_from_the_hub_cache(monkeypatch, tmp_path, own_checkpoint):
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


def test_public_names_are_there_when_asked_for():
    assert ssondo.get_ssondo is get_ssondo
    assert ssondo.SsondoWrapper is SsondoWrapper
    assert set(ssondo.__all__) <= set(dir(ssondo))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ssondo.nothing
