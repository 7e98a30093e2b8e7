import functools
import hashlib
import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssondo.audioset.index import index
from ssondo.audioset.list_folder import list_folder
from ssondo.errors import SsondoError, TransientError
from ssondo.storage import download
from ssondo.storage.segments import Segment, read_segments, shard_of

AUDIOSET = Path(__file__).parents[2].parent / "shared" / "data" / "metadata" / "audioset"
OFFICIAL = """\
# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=3, num_segs=3, num_unique_labels=2, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
_zz-ZZ_zz_Z, 0.000, 9.500, "/m/09x0r"
AaBbCcDdEeF, 100.000, 110.000, "/t/dd00088"
"""
MIRROR = """\
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs,30,40,"/m/09x0r,/t/dd00088"
_zz-ZZ_zz_Z,0,9.5,/m/09x0r
AaBbCcDdEeF,100,110,/t/dd00088
"""
CLASSES = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gush, of water"\n'
EVAL = "# YTID\nevalevaleva,0,10,/m/09x0r\n"


def run(
    folder: Path, train: str | list[str] = OFFICIAL, evaluation: str = EVAL, classes: str = CLASSES, n_shards: int = 4
) -> Path:
    """Index texts and return the folder of the result."""
    folder.mkdir(exist_ok=True)
    texts = [train] if isinstance(train, str) else train
    for n, text in enumerate([*texts, evaluation]):
        (folder / f"{n}.in.csv").write_text(text)
    (folder / "classes.in.csv").write_text(classes)
    names = [str(folder / f"{n}.in.csv") for n in range(len(texts) + 1)]
    index(
        train=names[:-1],
        eval=names[-1:],
        classes=str(folder / "classes.in.csv") if classes else "",
        n_train_shards=n_shards,
        n_eval_shards=1,
        out=folder / "out",
    )
    return folder / "out"


def clips(out: Path, split: str = "train") -> list[Segment]:
    return sorted(segment for path in out.glob(f"{split}-????.csv") for segment in read_segments(path))


def summary(out: Path) -> dict:
    return json.loads((out / "summary.json").read_text())["train"]


def test_shard_of_a_clip_is_the_first_64_bits_of_its_sha256_modulo_the_number_of_shards() -> None:
    # printf %s --PJHxphWEs | sha256sum
    digest = hashlib.sha256(b"--PJHxphWEs").hexdigest()
    assert shard_of("--PJHxphWEs", 512) == int(digest[:16], 16) % 512
    # Constants: the clips of existing data sets must stay in their shards.
    assert (shard_of("--PJHxphWEs", 512), shard_of("_abc", 7)) == (496, 1)


def test_official_and_mirrored_lists_give_identical_files(tmp_path: Path) -> None:
    official, mirror = run(tmp_path / "a", OFFICIAL), run(tmp_path / "b", MIRROR)
    assert clips(official) == [
        Segment("--PJHxphWEs", 30.0, 40.0, ("/m/09x0r", "/t/dd00088")),
        Segment("AaBbCcDdEeF", 100.0, 110.0, ("/t/dd00088",)),
        Segment("_zz-ZZ_zz_Z", 0.0, 9.5, ("/m/09x0r",)),
    ]
    for path in official.iterdir():
        assert path.read_bytes() == (mirror / path.name).read_bytes()


def test_every_shard_has_a_file_that_lists_its_own_clips_in_order(tmp_path: Path) -> None:
    rows = "".join(f"clip{n:04d},0,10,/m/09x0r\n" for n in reversed(range(200)))
    out = run(tmp_path, rows, n_shards=300)
    files = sorted(out.glob("train-*.csv"))
    assert [path.name for path in files] == [f"train-{n:04d}.csv" for n in range(300)]
    lists = [[segment.ytid for segment in read_segments(path)] for path in files]
    assert sum(map(len, lists)) == 200
    assert any(not names for names in lists)
    for shard, names in enumerate(lists):
        assert names == sorted(names)
        assert all(shard_of(name, 300) == shard for name in names)


def test_longer_list_moves_no_clip_to_another_shard(tmp_path: Path) -> None:
    before = run(tmp_path / "a", OFFICIAL)
    after = run(tmp_path / "b", [OFFICIAL, "another_one,0,10,/m/09x0r\n"])
    for path in before.glob("train-*.csv"):
        kept = set(path.read_text().splitlines())
        assert kept <= set((after / path.name).read_text().splitlines())


