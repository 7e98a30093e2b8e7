import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import (
    array_digest,
    atomic_write,
    clip_list_digest,
    read_json,
    save_figure,
    write_csv,
    write_json,
)


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_temporary_file_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    code = f"""
import os, signal
from ssondo.storage.atomic_files import atomic_write
with atomic_write({str(tmp_path / "a")!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(os.listdir(tmp_path)) == 1
    with atomic_write(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert os.listdir(tmp_path) == ["a"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 256 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("needs the mount program")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_gives_a_one_line_error_that_names_the_file(small_disk: Path) -> None:
    path = small_disk / "a"
    with (
        pytest.raises(SsondoError, match=rf"{path}: no space left .* free some") as error,
        atomic_write(path) as temporary,
    ):
        temporary.write_bytes(bytes(1 << 20))
    assert "\n" not in str(error.value)
    assert os.listdir(small_disk) == []


def test_full_disk_while_a_shard_is_written_leaves_no_shard(small_disk: Path) -> None:
    from ssondo.storage.shards.audio import AudioShardWriter

    path = small_disk / "a.h5"
    with pytest.raises(SsondoError, match="no space left"), AudioShardWriter(path, sample_rate=0, settings={}) as shard:
        for i in range(100):
            shard.add(f"clip{i}", os.urandom(100_000))
    assert os.listdir(small_disk) == []


def test_missing_or_damaged_json_is_reported_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match=r"no such file; make it with: snakemake"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"half": ')
    with pytest.raises(SsondoError, match=r"a\.json: not a JSON file .* remove it"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(("name", "magic"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml")])
def test_equal_figures_give_equal_files_without_a_date(tmp_path: Path, name: str, magic: bytes) -> None:
    from matplotlib.figure import Figure

    def saved(folder: str, height: float) -> bytes:
        figure = Figure(figsize=(2, 1))
        figure.subplots().fill_between([0, 1], [0, height])
        save_figure(tmp_path / folder / name, figure)
        assert os.listdir(tmp_path / folder) == [name]
        return (tmp_path / folder / name).read_bytes()

    first = saved("first", 1.0)
    assert first.startswith(magic)
    assert b"Software" not in first
    assert b"date" not in first
    assert saved("second", 1.0) == first
    assert saved("third", 2.0) != first


def test_figure_with_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    with pytest.raises(ValueError, match=r"a\.jpg: .* \.png or \.svg, not as '\.jpg'"):
        save_figure(tmp_path / "a.jpg", Figure())


def test_table_is_written_as_csv_without_index(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"clip": ["a,b", "c"], "score": [1 / 3, None], "n": [1, 2]}, index=[7, 8])
    write_csv(tmp_path / "full.csv", frame)
    write_csv(tmp_path / "short.csv", frame, float_format="%.2f")
    assert (tmp_path / "full.csv").read_text() == 'clip,score,n\n"a,b",0.3333333333333333,1\nc,,2\n'
    assert (tmp_path / "short.csv").read_text() == 'clip,score,n\n"a,b",0.33,1\nc,,2\n'


def test_array_digest_depends_on_type_shape_and_values() -> None:
    values = np.arange(6, dtype=np.int32)
    digests = {array_digest(v) for v in (values, values.astype(np.int64), values.reshape(2, 3), values[::-1])}
    assert len(digests) == 4
    assert array_digest(np.arange(12).reshape(3, 4).T) == array_digest(np.arange(12).reshape(3, 4).T.copy())


def test_clip_list_digest_does_not_depend_on_the_order() -> None:
    assert clip_list_digest(["b", "a"]) == clip_list_digest(["a", "b"])
    assert clip_list_digest(["a"]) != clip_list_digest(["a", "b"])
    assert clip_list_digest(["ab"]) != clip_list_digest(["a", "b"])
