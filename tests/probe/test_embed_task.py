import sys
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from ssondo.audio.codec import decode_mono, encode_flac
from ssondo.errors import SsondoError
from ssondo.probe.embed_task import embed_task
from ssondo.storage.atomic_files import clip_list_digest, file_digest
from ssondo.storage.shards.audio import AudioShard, AudioShardWriter
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.storage.shards.status import Status
from ssondo.students.checkpoint import load_student, save_student
from ssondo.students.student import Student

TEACHER = {"kind": "callable", "callable": "task_teacher_for_tests:embed", "sample_rate": 16000, "embedding_dim": 3}
SECONDS = [0.5, 2.0, 0.1, 0.5, 3.3, 1.28, 0.5, 0.02, 2.0]
MISSING = {1, 6}
TASK = {"task": "sounds", "metric": "accuracy", "classes": ["a", "b"]}


@pytest.fixture(autouse=True)
def teacher_module(tmp_path, monkeypatch):
    """Write the module of a teacher whose embedding is the number of samples, the peak and the energy of a clip."""
    (tmp_path / "task_teacher_for_tests.py").write_text(
        "import torch\n"
        "def embed(x):\n"
        "    return torch.stack([torch.full((len(x),), float(x.shape[1])), x.amax(1), x.square().mean(1)], 1)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("task_teacher_for_tests", None)


def write_task(path: Path, split_kind: str = "fold", seconds: list[float] = SECONDS) -> Path:
    n = len(seconds)
    labels = np.eye(2, dtype=np.int8)[np.arange(n) % 2]
    extra = np.arange(1, n + 1, dtype=np.int16) if split_kind == "fold" else np.array([b"train", b"valid", b"test"] * 3)
    with AudioShardWriter(path, sample_rate=32000, settings={**TASK, "split_kind": split_kind}) as shard:
        for i, duration_s in enumerate(seconds):
            if i in MISSING:
                shard.add(f"sound-{i}", status=Status.UNAVAILABLE, reason="removed")
            else:
                sound = 0.1 * np.random.default_rng(i).standard_normal(round(duration_s * 32000))
                shard.add(f"sound-{i}", encode_flac(sound.astype(np.float32), 32000), duration_s=duration_s)
        shard.add_extra("labels", labels)
        shard.add_extra(split_kind, extra[:n])
    return path


@pytest.fixture
def audio(tmp_path) -> Path:
    return write_task(tmp_path / "sounds.h5")


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("student") / "student.ckpt"
    save_student(path, Student("mobilenetv3", n_outputs=8, window_s=1.0, backbone={"width_mult": 0.1}).eval())
    return path


AVAILABLE = [i for i in range(len(SECONDS)) if i not in MISSING]


def waveforms(audio: Path) -> list[np.ndarray]:
    with AudioShard(audio) as shard:
        return [decode_mono(shard.blob(row), shard.sample_rate) for row in shard.ok]


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_embedding_of_a_clip_does_not_depend_on_its_batch(audio, tmp_path, batch_size):
    embed_task(audio=audio, out=tmp_path / "out.h5", teacher=TEACHER, batch_size=batch_size, device="cpu")
    with EmbeddingShard(tmp_path / "out.h5") as shard:
        assert shard.clip_ids == [f"sound-{i}" for i in AVAILABLE]
        assert shard.rows().dtype == np.float32
        for row, sound in zip(shard.rows(), waveforms(audio), strict=True):
            at_16k = soxr.resample(sound, 32000, 16000, quality="HQ")
            expected = [round(len(sound) / 2), at_16k.max(), np.square(at_16k).mean()]
            np.testing.assert_allclose(row, expected, rtol=1e-4)


@pytest.mark.parametrize("split_kind", ["fold", "split"])
def test_labels_and_splits_of_available_clips_are_copied(tmp_path, split_kind):
    audio = write_task(tmp_path / "sounds.h5", split_kind)
    embed_task(audio=audio, out=tmp_path / "out.h5", teacher=TEACHER, device="cpu")
    with EmbeddingShard(tmp_path / "out.h5") as shard:
        assert shard.extra("labels").tolist() == np.eye(2, dtype=int)[np.array(AVAILABLE) % 2].tolist()
        folds, splits = [i + 1 for i in AVAILABLE], [[b"train", b"valid", b"test"][i % 3] for i in AVAILABLE]
        assert shard.extra(split_kind).tolist() == (folds if split_kind == "fold" else splits)


def test_settings_hold_those_of_the_task_and_the_number_of_missing_clips(audio, tmp_path):
    embed_task(audio=audio, out=tmp_path / "out.h5", teacher=TEACHER, device="cpu")
    with EmbeddingShard(tmp_path / "out.h5") as shard:
        assert {key: shard.settings[key] for key in TASK} == TASK
        assert shard.settings["split_kind"] == "fold"
        assert shard.settings["n_missing"] == 2
        assert shard.settings["parameters"] == 0
        assert shard.settings["clip_list_sha256"] == clip_list_digest(shard.clip_ids)


@pytest.mark.parametrize("batch_size", [2, 32])
def test_student_embedding_of_a_clip_does_not_depend_on_its_batch(audio, student, tmp_path, batch_size):
    embed_task(audio=audio, out=tmp_path / "out.h5", student=student, batch_size=batch_size, device="cpu")
    model = load_student(student)
    with EmbeddingShard(tmp_path / "out.h5") as shard:
        for row, sound in zip(shard.rows(), waveforms(audio), strict=True):
            alone = model.embed(torch.from_numpy(sound)[None])[0].numpy()
            assert np.abs(row - alone).max() < 1e-5 * np.abs(alone).max()


def test_parameters_of_a_student_exclude_the_mapping_head(audio, student, tmp_path):
    embed_task(audio=audio, out=tmp_path / "out.h5", student=student, device="cpu")
    weights = torch.load(student, weights_only=True)["state_dict"]
    backbone = [value for key, value in weights.items() if key.startswith("student_model.model.")]
    learned = sum(value.numel() for value in backbone if value.is_floating_point())
    with EmbeddingShard(tmp_path / "out.h5") as shard:
        # Running means and variances of the batch norms are kept in the file but not learned.
        running = sum(value.numel() for key, value in weights.items() if "running_" in key)
        assert shard.settings["parameters"] == learned - running
        assert shard.checkpoint_sha256 == file_digest(student)
        assert shard.embedding_dim == load_student(student).embedding_dim


@pytest.mark.parametrize("models", [{}, {"teacher": TEACHER, "student": Path("student.ckpt")}])
def test_neither_or_both_of_teacher_and_student_fail(audio, tmp_path, models):
    with pytest.raises(SsondoError, match="either a teacher or a student"):
        embed_task(audio=audio, out=tmp_path / "out.h5", **models)


def test_training_clip_list_of_a_student_is_recorded(audio, student, tmp_path):
    trained = tmp_path / "trained.ckpt"
    save_student(trained, load_student(student), {"clip_list_sha256": "feed"})
    for path, expected in ((trained, "feed"), (student, None)):
        embed_task(audio=audio, out=tmp_path / "out.h5", student=path, device="cpu")
        with EmbeddingShard(tmp_path / "out.h5") as shard:
            assert shard.settings["training_clip_list_sha256"] == expected


def test_missing_student_fails(audio, tmp_path):
    with pytest.raises(SsondoError, match=r"absent\.ckpt: this checkpoint does not exist"):
        embed_task(audio=audio, out=tmp_path / "out.h5", student=tmp_path / "absent.ckpt")


def test_audio_shard_that_is_not_of_a_task_fails(tmp_path):
    with AudioShardWriter(tmp_path / "a.h5", sample_rate=32000, settings={}) as shard:
        shard.add("a", encode_flac(np.ones(3200, np.float32) * 0.1, 32000))
    with pytest.raises(SsondoError, match="this is not the shard of a task"):
        embed_task(audio=tmp_path / "a.h5", out=tmp_path / "out.h5", teacher=TEACHER)


def test_equal_runs_write_equal_bytes(audio, student, tmp_path):
    for name in ("a.h5", "b.h5"):
        embed_task(audio=audio, out=tmp_path / name, student=student, device="cpu")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
