"""Students against values of the published code."""

import fill
import numpy as np
import pytest
import torch
from torch import nn

from ssondo.distill.distributed import DistributedContext
from ssondo.distill.prepare_model import to_device
from ssondo.students.student import Student

ARCHITECTURES = ("mobilenetv3", "dymn", "eres2net")
# Names of the stages in values.json -> modules of the backbone.
STAGES = {
    "mobilenetv3": {f"features{i}": f"features.{i}" for i in range(17)},
    "dymn": {"in_c": "in_c", **{f"layers{i}": f"layers.{i}" for i in range(15)}, "out_c": "out_c"},
    "eres2net": {
        name: name
        for name in (
            *("conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "layer5"),
            *("layer1_downsample", "layer2_downsample", "layer3_downsample", "layer4_downsample"),
            *("fuse_mode12", "fuse_mode123", "fuse_mode1234", "fuse_mode12345"),
        )
    },
}


def golden(name: str) -> np.ndarray:
    return np.load(fill.DATA / "golden" / f"{name}.npy")


def relative_error(found: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


# With these weights ERes2Net amplifies rounding: on another processor than that of the golden values, embeddings
# differed by 1.6e-4 of the largest value and the norm of the gradient by 3e-3.
def tolerance(name: str) -> float:
    return 1e-3 if name == "eres2net" else 2e-5


@pytest.fixture(scope="module", params=ARCHITECTURES)
def student(request) -> Student:
    student = Student(request.param)
    student.load_state_dict(fill.state_dict(request.param), strict=True)
    return student.eval()


@pytest.fixture(scope="module")
def name(student) -> str:
    return student.settings["architecture"]


@pytest.fixture(scope="module")
def log_mel(student_waveforms, student) -> torch.Tensor:
    return student.log_mel(student_waveforms)


def test_state_dict_has_exactly_the_published_keys_shapes_and_types(student, name):
    manifest = fill.manifest(name)
    state = student.state_dict()
    assert set(state) == set(manifest)
    for key, entry in manifest.items():
        assert (list(state[key].shape), str(state[key].dtype)) == (entry["shape"], f"torch.{entry['dtype']}"), key


def test_new_student_has_the_constants_of_the_published_checkpoint(name):
    state = Student(name).state_dict()
    constants = {
        key: entry["value"]
        for key, entry in fill.manifest(name).items()
        if "value" in entry and not key.endswith("num_batches_tracked")
    }
    assert len(constants) == (30 if name == "dymn" else 0)
    for key, value in constants.items():
        assert state[key].tolist() == value, key


def test_parameter_counts_are_the_published_ones(student, name, golden_values):
    expected = golden_values[f"{name}_params"]
    assert (student.n_parameters, sum(p.numel() for p in student.parameters())) == (
        expected["backbone"],
        expected["total"],
    )


@torch.inference_mode()
def test_embedding_of_each_window_is_the_published_one(student, name, log_mel):
    assert relative_error(student.embed_windows(log_mel), golden(f"{name}_embedding")) < tolerance(name)


@torch.inference_mode()
def test_embed_gives_the_published_embedding_of_a_clip(student, name, student_waveforms):
    assert relative_error(student.embed(student_waveforms), golden(f"{name}_embedding").mean(1)) < tolerance(name)


@torch.inference_mode()
def test_mapped_output_is_the_published_one(student, name, log_mel):
    assert relative_error(student(log_mel), golden(f"{name}_mapped")) < tolerance(name)


@torch.inference_mode()
def test_every_stage_gives_the_published_statistics(student, name, log_mel, golden_values):
    expected = dict(golden_values[f"{name}_stages"])
    expected.pop("pool", None)  # pooling is not a module here; the test of the embedding covers it
    assert set(expected) == set(STAGES[name])
    found: dict[str, torch.Tensor] = {}
    hooks = [
        student.model.get_submodule(module).register_forward_hook(
            # A copy, because an activation may follow in place.
            lambda _module, _args, out, stage=stage: found.__setitem__(stage, out.clone())
        )
        for stage, module in STAGES[name].items()
    ]
    student(log_mel)
    for hook in hooks:
        hook.remove()
    for stage, (values,) in expected.items():
        out = found[stage].contiguous()
        assert list(out.shape) == values["shape"], stage
        summary = [out.mean(), out.std(), *out.flatten()[:8]]
        # Golden values are rounded to 5 or 6 decimals.
        torch.testing.assert_close(
            torch.stack(summary),
            torch.tensor([values["mean"], values["std"], *values["head"]]),
            rtol=1e-3,
            atol=2e-5,
            msg=lambda text, stage=stage: f"{stage}: {text}",
        )


@pytest.mark.gpu
@torch.inference_mode()
def test_embedding_and_output_on_a_gpu_in_half_precision_are_near_the_published_ones(name, log_mel):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    student = Student(name)
    student.load_state_dict(fill.state_dict(name))
    student = to_device(student.eval(), DistributedContext(torch.device("cuda")))
    with torch.autocast("cuda", dtype=torch.float16):
        found = student.embed_windows(log_mel.cuda()), student(log_mel.cuda())
    for ours, published in zip(found, ("embedding", "mapped"), strict=True):
        expected = torch.from_numpy(golden(f"{name}_{published}"))
        # The attentions of ERes2Net amplify the rounding of 16 bit; 0.9981 was measured.
        least = 0.995 if name == "eres2net" else 0.999
        assert torch.cosine_similarity(ours.float().cpu(), expected, dim=-1).min() > least


@pytest.mark.gpu
def test_training_loss_on_a_gpu_in_half_precision_is_near_the_published_one(name, student_waveforms, golden_values):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    student = Student(name, dropout=0.0)
    student.load_state_dict(fill.state_dict(name))
    student = to_device(student, DistributedContext(torch.device("cuda"))).train()
    log_mel = student.log_mel(student_waveforms.cuda())
    with torch.autocast("cuda", dtype=torch.float16):
        mapped = student(log_mel)
    loss = 1 - nn.functional.cosine_similarity(mapped.float(), fill.tensor("teacher", (2, 3840)).cuda()).mean()
    loss.backward()
    assert loss.item() == pytest.approx(golden_values[f"{name}_train"]["loss"], rel=0.01)
    assert all(parameter.grad.isfinite().all() for parameter in student.parameters())


def test_training_loss_and_gradient_norm_are_the_published_ones(name, student_waveforms, golden_values):
    student = Student(name, dropout=0.0)
    student.load_state_dict(fill.state_dict(name))
    student.train()
    mapped = student(student.log_mel(student_waveforms))
    loss = 1 - nn.functional.cosine_similarity(mapped, fill.tensor("teacher", (2, 3840))).mean()
    loss.backward()
    expected = golden_values[f"{name}_train"]
    assert loss.item() == pytest.approx(expected["loss"], rel=1e-3)
    norm = nn.utils.get_total_norm([p.grad for p in student.parameters()])
    assert norm.item() == pytest.approx(expected["grad_norm"], rel=1e-2 if name == "eres2net" else 1e-3)
