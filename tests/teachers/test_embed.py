import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import soxr
import torch

from ssondo.audio.codec import encode, encode_flac
from ssondo.errors import SsondoError
from ssondo.provenance import modules_of
from ssondo.storage.atomic_files import clip_list_digest, digest_path, file_digest
from ssondo.storage.shards.audio import AudioShard, AudioShardWriter
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.storage.shards.status import Status
from ssondo.teachers.embed import embed, teacher_amp_dtype
from ssondo.teachers.external import ExternalTeacher
from ssondo.teachers.vit import Matpac

TEACHER = {"kind": "callable", "callable": "teacher_for_tests:embed", "sample_rate": 16000, "embedding_dim": 4}


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch) -> Path:
    """A teacher of four values (samples, mean, peak, energy) that returns NaN for silence and may be slow."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "teacher_for_tests.py").write_text(
        textwrap.dedent("""
            import os, time, torch
            def embed(x):
                time.sleep(float(os.environ.get("SLOW_TEACHER_S", "0")))
                n = torch.full((len(x),), x.shape[1] / 1000)
                y = torch.stack([n, x.mean(1), x.amax(1), x.square().mean(1)], dim=1)
                y[x.abs().amax(1) == 0] = torch.nan
                return y
        """)
    )
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("teacher_for_tests", None)


def clip(n: int, seconds: float = 1.28) -> np.ndarray:
    return (0.1 * np.random.default_rng(n).standard_normal(round(seconds * 32000))).astype(np.float32)


def write_shard(path: Path, waveforms: dict[str, np.ndarray | None], codec: str = "flac") -> Path:
    """Write an audio shard; a clip without a waveform has the status FAILED."""
    with AudioShardWriter(path, sample_rate=32000, settings={}) as shard:
        for clip_id, waveform in waveforms.items():
            if waveform is None:
                shard.add(clip_id, status=Status.FAILED, reason="timeout")
            else:
                shard.add(clip_id, encode(waveform, 32000, codec), duration_s=len(waveform) / 32000)
    return path


@pytest.fixture
def audio(tmp_path) -> Path:
    clips = {f"clip-{n:02d}": None if n % 5 == 2 else clip(n) for n in range(23)}
    return write_shard(tmp_path / "train-0003.h5", clips)


def run(audio: Path, out: Path, **changes: object) -> EmbeddingShard:
    embed(audio=audio, out=out, **{"teacher": TEACHER, "batch_size": 4, "device": "cpu", **changes})
    return EmbeddingShard(out)


def test_available_clips_are_embedded_in_order_at_the_teachers_sample_rate(audio, tmp_path):
    with run(audio, tmp_path / "out.h5", dtype="float32") as shard:
        available = [n for n in range(23) if n % 5 != 2]
        assert shard.clip_ids == [f"clip-{n:02d}" for n in available]
        for row, n in zip(shard.rows(), available, strict=True):
            sound = np.clip(np.rint(clip(n) * 32768), -32768, 32767).astype(np.float32) / 32768
            at_16k = soxr.resample(sound, 32000, 16000, quality="HQ")
            expected = [20.480, at_16k.mean(), at_16k.max(), np.square(at_16k).mean()]
            np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-7)


def test_shard_holds_float16_embeddings_and_its_settings(audio, tmp_path):
    with run(audio, tmp_path / "out.h5") as shard, AudioShard(audio) as source:
        assert shard.rows().dtype == np.float16
        assert shard.settings["teacher"] == TEACHER
        assert shard.settings["sample_rate"] == 16000
        assert shard.settings["audio_digest"] == source.digest
        assert shard.settings["n_missing"] == 5
        assert shard.producer == "embed"
        assert shard.checkpoint_sha256 == ""


def test_shard_holds_the_sha256_of_the_checkpoint(audio, tmp_path, module):
    (module / "teacher_for_tests.py").write_text(
        "import torch\ndef embed(path, device):\n    return lambda x: torch.ones(len(x), 4)\n"
    )
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    with run(audio, tmp_path / "out.h5", checkpoint=weights) as shard:
        assert shard.checkpoint_sha256 == file_digest(weights)


def test_origin_of_the_checkpoint_is_not_part_of_the_settings(audio, tmp_path):
    origin = {"checkpoint": {"url": "https://example.org/weights.pt"}, "sample_rate": 16000}
    with run(audio, tmp_path / "out.h5", teacher={**TEACHER, **origin}) as shard:
        assert shard.settings["teacher"] == TEACHER


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_embeddings_do_not_depend_on_the_batch_size(audio, tmp_path, batch_size):
    expected = run(audio, tmp_path / "a.h5").rows()
    assert np.array_equal(run(audio, tmp_path / "b.h5", batch_size=batch_size).rows(), expected)


def test_equal_inputs_give_identical_files(audio, tmp_path):
    for name in ("a.h5", "b.h5"):
        run(audio, tmp_path / name).close()
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert digest_path(tmp_path / "a.h5").read_text() == digest_path(tmp_path / "b.h5").read_text()


def test_embedding_with_a_nan_is_an_error_that_names_the_clip_and_leaves_no_shard(tmp_path):
    audio = write_shard(tmp_path / "a.h5", {"sound": clip(0), "silence": np.zeros(40960, np.float32), "more": clip(1)})
    with pytest.raises(SsondoError, match="clip silence has a NaN"):
        run(audio, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()
    assert not list(tmp_path.glob(".out.h5*"))


def test_up_to_one_percent_of_clips_without_a_finite_embedding_are_omitted_and_logged(tmp_path, caplog):
    tone, silence = clip(0, 0.1), np.zeros(3200, np.float32)
    clips = {f"c{n:03d}": silence if n in (7, 150) else tone for n in range(200)}
    audio = write_shard(tmp_path / "a.h5", clips | {"lost": None})
    with run(audio, tmp_path / "out.h5") as shard:
        assert shard.clip_ids == [name for name in clips if name not in ("c007", "c150")]
        assert shard.settings["not_finite"] == ["c007", "c150"]
        assert shard.settings["n_missing"] == 3
        assert shard.settings["clip_list_sha256"] == clip_list_digest(shard.clip_ids)
        assert np.isfinite(shard.rows()).all()
    assert "2 of 200 clips are omitted" in caplog.text
    assert "c007, c150" in caplog.text
    audio = write_shard(tmp_path / "b.h5", clips | {"c199": silence})
    with pytest.raises(SsondoError, match="clip c199 has a NaN"):
        run(audio, tmp_path / "b-out.h5")


def test_error_for_a_clip_that_cannot_be_decoded_names_the_clip(tmp_path):
    path = tmp_path / "a.h5"
    with AudioShardWriter(path, sample_rate=32000, settings={}) as shard:
        shard.add("good", encode_flac(clip(0), 32000))
        shard.add("bad", b"not sound")
    with pytest.raises(SsondoError, match=r"a.h5: clip bad: "):
        run(path, tmp_path / "out.h5")


@pytest.mark.parametrize("clips", [{}, {"a": None, "b": None}], ids=["empty", "all failed"])
def test_shard_without_available_clips_gives_an_empty_shard_and_a_warning(tmp_path, caplog, clips):
    audio = write_shard(tmp_path / "a.h5", clips)
    with run(audio, tmp_path / "out.h5") as shard:
        assert len(shard) == 0
        assert shard.embedding_dim == 4
    assert f"none of the {len(clips)} clips is available" in caplog.text


def test_last_log_line_states_the_number_of_clips_and_the_output(audio, tmp_path, caplog):
    caplog.set_level("INFO")
    run(audio, tmp_path / "out.h5")
    last = caplog.records[-1].getMessage()
    assert last.startswith("embed callable train-0003: 18 of 23 clips, 4-d float16, in ")
    assert last.endswith(f"-> {tmp_path / 'out.h5'}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": {"sample_rate": 16000}}, "has no key 'kind'"),
        ({"teacher": {**TEACHER, "embedding_dim": 5}}, "expected"),
        ({"dtype": "int8"}, "int8"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"checkpoint": Path("absent.pt")}, "absent.pt: this checkpoint does not exist"),
    ],
)
def test_invalid_settings_are_refused(audio, tmp_path, changes, words):
    with pytest.raises(SsondoError, match=words):
        run(audio, tmp_path / "out.h5", **changes)
    assert not (tmp_path / "out.h5").exists()


def test_shard_with_another_codec_is_read(tmp_path):
    audio = write_shard(tmp_path / "a.h5", {"a": clip(0)}, codec="pcm16")
    with run(audio, tmp_path / "out.h5") as shard:
        assert shard.rows()[0, 0] == np.float16(20.48)


@pytest.mark.slow
def test_killed_job_leaves_no_shard_and_the_next_one_succeeds(audio, tmp_path, module):
    out = tmp_path / "embeddings" / "out.h5"
    program = textwrap.dedent(f"""
        from pathlib import Path
        from ssondo.teachers.embed import embed
        embed(audio=Path({str(audio)!r}), out=Path({str(out)!r}), teacher={TEACHER!r}, batch_size=2, device="cpu")
    """)
    environment = {**os.environ, "PYTHONPATH": str(module), "SLOW_TEACHER_S": "0.5"}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.parent.glob(".out.h5*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(1.0)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert not digest_path(out).exists()
    with run(audio, out) as shard:
        assert len(shard) == 18
    assert sorted(path.name for path in out.parent.iterdir()) == ["out.h5", "out.h5.digest"]


def test_code_of_embed_does_not_include_students_or_other_teachers():
    reached = modules_of(
        "ssondo.teachers.embed", "ssondo.teachers.vit", "ssondo.teachers.yamnet", "ssondo.teachers.external"
    )
    assert not [
        module
        for module in reached
        if "student" in module or module in ("ssondo.inference.wrapper", "ssondo.probe.embed_task")
    ]
    assert not {"ssondo.teachers.vit", "ssondo.teachers.yamnet"} & set(modules_of("ssondo.teachers.embed"))


@pytest.mark.parametrize(
    ("builtin", "precision", "device", "half"),
    [
        (True, "auto", "cuda", torch.float16),
        (True, "auto", "cuda:1", torch.float16),
        (True, "float32", "cuda", None),
        (True, "bf16", "cuda", torch.bfloat16),
        (True, "fp16", "cpu", None),
        (False, "auto", "cuda", None),
        (False, "fp16", "cuda", torch.float16),
    ],
)
def test_16_bit_is_used_on_gpus_if_the_teacher_is_float16_safe_or_precision_requests_it(
    builtin, precision, device, half
):
    own = ExternalTeacher("own", lambda x: x[:, :4], sample_rate=16_000, embedding_dim=4)
    with torch.device("meta"):
        teacher = Matpac() if builtin else own
    assert teacher_amp_dtype(teacher, precision, torch.device(device)) == half


def test_unknown_precision_is_an_error(audio, tmp_path):
    with pytest.raises(SsondoError, match="precision 'fp8' is unknown; use one of auto, float32, bf16, fp16"):
        run(audio, tmp_path, precision="fp8")


def test_error_for_a_batch_too_large_for_the_gpu_names_the_setting_to_lower(audio, tmp_path, module):
    (module / "teacher_for_tests.py").write_text(
        "import torch\n"
        "def embed(x):\n"
        "    raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 9 GiB. GPU 0 has a total of 8 GiB')\n"
    )
    words = (
        r"^a batch of 4 clips does not fit .*lower runtime\.embed_batch_size .*\(CUDA out of memory. Tried .* 9 GiB\)$"
    )
    with pytest.raises(SsondoError, match=words):
        run(audio, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_shard_that_was_not_resampled_is_refused(tmp_path):
    path = tmp_path / "fetched.h5"
    with AudioShardWriter(path, sample_rate=0, settings={}) as shard:
        shard.add("a", encode_flac(clip(0), 32000))
    with pytest.raises(SsondoError, match="holds clips as they were fetched; give the output of `resample`"):
        run(path, tmp_path / "out.h5")
