"""MATPAC++ and M2D against values of the published code."""

import json
from pathlib import Path

import fill
import numpy as np
import pytest
import torch

from ssondo.teachers import vit
from ssondo.teachers.teacher import load_teacher

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).parent / "data" / "golden"
VALUES = json.loads((GOLDEN / "values.json").read_text())


@pytest.fixture(scope="module", params=["matpac", "m2d"])
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def teacher(name, tmp_path_factory):
    """The teacher as it is loaded from a file with the published keys."""
    path = tmp_path_factory.mktemp(name) / "weights.pt"
    torch.save(fill.state_dict(name), path)
    loaded = load_teacher(name, path)
    path.unlink()
    return loaded


def relative_error(ours: torch.Tensor, published: np.ndarray) -> float:
    return np.abs(ours.numpy() - published).max() / np.abs(published).max()


def golden(name: str, seconds: int) -> np.ndarray:
    """The published embedding; the golden file of MATPAC++ has one for each window."""
    values = np.load(GOLDEN / f"{name}_{seconds}s.npy")
    return values.mean(axis=1) if values.ndim == 3 else values


@pytest.mark.parametrize("seconds", [3, 10, 25])
def test_embedding_equals_published(teacher, name, seconds):
    assert relative_error(teacher(fill.waveform(seconds, 16000)), golden(name, seconds)) < 1e-5


def test_clips_of_different_lengths_embed_together_as_published(teacher, name):
    together = teacher.embed([fill.waveform(seconds, 16000)[0] for seconds in (25, 3, 10)])
    for row, seconds in enumerate((25, 3, 10)):
        assert relative_error(together[row], golden(name, seconds)[0]) < 1e-5


def test_every_stage_equals_published(teacher, name):
    seen: dict[str, list[torch.Tensor]] = {}
    encoder = teacher.student_encoder if name == "matpac" else teacher
    stages = {"patch_embed": teacher.patch_embed, **{f"block{i}": block for i, block in enumerate(encoder.blocks)}}
    hooks = [
        stage.register_forward_hook(lambda _, __, output, stage=stage_name: seen.setdefault(stage, []).append(output))
        for stage_name, stage in stages.items()
    ]
    teacher(fill.waveform(10, 16000))
    for hook in hooks:
        hook.remove()
    published = VALUES[f"{name}_stages"]
    assert seen.keys() == published.keys()
    for stage, calls in published.items():
        assert len(seen[stage]) == len(calls)
        for ours, theirs in zip(seen[stage], calls, strict=True):
            assert list(ours.shape) == theirs["shape"]
            assert ours.mean().item() == pytest.approx(theirs["mean"], abs=1e-5), stage
            assert ours.std().item() == pytest.approx(theirs["std"], abs=1e-4), stage
            np.testing.assert_allclose(ours.flatten()[:8].numpy(), theirs["head"], rtol=1e-4, atol=1e-4)


def test_every_layer_averaged_over_time_equals_published(teacher, name):
    """The golden file has the first 64 values of each layer, the last one after the final norm."""
    encoder = teacher.student_encoder if name == "matpac" else teacher
    layers: list[list[torch.Tensor]] = [[] for _ in range(12)]
    stages = [*encoder.blocks[:-1], encoder.norm]
    hooks = [
        stage.register_forward_hook(lambda _, __, output, layer=layer: layers[layer].append(output))
        for layer, stage in enumerate(stages)
    ]
    teacher(fill.waveform(10, 16000))
    for hook in hooks:
        hook.remove()
    published = np.load(GOLDEN / f"{name}_10s_layers.npy")
    for layer, chunks in enumerate(layers):
        # The first 64 values are of the lowest frequencies' tokens: the first fifth after the class token.
        lowest = torch.cat([chunk[0, 1 : 1 + (chunk.shape[1] - 1) // 5, :64] for chunk in chunks])
        assert relative_error(lowest.mean(0), published[layer]) < 1e-5, layer


def test_the_teacher_has_exactly_the_published_keys(teacher, name):
    manifest = fill.manifest(name)
    assert {key: list(value.shape) for key, value in teacher.state_dict().items()} == {
        key: entry["shape"] for key, entry in manifest.items()
    }


def test_the_teacher_has_the_published_size(teacher, name):
    assert teacher.embedding_dim == 3840
    assert teacher.sample_rate == 16000
    # 86 million in the paper's table.
    assert round(teacher.n_parameters / 1e6) in (85, 86)


def test_gradients_stop_at_the_teacher(teacher):
    assert not teacher(fill.waveform(1, 16000)).requires_grad


@pytest.mark.gpu
@pytest.mark.parametrize("seconds", [3, 25])
def test_embedding_on_a_gpu_in_half_precision_is_near_the_published_one(teacher, name, seconds):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    try:
        teacher.to("cuda")
        with torch.autocast("cuda", dtype=torch.float16):
            embedding = teacher(fill.waveform(seconds, 16000))
    finally:
        teacher.to("cpu")
    cosine = torch.cosine_similarity(embedding.cpu(), torch.from_numpy(golden(name, seconds)))
    assert cosine.item() > 0.9999
    assert isinstance(teacher, vit.ViTTeacher)