def test_irregular_rows_are_counted_and_only_valid_clips_are_kept(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        "good,0,10,/m/09x0r\n"
        "good,0,10,/m/09x0r\n"  # identical
        "good,5,15,/m/09x0r\n"  # overlapping
        "good,50,60,/m/09x0r\n"  # another segment of the same video
        "negative,-1,10,/m/09x0r\n"
        "inverted,20,10,/m/09x0r\n"
        "nothing,nan,10,/m/09x0r\n"
        "unknown,0,10,\"/m/09x0r,/m/nowhere\"\n"
        "nolabel,0,10\n"
        "emptylabel,0,10,\n"
        "unquoted,0,10,/m/09x0r,/t/dd00088\n"
        "\n"
        "a line of prose\n"
        "evalevaleva,0,10,/m/09x0r\n",
    )  # fmt: skip
    assert {segment.ytid: segment.labels for segment in clips(out)} == {
        "good": ("/m/09x0r",),
        "unknown": ("/m/09x0r",),
        "nolabel": (),
        "emptylabel": (),
        "unquoted": ("/m/09x0r", "/t/dd00088"),
    }
    counts = summary(out)
    del counts["clips_of_shard"]
    assert counts == {
        "rows": 13,
        "clips": 5,
        "duplicates": 3,
        "overlapping": 1,
        "bad_times": 3,
        "unknown_labels": 1,
        "without_labels": 2,
        "unreadable": 1,
        "also_in_eval": 1,
        "not_in_manifest": 0,
        "only_in_manifest": 0,
    }
    assert [segment.ytid for segment in clips(out, "eval")] == ["evalevaleva"]


def test_without_a_class_list_all_labels_are_kept(tmp_path: Path) -> None:
    out = run(tmp_path, classes="")
    assert clips(out)[0].labels == ("/m/09x0r", "/t/dd00088")
    assert (out / "classes.csv").read_text() == "index,mid,display_name\n"
    assert summary(out)["unknown_labels"] == 0


def test_class_list_is_written_in_the_form_of_audioset(tmp_path: Path) -> None:
    assert (run(tmp_path) / "classes.csv").read_text() == (
        'index,mid,display_name\n0,/m/09x0r,Speech\n1,/t/dd00088,"Gush, of water"\n'
    )


@pytest.mark.parametrize(
    ("train", "classes", "words"),
    [
        ("# only a comment\n", CLASSES, "contains no segments"),
        ("one\ntwo\n", CLASSES, "contains no segments"),
        ("# YTID\none;0;10\n", CLASSES, "contains no segments"),
        ("abc,10,0,/m/09x0r\nabd,10,-1,/m/09x0r\n", CLASSES, "contains no segments"),
        ("# YTID\n", CLASSES, "0.in.csv: no training clips are left: the list is empty; set audioset.segments.train"),
        (
            EVAL,
            CLASSES,
            "0.in.csv: no training clips are left: each of the 1 is also in the eval list; set audioset.segments",
        ),
        ("naïve,0,10,/m/09x0r\n", CLASSES, "'naïve' is not plain ASCII"),
        (OFFICIAL, "mid;name\n", "not AudioSet's class list"),
        (OFFICIAL, CLASSES.replace("1,", "7,"), "not AudioSet's class list"),
    ],
)
def test_error_names_the_file_that_is_not_a_list(tmp_path: Path, train: str, classes: str, words: str) -> None:
    with pytest.raises(SsondoError, match=words):
        run(tmp_path, train, classes=classes)


def test_empty_list_is_accepted_only_with_a_header(tmp_path: Path) -> None:
    assert len(clips(run(tmp_path / "headed", [OFFICIAL, "# YTID, start_seconds, end_seconds\n"]))) == 3
    for n, empty in enumerate(("", "\n")):
        for lists, name in (([OFFICIAL, empty], "1.in.csv"), ([empty, OFFICIAL], "0.in.csv")):
            with pytest.raises(SsondoError, match=f"{name}: contains no segments.*needs the header line: # YTID"):
                run(tmp_path / f"{n}", lists)


def test_list_with_one_valid_row_is_accepted(tmp_path: Path) -> None:
    assert [clip.ytid for clip in clips(run(tmp_path, "one\nabc,10,0,\nabd,0,10,/m/09x0r\n"))] == ["abd"]


def test_error_for_a_missing_file_names_the_configuration_key(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match=r"nowhere\.csv: no such file; set audioset\.segments\.eval"):
        index(train=[], eval=["nowhere.csv"], classes="", n_train_shards=1, n_eval_shards=1, out=tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "train.csv").write_text(OFFICIAL)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_lists_are_downloaded(tmp_path: Path, server: str) -> None:
    index(train=[f"{server}/train.csv"], eval=[], classes="", n_train_shards=2, n_eval_shards=1, out=tmp_path / "out")
    assert len(clips(tmp_path / "out")) == 3


def test_list_that_the_server_does_not_have_is_a_permanent_error(tmp_path: Path, server: str) -> None:
    with pytest.raises(SsondoError, match=r"answered 404 .*set audioset\.segments\.train") as caught:
        index(train=[f"{server}/no.csv"], eval=[], classes="", n_train_shards=2, n_eval_shards=1, out=tmp_path)
    assert not isinstance(caught.value, TransientError)


def test_missing_network_is_a_transient_error_with_url_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_FIRST_WAIT_S", 0.0)
    with pytest.raises(
        TransientError, match=r"^http://127\.0\.0\.1:9/x\.csv: .*set audioset\.segments\.train"
    ) as caught:
        index(train=["http://127.0.0.1:9/x.csv"], eval=[], classes="", n_train_shards=1, n_eval_shards=1, out=tmp_path)
    assert "\n" not in str(caught.value)


