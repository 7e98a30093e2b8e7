"""Architectures: sizes, dynamic convolutions, memory formats, export, options."""

import io
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from small_students import SMALL
from torch import nn
from torch.nn import functional as F

from ssondo import provenance
from ssondo.config.loading import load_config
from ssondo.errors import SsondoError
from ssondo.students import dymn
from ssondo.students.backbone import Backbone, build_backbone
from ssondo.students.checkpoint import save_student
from ssondo.students.mobilenet_blocks import make_divisible
from ssondo.students.student import build_student, initialise_backbone
from ssondo.workflow.rules.distill import student_spec


def small(name: str) -> Backbone:
    torch.manual_seed(0)
    return build_backbone(name, **SMALL[name]).eval()


def with_varied_gates(name: str) -> Backbone:
    """A small backbone whose attentions and gates differ between windows."""
    backbone = small(name)
    generator = torch.Generator().manual_seed(3)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0.0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
        elif isinstance(module, nn.Linear):
            module.weight.normal_(0.0, module.in_features**-0.5, generator=generator)
    if name == "dymn":
        backbone.temperature = 0.3
    return backbone


def log_mel(n_windows: int, frames: int = 79, seed: int = 1) -> torch.Tensor:
    return torch.randn(n_windows, 128, frames, generator=torch.Generator().manual_seed(seed))


# Parameters in millions of the AudioSet models in EfficientAT's README. They have a classifier (embedding -> hidden ->
# 527 classes) instead of the mapping head. For DyMN the README counts 0.2 % more than the published checkpoint has.
PUBLISHED_MILLIONS = [
    ("mobilenetv3", 0.4, 0.983),
    ("mobilenetv3", 0.5, 1.43),
    ("mobilenetv3", 1.0, 4.88),
    ("mobilenetv3", 2.0, 17.91),
    ("mobilenetv3", 3.0, 39.09),
    ("mobilenetv3", 4.0, 68.43),
    ("dymn", 0.4, 1.97),
    ("dymn", 1.0, 10.57),
    ("dymn", 2.0, 40.02),
]


@pytest.mark.parametrize(("name", "width", "millions"), PUBLISHED_MILLIONS)
def test_networks_of_each_width_have_the_published_number_of_parameters(name, width, millions):
    with torch.device("meta"):
        backbone = build_backbone(name, width_mult=width)
    hidden = make_divisible(1280 * width)
    classifier = (backbone.embedding_dim + 1) * hidden + (hidden + 1) * 527
    total = sum(parameter.numel() for parameter in backbone.parameters()) + classifier
    assert total / 1e6 == pytest.approx(millions, rel=0.005)
    assert backbone.hidden_dim == hidden


# EfficientAT's names of its widths.
NAMED = {"mn04": ("mobilenetv3", 0.4), "mn05": ("mobilenetv3", 0.5), "mn20": ("mobilenetv3", 2.0)}
NAMED |= {"dymn04": ("dymn", 0.4), "dymn20": ("dymn", 2.0)}


@pytest.mark.parametrize("published_name", NAMED)
def test_student_of_another_width_is_built_from_its_config_and_saved_with_its_published_name(published_name, tmp_path):
    architecture, width = NAMED[published_name]
    section = {"architecture": architecture, "settings": {"width_mult": width}}
    tables = {"table1": {"students": [published_name]}, "table2": None, "fig2": None}
    config = load_config({"students": {published_name: section}, **tables})
    student = build_student(student_spec(config, published_name), n_outputs=8, seed=0)
    assert student.embedding_dim == round(960 * width)
    assert student.settings["hidden"] == round(1280 * width)
    save_student(tmp_path / "student.ckpt", student)
    saved = torch.load(tmp_path / "student.ckpt", weights_only=True)["training_config"]["student_model"]
    assert (saved["model_name"], saved["width_mult"]) == (f"{published_name}_im", width)
    # The classifier of the published weights is ignored.
    weights = {**student.model.state_dict(), "classifier.2.weight": torch.zeros(1, 1)}
    torch.save(weights, tmp_path / "pretrained.pt")
    initialise_backbone(student.model, tmp_path / "pretrained.pt")


@pytest.mark.parametrize(("width", "dim"), [(0.4, 384), (0.5, 480), (1.0, 960), (2.0, 1920), (4.0, 3840)])
def test_embedding_of_mobilenets_scales_with_the_width(width, dim):
    with torch.device("meta"):
        assert build_backbone("mobilenetv3", width_mult=width).embedding_dim == dim
        assert build_backbone("dymn", width_mult=width).embedding_dim == dim


