"""Students as ONNX files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from small_students import SMALL, WINDOW, filled, noise, small

from ssondo.errors import SsondoError
from ssondo.inference import export
from ssondo.inference.wrapper import get_ssondo
from ssondo.students.checkpoint import save_student
from ssondo.workflow import verbs

SSONDO = str(Path(sys.executable).parent / "ssondo")


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_exported_student_gives_the_embeddings_of_torch_for_any_batch_and_length(name: str, tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "student.ckpt", tmp_path / "phone" / "student.onnx"
    save_student(checkpoint, filled(name))
    command = [SSONDO, "export", "--student", str(checkpoint), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1, "the exporter printed messages"
    assert "onnxruntime differs from torch by" in done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["student.onnx"]
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    model = get_ssondo(checkpoint)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata == {"sample_rate": "32000", "embedding_dim": str(model.embedding_dim)}
    for batch, n_samples in [(1, 1), (1, WINDOW), (3, WINDOW + 1), (2, 4 * WINDOW + 77)]:
        waveforms = noise(batch, n_samples, seed=n_samples)
        (embeddings,) = session.run(["embeddings"], {"waveforms": waveforms.numpy()})
        with torch.no_grad():
            expected = model.get_embeddings(waveforms).numpy()
        assert embeddings.shape == expected.shape
        assert np.abs(embeddings - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.slow
def test_exported_student_without_add_last_drops_the_incomplete_window(tmp_path: Path) -> None:
    checkpoint, out = tmp_path / "student.ckpt", tmp_path / "student.onnx"
    save_student(checkpoint, small(add_last=False))
    export.export(student=checkpoint, out=out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    waveforms = noise(1, 2 * WINDOW).numpy()
    (whole,) = session.run(None, {"waveforms": waveforms[:, :WINDOW]})
    (more,) = session.run(None, {"waveforms": waveforms[:, : WINDOW + 900]})
    (both,) = session.run(None, {"waveforms": waveforms})
    np.testing.assert_allclose(more, whole, rtol=1e-4, atol=1e-6)
    assert np.abs(both - whole).max() > 1e-3 * np.abs(whole).max()


def test_export_with_wrong_embeddings_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, out = tmp_path / "student.ckpt", tmp_path / "phone" / "student.onnx"
    save_student(checkpoint, small())
    monkeypatch.setattr(export, "_write", lambda model, path, *_: path.write_bytes(b"a graph"))
    monkeypatch.setattr(export, "load_onnx", lambda *_, **__: lambda waveforms: torch.zeros(len(waveforms), 192))
    with pytest.raises(SsondoError, match=r"student.ckpt: the export is wrong: the embeddings of noise .* 1\.0e\+00"):
        export.export(student=checkpoint, out=out)
    assert list(out.parent.iterdir()) == []


def test_error_for_a_missing_package_names_the_extra_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = export.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "onnxscript" else find_spec(name))
    with pytest.raises(SsondoError, match=r"needs the package onnxscript; .*pip install '\.\[export\]'"):
        export.export(student=tmp_path / "a.ckpt", out=tmp_path / "a.onnx")


def test_missing_student_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match=r"a\.ckpt: this student checkpoint does not exist"):
        export.export(student=tmp_path / "a.ckpt", out=tmp_path / "a.onnx")


def test_export_is_a_command_and_no_rule() -> None:
    assert "export" in verbs.COMMANDS
    assert "export" not in verbs.VERBS