def test_index_reads_the_lists_that_list_folder_writes(tmp_path: Path) -> None:
    names = [f"clip {n:03d}, take #{n}.wav" for n in range(300)] + ["#first.flac"]
    (tmp_path / "in" / "sub").mkdir(parents=True)
    for name in names:
        (tmp_path / "in" / "sub" / name).write_bytes(b"x")
    (tmp_path / "in" / "README.md").write_text("not audio")
    lists = {"out_train": tmp_path / "train.csv", "out_eval": tmp_path / "eval.csv"}
    list_folder(folder=tmp_path / "in", pattern="**/*.*", eval_share=0.2, clip_s=2.5, **lists)
    index(
        train=[str(lists["out_train"])],
        eval=[str(lists["out_eval"])],
        classes="",
        n_train_shards=3,
        n_eval_shards=2,
        out=tmp_path / "out",
    )
    train, evaluation = clips(tmp_path / "out"), clips(tmp_path / "out", "eval")
    assert {segment.ytid for segment in train + evaluation} == {name.rpartition(".")[0] for name in names}
    assert {segment[1:] for segment in train} == {(0.0, 2.5, ())}
    assert 35 < len(evaluation) < 85  # expected 60 of 301, within four standard deviations
    assert len({shard_of(segment.ytid, 2) for segment in evaluation}) == 2


def test_two_files_with_the_same_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.wav").write_bytes(b"x")
    with pytest.raises(SsondoError, match="have the same name"):
        list_folder(
            folder=tmp_path, pattern="**/*", eval_share=0, clip_s=1, out_train=tmp_path / "t", out_eval=tmp_path / "e"
        )


def test_evaluation_share_of_zero_gives_an_empty_eval_list(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(b"x")
    train, evaluation = tmp_path / "train.csv", tmp_path / "eval.csv"
    list_folder(folder=tmp_path, pattern="*", eval_share=0.0, clip_s=1.0, out_train=train, out_eval=evaluation)
    index(train=[str(train)], eval=[str(evaluation)], classes="", n_train_shards=1, n_eval_shards=2, out=tmp_path)
    assert clips(tmp_path) == [Segment("x", 0.0, 1.0)]
    assert [path.read_text() for path in sorted(tmp_path.glob("eval-*"))] == ["ytid,start_s,end_s,labels\n"] * 2


@pytest.mark.skipif(not AUDIOSET.is_dir(), reason="no shared AudioSet lists")
def test_all_rows_of_the_official_lists_are_read(tmp_path: Path) -> None:
    index(
        train=[str(AUDIOSET / "balanced_train_segments.csv")],
        eval=[str(AUDIOSET / "eval_segments.csv")],
        classes=str(AUDIOSET / "class_labels_indices.csv"),
        n_train_shards=16,
        n_eval_shards=4,
        out=tmp_path,
    )
    counts = json.loads((tmp_path / "summary.json").read_text())
    # The numbers of segments and classes that AudioSet's website gives.
    assert (counts["train"]["clips"], counts["eval"]["clips"], counts["n_classes"]) == (22_160, 20_371, 527)
    # The header of the list says num_positive_labels=52882.
    assert sum(len(segment.labels) for segment in clips(tmp_path)) == 52_882
    sizes = counts["train"]["clips_of_shard"]
    assert max(sizes) / min(sizes) < 1.25


# Indexes lists of AudioSet's size. It runs in its own process, so that the peak memory is that of `index` alone.
_FULL_SIZE = """
import resource, sys
from pathlib import Path
from ssondo.audioset.index import index
folder = Path(sys.argv[1])
sizes = {"unbalanced": 2_041_789, "balanced": 22_160, "eval": 20_371}
labels = ["/m/09x0r", "/m/09x0r,/t/dd00088", "/t/dd00088"]
for name, n in sizes.items():
    with (folder / f"{name}.csv").open("w") as file:
        file.write("# one\\n# two\\n# YTID, start_seconds, end_seconds, positive_labels\\n")
        file.writelines(f'{name[0]}{i:010x}, {i % 600}.000, {i % 600 + 10}.000, "{labels[i % 3]}"\\n' for i in range(n))
(folder / "classes.csv").write_text("index,mid,display_name\\n0,/m/09x0r,Speech\\n1,/t/dd00088,Gush\\n")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
index(train=[str(folder / "balanced.csv"), str(folder / "unbalanced.csv")], eval=[str(folder / "eval.csv")],
      classes=str(folder / "classes.csv"), n_train_shards=512, n_eval_shards=8, out=folder / "out")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_index_of_full_audioset_needs_less_than_3_gib(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL_SIZE, str(tmp_path)], capture_output=True, text=True, check=True, timeout=600
    )
    assert int(done.stdout) < 3 * 1024
    counts = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (counts["train"]["clips"], counts["eval"]["clips"]) == (2_041_789 + 22_160, 20_371)
    sizes = counts["train"]["clips_of_shard"]
    assert (len(sizes), sum(sizes)) == (512, 2_063_949)
    # The mean is 4,031 clips per shard; five standard deviations are 317.
    assert max(sizes) < 4_031 + 330
    assert min(sizes) > 4_031 - 330