def test_mobilenetv3_of_width_04_has_516_thousand_parameters():
    with torch.device("meta"):
        backbone = build_backbone("mobilenetv3", width_mult=0.4)
    assert round(sum(parameter.numel() for parameter in backbone.parameters()) / 1000) == 516


def _eres2net_parameters(m: int, blocks: list[int]) -> int:
    """Count from the paper: only the convolutions of a fusion have biases; a norm has 2 numbers per channel."""

    def conv(n_in, n_out, k):
        return n_in * n_out * k * k

    def fusion(c):
        r = c // 4
        return conv(2 * c, r, 1) + r + 2 * r + conv(r, c, 1) + c + 2 * c

    total, n_in = conv(1, m, 3) + 2 * m, m
    outs = []
    for layer, (factor, n_blocks) in enumerate(zip([1, 2, 4, 8, 2], blocks, strict=True)):
        planes = factor * m
        width, n_out = planes // 2, 2 * planes
        for block in range(n_blocks):
            total += conv(n_in, planes, 1) + 2 * planes
            total += 2 * (conv(width, width, 3) + 2 * width)
            total += fusion(width) if layer >= 2 else 0
            total += conv(planes, n_out, 1) + 2 * n_out
            total += conv(n_in, n_out, 1) + 2 * n_out if block == 0 else 0
            n_in = n_out
        outs.append(n_out)
    return total + sum(conv(a, b, 3) + fusion(b) for a, b in pairwise(outs))


@pytest.mark.parametrize(("m_channels", "blocks"), [(16, [3, 4, 6, 3, 3]), (8, [1, 1, 1, 1, 1]), (32, [3, 4, 6, 3, 3])])
def test_eres2net_has_the_number_of_parameters_that_the_paper_implies(m_channels, blocks):
    with torch.device("meta"):
        backbone = build_backbone("eres2net", m_channels=m_channels, num_blocks=blocks)
    assert sum(p.numel() for p in backbone.parameters()) == _eres2net_parameters(m_channels, blocks)
    assert backbone.embedding_dim == 64 * m_channels


