import os
import zipfile
from pathlib import Path

import pytest
import torch
from aftermath import one_line
from safetensors.torch import save_file

from ssondo.errors import SsondoError
from ssondo.storage.weights import load_weights

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


def test_checkpoint_in_an_archive_is_loaded(tmp_path):
    torch.save(WEIGHTS, tmp_path / "checkpoint-300.pth")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.write(tmp_path / "checkpoint-300.pth", "model/checkpoint-300.pth")
        archive.writestr("model/LICENSE.txt", "...")
        archive.writestr("__MACOSX/model/._checkpoint-300.pth", "...")
    assert_weights(load_weights(tmp_path / "model.zip"))


def test_archive_of_two_checkpoints_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.pt", "")
        archive.writestr("b.pt", "")
    with pytest.raises(SsondoError, match="the archive holds 2 checkpoints"):
        load_weights(tmp_path / "two.zip")


class _Runs:
    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder: str) -> None:
        self.folder = folder


def test_pickle_that_contains_code_is_refused_and_not_run(tmp_path):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    torch.save({"weights": WEIGHTS, "other": _Runs(str(trace))}, path)
    with pytest.raises(SsondoError, match=r"evil.pt: refused.*mkdir.*trust_checkpoint=True") as error:
        load_weights(path)
    one_line(error)
    assert not trace.exists()
    load_weights(path, trust_checkpoint=True)
    assert trace.exists()


def test_python_object_is_loaded_only_with_trust_checkpoint(tmp_path):
    path = tmp_path / "object.pt"
    torch.save({"path": Path("x")}, path)
    with pytest.raises(SsondoError, match=r"refused.*pathlib"):
        load_weights(path)
    assert load_weights(path, trust_checkpoint=True) == {"path": Path("x")}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>Not Found</html>", b"PK\x03\x04rest", b"\x80\x02}"], ids=repr
)
def test_file_that_is_not_a_checkpoint_is_refused(tmp_path, content, trust):
    path = tmp_path / "page.pt"
    path.write_bytes(content)
    with pytest.raises(SsondoError, match=f"not a checkpoint, or cut short \\({len(content)} bytes") as error:
        load_weights(path, trust_checkpoint=trust)
    one_line(error)


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors"])
def test_truncated_file_is_refused(tmp_path, name):
    path = tmp_path / name
    weights = {"a": torch.zeros(1000)}
    save_file(weights, path) if name.endswith("safetensors") else torch.save(weights, path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(SsondoError, match="cut short"):
        load_weights(path)


def test_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(SsondoError, match=r"absent.pt: no such checkpoint"):
        load_weights(tmp_path / "absent.pt")