def _dymn_parameters(width: float) -> int:
    """Count from the paper: sizes of the blocks, four kernels with their attention, norms, gates, Dy-ReLU."""

    def scaled(channels):
        return make_divisible(channels * width)

    # Input channels, kernel size, expanded channels and output channels of the fifteen blocks.
    rows = "16 3 16 16|16 3 64 24|24 3 72 24|24 5 72 40|40 5 120 40|40 5 120 40|40 3 240 80|80 3 200 80|80 3 184 80|"
    rows += "80 3 184 80|80 3 480 112|112 3 672 112|112 5 672 160|160 5 960 160|160 5 960 160"
    total = 9 * scaled(16) + 2 * scaled(16)
    for row in rows.split("|"):
        n_in, kernel, expanded, n_out = map(int, row.split())
        c, e, o = scaled(n_in), scaled(expanded), scaled(n_out)
        h = max(scaled(32), min(scaled(128), make_divisible(e // 4)))
        attention = 4 * (h + 1)
        total += c * h + 2 * h + 2 * e * (h + 1)
        total += 4 * c * e + attention + 2 * e if expanded != n_in else 0
        total += 4 * e * kernel**2 + attention + 2 * e
        total += 4 * e * (h + 1)
        total += 4 * e * o + attention + 2 * o
    return total + scaled(160) * 6 * scaled(160) + 2 * 6 * scaled(160)


@pytest.mark.parametrize("width", [0.4, 1.0, 2.0])
def test_dymn_has_the_number_of_parameters_that_the_paper_implies(width):
    with torch.device("meta"):
        backbone = build_backbone("dymn", width_mult=width)
    assert sum(p.numel() for p in backbone.parameters()) == _dymn_parameters(width)


@pytest.mark.parametrize(("channels", "rounded"), [(1, 8), (6.4, 8), (11, 16), (12, 16), (100, 104), (70.4, 72)])
def test_make_divisible_rounds_to_multiples_of_8_that_are_at_least_90_percent(channels, rounded):
    assert make_divisible(channels) == rounded


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_embedding_of_a_clip_is_the_mean_over_its_windows(name):
    backbone, windows = small(name), log_mel(3)
    expected = torch.stack([backbone(window[None])[0] for window in windows]).mean(0)
    torch.testing.assert_close(backbone(windows[None])[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_embedding_does_not_depend_on_the_memory_format(name):
    backbone, windows = small(name), log_mel(2)
    expected = backbone(windows)
    found = backbone.to(memory_format=torch.channels_last)(windows)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_gradient_reaches_every_parameter(name):
    backbone = small(name).train()
    backbone(log_mel(2)).square().sum().backward()
    without_gradient = [key for key, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without_gradient == []


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
@torch.inference_mode()
def test_exported_program_accepts_any_number_of_windows(name):
    backbone = small(name)
    program = torch.export.export(backbone, (log_mel(2),), dynamic_shapes=({0: torch.export.Dim("windows", max=64)},))
    for n_windows in (1, 3):
        windows = log_mel(n_windows, seed=n_windows)
        torch.testing.assert_close(program.module()(windows), backbone(windows), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # warnings of the exporters themselves
@pytest.mark.parametrize("exporter", ["trace", "dynamo"])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_onnx_file_gives_the_embeddings_of_the_module_for_any_batch_size(name, exporter, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    backbone = with_varied_gates(name)
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")
        shapes = ({0: torch.export.Dim("windows", max=64)},)
        program = torch.onnx.export(backbone, (log_mel(2),), dynamo=True, dynamic_shapes=shapes, verbose=False)
        program.save(tmp_path / "student.onnx")
        model = (tmp_path / "student.onnx").read_bytes()
    else:
        file = io.BytesIO()
        names = {"input_names": ["log_mel"], "dynamic_axes": {"log_mel": {0: "windows"}}}
        torch.onnx.export(backbone, (log_mel(2),), file, dynamo=False, opset_version=17, **names)
        model = file.getvalue()
    session = onnxruntime.InferenceSession(model)
    for n_windows in (1, 3):
        windows = log_mel(n_windows, seed=n_windows)
        (found,) = session.run(None, {session.get_inputs()[0].name: windows.numpy()})
        expected = backbone(windows).numpy()
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("kernel_size", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("exporting", [False, True])
def test_dynamic_convolution_filters_each_window_with_its_own_mixture_of_kernels(
    kernel_size, stride, exporting, monkeypatch
):
    torch.manual_seed(0)
    n_in, n_out, groups = (6, 10, 1) if kernel_size == 1 else (6, 6, 6)
    layer = dymn.DynamicConv(n_in, n_out, 8, kernel_size, stride, groups)
    x, context = torch.randn(3, n_in, 9, 14), torch.randn(3, 8)
    monkeypatch.setattr(dymn, "is_exporting", lambda: exporting)
    found = layer(x, context, 2.0)
    attention = torch.softmax(layer.residuals[0](context) / 2.0, dim=1)
    kernels = layer.weight.reshape(4, n_out, n_in // groups, kernel_size, kernel_size)
    for window in range(3):
        mixture = sum(weight * kernel for weight, kernel in zip(attention[window], kernels, strict=True))
        expected = F.conv2d(x[window : window + 1], mixture, stride=stride, padding=kernel_size // 2, groups=groups)
        torch.testing.assert_close(found[window], expected[0], rtol=1e-5, atol=1e-5)


def test_dynamic_relu_without_influence_of_the_context_is_a_relu():
    layer = dymn.DynamicReLU(5, 8)
    nn.init.zeros_(layer.coef_net[0].weight)
    nn.init.zeros_(layer.coef_net[0].bias)
    x = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(layer(x, torch.randn(2, 8)), x.relu())


def test_dynamic_relu_has_the_values_and_gradients_of_the_maximum_of_two_linear_functions():
    torch.manual_seed(0)
    layer = dymn.DynamicReLU(5, 8).double()
    nn.init.normal_(layer.coef_net[0].weight)
    x, context = torch.randn(2, 5, 3, 4).double().requires_grad_(), torch.randn(2, 8).double()
    theta = 2 * torch.sigmoid(layer.coef_net(context)).reshape(2, 5, 4, 1, 1) - 1
    expected = torch.maximum((1 + theta[:, :, 0]) * x + theta[:, :, 2] / 2, theta[:, :, 1] * x + theta[:, :, 3] / 2)
    found = layer(x, context)
    torch.testing.assert_close(found, expected)
    weights = torch.randn(found.shape).double()
    inputs = [x, *layer.parameters()]
    gradients = [torch.autograd.grad((out * weights).sum(), inputs, retain_graph=True) for out in (found, expected)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, context), expected)


def test_temperature_decreases_fast_then_slowly_down_to_its_minimum():
    # max(30 - epoch, 1 + 0.02 * 29 - 0.02 * epoch, t_min), computed by hand.
    assert [dymn.temperature_at(epoch) for epoch in (0, 10, 28, 29, 200)] == [30, 20, 2, 1, 1]
    assert dymn.temperature_at(40, t_min=0.5) == pytest.approx(0.78)
    assert dymn.temperature_at(100, t_min=0.5) == 0.5


@torch.inference_mode()
def test_temperature_of_dymn_is_30_by_default_and_changes_the_embedding():
    backbone = small("dymn")
    assert backbone.temperature == 30
    for block in backbone.layers:
        nn.init.normal_(block.proj_conv.residuals[0].bias, 0.0, 10.0)
    before = backbone(log_mel(1))
    backbone.temperature = 1.0
    assert (backbone(log_mel(1)) - before).norm() > 0.1 * before.norm()


def test_temperature_is_lowered_by_the_epochs_only_with_the_option_anneal():
    annealed, published = (build_backbone("dymn", width_mult=0.2, anneal=anneal) for anneal in (True, False))
    for epoch, expected in ((0, 30), (10, 20), (28, 2), (40, 1), (10, 20)):
        for backbone in (annealed, published):
            backbone.begin_epoch(epoch)
        assert (annealed.temperature, published.temperature) == (expected, 30)


@pytest.fixture
def custom_student(tmp_path, monkeypatch):
    (tmp_path / "my_students.py").write_text(
        "from ssondo.students.backbone import Backbone\n"
        "class Mean(Backbone):\n"
        "    embedding_dim, hidden_dim = 128, 8\n"
        "    def embed_windows(self, log_mel):\n"
        "        return log_mel.mean(-1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        (
            "mobilenet",
            {},
            "student 'mobilenet' does not exist; choose one of mobilenetv3, dymn, eres2net, package.module:Class (did",
        ),
        (
            "mobilenetv3",
            {"widht_mult": 1},
            "no option 'widht_mult'; its options are width_mult, strides (did you mean 'width_mult'?)",
        ),
        ("mobilenetv3", {"width_mult": 0}, "width_mult is 0; it must be above 0"),
        ("dymn", {"strides": [2, 2, 2]}, "strides is [2, 2, 2]; it must be four numbers"),
        ("dymn", {"temperature": 0.0}, "temperature is 0.0"),
        ("eres2net", {"m_channels": 12}, "m_channels is 12; it must be a positive multiple of 8"),
        ("eres2net", {"num_blocks": [3, 4, 6, 3]}, "num_blocks is [3, 4, 6, 3]; it must be five"),
        ("no_such_module:Net", {}, "student 'no_such_module:Net': the module 'no_such_module' does not exist"),
        (
            "mobilenetv3",
            {"width_mult": "0.4"},
            "student 'mobilenetv3': option 'width_mult' is '0.4'; it must be a number",
        ),
        ("my_students:Mean", {"size": 3}, "student 'my_students:Mean' has no option 'size'; it has no options"),
        ("subprocess:Popen", {"args": "true"}, "not a subclass of ssondo.students.backbone.Backbone"),
    ],
)
def test_invalid_architecture_or_option_is_named_with_the_valid_ones(name, settings, text, custom_student):
    with pytest.raises(SsondoError) as error:
        build_backbone(name, **settings)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_user_defined_architecture_is_built_by_its_dotted_name(custom_student):
    windows = log_mel(2)
    torch.testing.assert_close(build_backbone("my_students:Mean")(windows), windows.mean(-1))


def test_building_a_student_does_not_import_the_other_architectures():
    script = (
        "import sys; from ssondo.students.backbone import build_backbone; build_backbone('eres2net', m_channels=8);"
        "print(*[m for m in sys.modules if m.startswith('ssondo.students.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"ssondo.students.backbone", "ssondo.students.eres2net"}


def test_code_hash_of_the_student_does_not_cover_the_architectures():
    covered = provenance.modules_of("ssondo.students.checkpoint")
    assert not {"ssondo.students.mobilenetv3", "ssondo.students.dymn", "ssondo.students.eres2net"} & set(covered)
    assert "ssondo.students.backbone" in covered
