import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tasks_replicas as replicas

from ssondo.errors import SsondoError
from ssondo.provenance import modules_of
from ssondo.storage.shards.audio import AudioShard
from ssondo.storage.shards.status import Status
from ssondo.tasks import READERS
from ssondo.tasks.gtzan import GENRES
from ssondo.tasks.load_task import load_task
from ssondo.tasks.magnatagatune import TAGS
from ssondo.tasks.prepare_task import prepare_task
from ssondo.tasks.task import Task, draw_valid, stratified_folds

METADATA = replicas.SHARED / "data/metadata"
needs_shared = pytest.mark.skipif(not METADATA.is_dir(), reason="the shared test data is not available")


class Prepared:
    """Content of a prepared task shard, by clip id."""

    def __init__(self, path: Path) -> None:
        with AudioShard(path) as shard:
            self.sample_rate = shard.sample_rate
            self.settings = shard.settings
            self.digest = shard.digest
            self.clip_ids = shard.clip_ids
            labels, splits = shard.extra("labels"), shard.extra(shard.settings["split_kind"])
            self.label_type = labels.dtype
            self.splits = dict(zip(shard.clip_ids, splits.tolist(), strict=True))
            self.labels = dict(zip(shard.clip_ids, labels.tolist(), strict=True))
            self.status = dict(zip(shard.clip_ids, (Status(s) for s in shard.status), strict=True))
            self.reasons = dict(zip(shard.clip_ids, shard.reasons, strict=True))
            self.duration_s = dict(zip(shard.clip_ids, shard.duration_s.tolist(), strict=True))
            self.blobs = {shard.clip_ids[row]: shard.blob(row) for row in range(len(shard))}

    def names(self, clip: str) -> set[str]:
        return {name for name, label in zip(self.settings["classes"], self.labels[clip], strict=True) if label == 1}

    def sound(self, clip: str) -> tuple[np.ndarray, soundfile.SoundFile]:
        with soundfile.SoundFile(io.BytesIO(self.blobs[clip])) as file:
            return file.read(dtype="float32", always_2d=True), file


def prepare(
    out: Path, kind: str, path: Path | None = None, seed: int = 0, n_workers: int = 1, **options: Any
) -> Prepared:
    spec = {"kind": kind, "path": str(path) if path else None, "options": options}
    prepare_task(task="mine", spec=spec, out=out, seed=seed, n_workers=n_workers)
    return Prepared(out)


def load(kind: str, path: Path | None = None, seed: int = 0, **options: Any) -> Task:
    return load_task("mine", {"kind": kind, "path": str(path) if path else None, "options": options}, seed)


def test_esc50_has_its_official_folds_and_classes_in_the_order_of_targets(tmp_path: Path) -> None:
    task = prepare(tmp_path / "t.h5", "esc50", replicas.esc50(tmp_path))
    assert (task.settings["metric"], task.settings["split_kind"]) == ("accuracy", "fold")
    assert task.settings["classes"] == ["dog", "rooster", "pig"]
    assert Counter(task.splits.values()) == dict.fromkeys(range(1, 6), 3)
    assert task.splits["4-1001-A-1"] == 4
    assert task.names("4-1001-A-1") == {"rooster"}


def test_urbansound8k_clips_become_complete_32_khz_mono_clips(tmp_path: Path) -> None:
    task = prepare(tmp_path / "t.h5", "urbansound8k", replicas.urbansound8k(tmp_path))
    assert (task.sample_rate, task.label_type) == (32000, np.int8)
    assert Counter(task.splits.values()) == dict.fromkeys(range(1, 11), 2)
    assert task.names("700-3-0-0") == {"dog_bark"}
    for clip in task.clip_ids:
        wave, file = task.sound(clip)
        assert (file.samplerate, file.format, file.subtype) == (32000, "FLAC", "PCM_16")
        assert abs(len(wave) - 8000) <= 1
        assert wave.shape[1] == 1
        assert task.duration_s[clip] == pytest.approx(0.25, abs=1e-3)
        middle = wave[2000:6000, 0]
        assert np.sqrt(2) * middle.std() == pytest.approx(0.5, abs=0.01)  # The amplitude of the tone.


def test_fsd50k_has_official_validation_clips_and_several_labels(tmp_path: Path) -> None:
    task = prepare(tmp_path / "t.h5", "fsd50k", replicas.fsd50k(tmp_path))
    assert task.settings["metric"] == "map"
    splits = {clip: task.splits[clip] for clip in ("10", "11", "12", "20")}
    assert splits == {"10": b"train", "11": b"train", "12": b"valid", "20": b"test"}
    assert task.labels["10"] == [0, 1, 1]
    assert task.names("20") == {"Accordion", "Bark", "Wind"}
    assert task.duration_s["20"] == pytest.approx(1.0)


def test_gtzan_uses_the_fault_filtered_split_and_records_its_damaged_file(tmp_path: Path) -> None:
    task = prepare(tmp_path / "t.h5", "gtzan", replicas.gtzan(tmp_path / "gtzan"), max_missing=0)
    assert Counter(task.splits.values()) == {b"train": 443, b"valid": 197, b"test": 290}
    assert [clip for clip, status in task.status.items() if status is not Status.OK] == ["jazz.00054"]
    assert "not audio" in task.reasons["jazz.00054"]
    assert task.names("reggae.00034") == {"reggae"}


def test_damaged_file_of_gtzan_can_be_absent(tmp_path: Path) -> None:
    root = replicas.gtzan(tmp_path / "gtzan")
    (root / "genres/jazz/jazz.00054.wav").unlink()
    task = prepare(tmp_path / "t.h5", "gtzan", root, max_missing=0)
    assert {clip: task.reasons[clip] for clip in task.clip_ids if task.status[clip]} == {"jazz.00054": "no such file"}


def test_gtzan_accepts_the_au_files_of_older_copies(tmp_path: Path) -> None:
    task = load("gtzan", replicas.gtzan(tmp_path / "gtzan", ".au"))
    assert {clip.source.suffix for clip in task.clips if isinstance(clip.source, Path)} == {".au"}


@needs_shared
def test_gtzan_split_equals_the_published_one(tmp_path: Path) -> None:
    for genre in GENRES:
        (tmp_path / "genres" / genre).mkdir(parents=True)
    splits = {clip.clip_id: clip.split for clip in load("gtzan", tmp_path).clips}
    for split in ("train", "valid", "test"):
        published = (METADATA / f"gtzan/{split}_filtered.txt").read_text().split()
        assert {name for name, own in splits.items() if own == split} == {Path(line).stem for line in published}


def test_magnatagatune_is_split_by_folder_and_records_its_empty_file(tmp_path: Path) -> None:
    task = prepare(tmp_path / "t.h5", "magnatagatune", replicas.magnatagatune(tmp_path / "mtt", TAGS), max_missing=0)
    splits = {clip[0]: split for clip, split in task.splits.items() if clip != replicas.MTT_EMPTY}
    assert [splits[letter] for letter in "0b"] == [b"train"] * 2
    assert [splits[letter] for letter in "cdf"] == [b"valid", b"test", b"test"]
    assert Counter(splits.values()) == {b"train": 12, b"valid": 1, b"test": 3}
    assert task.names("7/band-album-07-song-0-29.mp3") == {TAGS[7]}
    assert (task.status[replicas.MTT_EMPTY], task.reasons[replicas.MTT_EMPTY]) == (Status.UNAVAILABLE, "empty file")
    assert task.duration_s["0/band-album-00-song-0-29.mp3"] == pytest.approx(0.5, abs=0.15)  # MP3 pads to whole frames.


@needs_shared
def test_magnatagatune_tags_equal_the_published_fifty() -> None:
    published = (METADATA / "magnatagatune/top50_tags.txt").read_text().split()
    assert sorted(tag.replace(" ", "").lower() for tag in TAGS) == sorted(tag.lower() for tag in published)


def test_nsynth_has_eleven_families_and_the_official_splits(tmp_path: Path) -> None:
    task = prepare(tmp_path / "t.h5", "nsynth", replicas.nsynth(tmp_path))
    assert len(task.settings["classes"]) == 11
    assert task.splits["keyboard_acoustic_004-060-025"] == b"valid"
    assert all(clip.startswith(next(iter(task.names(clip)))) for clip in task.clip_ids)
    assert task.names("synth_lead_synthetic_001-060-100") == {"synth_lead"}


def test_openmic_instruments_without_a_row_are_unknown_and_the_relevance_threshold_is_one_half(tmp_path: Path) -> None:
    task = prepare(tmp_path / "t.h5", "openmic", replicas.openmic(tmp_path))
    assert task.settings["metric"] == "masked_map"
    assert task.labels["200000_0"] == [0, -1, 1]  # Relevance 0.49, no row, 0.5.
    assert task.labels["200001_7680"] == [-1, 1, -1]
    assert task.labels["000100_3840"] == [-1, 0, -1]


def test_openmic_validation_clips_are_drawn_from_the_training_clips_with_the_seed(tmp_path: Path) -> None:
    root = replicas.openmic(tmp_path)
    splits = [{clip.clip_id: clip.split for clip in load("openmic", root, seed=seed).clips} for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]
    assert {clip for clip, split in splits[0].items() if split == "test"} == set(replicas.OPENMIC_TEST)
    assert Counter(splits[0].values())["valid"] in (17, 18)  # One seventh of 120.


@pytest.mark.slow
@needs_shared
def test_real_lists_of_urbansound8k_openmic_and_fsd50k_are_read_as_published(tmp_path: Path) -> None:
    folder = tmp_path / "metadata"
    folder.mkdir()
    (folder / "UrbanSound8K.csv").write_bytes((METADATA / "urbansound8k/UrbanSound8K.csv").read_bytes())
    (tmp_path / "audio").mkdir()
    urban = load("urbansound8k", tmp_path)
    n_clips = dict(zip(urban.classes, np.sum([clip.labels for clip in urban.clips], axis=0).tolist(), strict=True))
    # According to the web page of the data set; car_horn and gun_shot are the rarest classes.
    assert (len(urban.clips), n_clips["car_horn"], n_clips["gun_shot"]) == (8732, 429, 374)
    assert sorted(Counter(clip.split for clip in urban.clips)) == list(range(1, 11))

    root = replicas.openmic(tmp_path) / "openmic-2018"
    keys = {side: (METADATA / f"openmic2018/split01_{side}.csv").read_text().split() for side in ("train", "test")}
    for side, lines in keys.items():
        (root / f"partitions/split01_{side}.csv").write_text("\n".join(lines))
    rows = [(key, "banjo", float(index % 2), 3) for index, key in enumerate(keys["train"] + keys["test"])]
    header = ("sample_key", "instrument", "relevance", "num_responses")
    replicas.table(root / "openmic-2018-aggregated-labels.csv", header, rows)
    counts = Counter(clip.split for clip in load("openmic", root).clips)
    assert (counts["test"], counts["train"] + counts["valid"]) == (5085, 14915)

    fsd = replicas.fsd50k(tmp_path / "fsd")
    lines = (METADATA / "fsd50k/class_labels_indices.csv").read_text().splitlines()[1:]
    names = [line.split(",")[2] for line in lines]
    replicas.table(fsd / "FSD50K.ground_truth/vocabulary.csv", (), [(i, n, "/m/x") for i, n in enumerate(names)])
    assert len(load("fsd50k", fsd).classes) == 200


def own_table(folder: Path, n: int = 24) -> Path:
    rows = [(f"a/{index:02d}.wav", ("cat", "dog", "owl")[index % 3], f"source{index // 2}") for index in range(n)]
    for name, _, _ in rows:
        replicas.tone(folder / name, 0.05, 16000)
    return replicas.table(folder / "mine.csv", ("path", "label", "source"), rows)


def test_table_without_split_gets_stratified_folds_that_depend_on_the_seed(tmp_path: Path) -> None:
    path = own_table(tmp_path)
    task = prepare(tmp_path / "t.h5", "table", path, folds=4)
    per_fold = Counter((task.splits[clip], next(iter(task.names(clip)))) for clip in task.clip_ids)
    assert per_fold == {(fold, name): 2 for fold in range(1, 5) for name in ("cat", "dog", "owl")}
    assert prepare(tmp_path / "u.h5", "table", path, folds=4).digest == task.digest
    assert prepare(tmp_path / "v.h5", "table", path, folds=4, seed=1).splits != task.splits


def test_clips_of_a_group_are_in_the_same_fold(tmp_path: Path) -> None:
    task = load("table", own_table(tmp_path), folds=4, group_column="source")
    folds: dict[int, set[str | int]] = {}
    for clip in task.clips:
        folds.setdefault(int(clip.clip_id[2:4]) // 2, set()).add(clip.split)
    assert all(len(of_group) == 1 for of_group in folds.values())
    assert set().union(*folds.values()) == {1, 2, 3, 4}


def test_clip_without_a_group_is_its_own_group(tmp_path: Path) -> None:
    rows = [(f"{index:02d}.wav", "ab"[index % 2], "x" if index < 2 else "") for index in range(24)]
    for name, _, _ in rows:
        replicas.tone(tmp_path / name, 0.05)
    path = replicas.table(tmp_path / "mine.csv", ("path", "label", "source"), rows)
    task = load("table", path, folds=4, group_column="source")
    assert sorted(Counter(clip.split for clip in task.clips).values()) == [6, 6, 6, 6]
    assert task.clips[0].split == task.clips[1].split


def test_table_with_several_labels_per_clip_has_the_metric_map(tmp_path: Path) -> None:
    rows = [("a.wav", "rain; wind", "train"), ("b.wav", "rain", "val"), ("c.flac", "wind", "test")]
    for name, _, _ in rows:
        replicas.tone(tmp_path / "sounds" / name, 0.05)
    path = replicas.table(tmp_path / "mine.csv", ("file", "labels", "split"), rows)
    task = prepare(tmp_path / "t.h5", "table", path, audio="sounds")
    assert task.settings["metric"] == "map"
    assert task.splits == {"a.wav": b"train", "b.wav": b"valid", "c.flac": b"test"}
    assert task.labels["a.wav"] == [1, 1]


def test_validation_clips_are_drawn_if_a_table_has_train_and_test_only(tmp_path: Path) -> None:
    rows = [(f"{index}.wav", "ab"[index % 2], "test" if index < 4 else "train") for index in range(24)]
    for name, _, _ in rows:
        replicas.tone(tmp_path / name, 0.05)
    path = replicas.table(tmp_path / "mine.csv", ("path", "label", "split"), rows)
    counts = Counter(clip.split for clip in load("table", path, valid_share=0.2).clips)
    assert counts == {"train": 16, "valid": 4, "test": 4}


def test_clip_names_outside_ascii_have_unique_ids(tmp_path: Path) -> None:
    rows = [("ä.wav", "a", "train"), ("ö.wav", "b", "valid"), ("ü.wav", "b", "test")]
    for name, _, _ in rows:
        replicas.tone(tmp_path / name, 0.05)
    task = prepare(tmp_path / "t.h5", "table", replicas.table(tmp_path / "m.csv", ("path", "label", "split"), rows))
    assert len(set(task.clip_ids)) == 3


@pytest.mark.slow
@needs_shared
def test_shared_copy_of_esc50_is_a_pattern_with_every_class_in_every_fold(tmp_path: Path) -> None:
    pattern = r"\d-\d+-[A-Z]-(?P<label>\d+)\.(ogg|wav)"
    task = prepare(tmp_path / "t.h5", "pattern", replicas.SHARED / "data/esc50/audio", pattern=pattern, folds=5)
    assert len(task.clip_ids) == 514  # 510 clips and four files without samples.
    unusable = {clip: task.reasons[clip] for clip, status in task.status.items() if status is not Status.OK}
    assert sorted(unusable) == [f"2-102-{take}-2.wav" for take in "GHIJ"]
    assert all("no samples" in reason for reason in unusable.values())
    per_fold = {(task.splits[clip], next(iter(task.names(clip)))) for clip in task.clip_ids}
    assert per_fold == {(fold, str(label)) for fold in range(1, 6) for label in range(50)}


@needs_shared
def test_table_finds_files_with_another_suffix_and_can_skip_missing_files(tmp_path: Path) -> None:
    root = replicas.SHARED / "data/esc50"
    lines = (root / "esc50.csv").read_text().splitlines()  # The list names .wav files, the files are .ogg.
    path = tmp_path / "esc50.csv"
    path.write_text("\n".join([*lines, "1-999999-A-0.wav,1,0,dog,True,999999,A"]))
    options = {"file_column": "filename", "label_column": "category", "audio": str(root / "audio"), "folds": 4}
    task = load("table", path, missing="skip", **options)
    assert len(task.clips) == len(lines) - 1
    assert {clip.source.suffix for clip in task.clips if isinstance(clip.source, Path)} == {".ogg"}
    assert len(load("table", path, **options).clips) == len(lines)  # A row without a file counts as missing.


@pytest.mark.slow
@needs_shared
def test_pattern_of_spoken_digits_gives_the_official_test_set(tmp_path: Path) -> None:
    pattern = r"(?P<label>\d)_(?P<speaker>\w+?)_(?:(?P<test>[0-4])|(?P<valid>[5-9])|\d+)\.flac"
    task = prepare(tmp_path / "t.h5", "pattern", replicas.SHARED / "data/fsdd", pattern=pattern)
    # Ten digits, six speakers and fifty takes of each.
    assert Counter(task.splits.values()) == {b"train": 2400, b"valid": 300, b"test": 300}
    assert task.splits["7_jackson_4.flac"] == b"test"
    assert task.names("7_jackson_12.flac") == {"7"}
    assert set(task.status.values()) == {Status.OK}


def test_pattern_without_split_draws_folds_that_keep_groups_together(tmp_path: Path) -> None:
    for label in "ab":
        for speaker in range(6):
            for take in range(2):
                replicas.tone(tmp_path / f"{label}/s{speaker}_{take}.wav", 0.05)
    (tmp_path / "readme.txt").write_text("not audio")
    task = load("pattern", tmp_path, pattern=r"(?P<label>\w)/(?P<group>s\d)_\d\.wav", folds=3)
    assert len(task.clips) == 24
    assert Counter(clip.split for clip in task.clips) == {1: 8, 2: 8, 3: 8}
    splits_by_speaker: dict[str, set[str | int]] = {}
    for clip in task.clips:
        splits_by_speaker.setdefault(clip.clip_id[2:4], set()).add(clip.split)
    assert all(len(splits) == 1 for splits in splits_by_speaker.values())


def test_damaged_and_missing_clips_are_recorded_with_their_reasons(tmp_path: Path) -> None:
    root = replicas.urbansound8k(tmp_path)
    (root / "audio/fold1/100-0-0-0.wav").write_bytes(b"")
    (root / "audio/fold2/200-0-0-0.wav").write_bytes(b"<html>not found</html>")
    (root / "audio/fold3/300-0-0-0.wav").unlink()
    replicas.tone(root / "audio/fold4/400-0-0-0.wav", seconds=0)
    long = replicas.tone(root / "audio/fold5/500-0-0-0.wav", seconds=2, rate=8000)
    long.write_bytes(long.read_bytes()[:16044])  # A header for 2 s, followed by 1 s of 16-bit samples.
    task = prepare(tmp_path / "t.h5", "urbansound8k", root, max_missing=0.2)
    assert len(task.clip_ids) == 20
    assert Counter(task.status.values()) == {Status.OK: 16, Status.UNAVAILABLE: 4}
    reasons = {clip: reason for clip, reason in task.reasons.items() if reason}
    assert reasons.pop("300-0-0-0") == "no such file"
    assert reasons.pop("100-0-0-0") == "empty file"
    assert "not audio" in reasons.pop("200-0-0-0")
    assert "no samples" in reasons.pop("400-0-0-0")
    assert reasons == {"500-0-0-0": "cut short: 1.00 s can be read"}
    assert task.duration_s["500-0-0-0"] == pytest.approx(1.0)


def test_too_many_missing_clips_fail_before_any_clip_is_decoded(tmp_path: Path) -> None:
    root = replicas.esc50(tmp_path) / "ESC-50-master"
    for name in ("1-1000-A-0", "2-1001-A-1", "3-1002-A-2"):
        (root / f"audio/{name}.wav").unlink()
    with pytest.raises(SsondoError, match=r"3 of 15 clips cannot be used \(3 no such file\)") as error:
        prepare(tmp_path / "t.h5", "esc50", root, max_missing=0.1)
    missing_file = str(root / "audio/3-1002-A-2.wav")
    assert all(name in str(error.value) for name in ("2-1001-A-1", missing_file, "tasks.mine.path", "max_missing"))
    assert not (tmp_path / "t.h5").exists()


def test_too_many_damaged_clips_fail_without_leaving_a_shard(tmp_path: Path) -> None:
    root = replicas.esc50(tmp_path) / "ESC-50-master"
    for file in sorted((root / "audio").iterdir())[:3]:
        file.write_bytes(b"")
    with pytest.raises(SsondoError, match=r"3 of 15 clips cannot be used \(3 empty file\)"):
        prepare(tmp_path / "t.h5", "esc50", root)
    assert not list(tmp_path.glob("*.h5*"))
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize("kind", ["esc50", "fsd50k", "gtzan", "magnatagatune", "nsynth", "openmic", "urbansound8k"])
def test_message_for_a_missing_path_names_the_download_and_the_configuration_key(tmp_path: Path, kind: str) -> None:
    with pytest.raises(SsondoError, match=r"^tasks\.mine\.path is not set: download https?://\S+ .*licence: [^\n]+$"):
        prepare(tmp_path / "t.h5", kind)
    with pytest.raises(SsondoError, match=r"tasks\.mine\.path"):
        prepare(tmp_path / "t.h5", kind, tmp_path)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"kind": "esc5"},
            r"^tasks\.mine\.kind 'esc5' does not exist; choose one of esc50, .*\(did you mean 'esc50'\?\)$",
        ),
        ({"kind": "rendered"}, r"^tasks\.mine\.options of kind rendered requires the option 'content'$"),
        (
            {"kind": "rendered", "options": {"content": "songs"}},
            r"'songs' does not exist; choose one of notes, mixtures, drums",
        ),
        (
            {"kind": "rendered", "options": {"content": "notes", "n": 1}},
            r"has no option 'n'; its options are content, size, max_missing",
        ),
        ({"kind": "pattern", "path": ".", "options": {"pattern": "(?P<label"}}, "this is not a regular expression"),
        ({"kind": "pattern", "path": ".", "options": {"pattern": ".*"}}, r"no group \(\?P<label>"),
        ({"kind": "table", "path": "."}, "this is a folder; give the list of clips in it"),
        ({"kind": "table", "path": "no/such.csv"}, r"no/such\.csv: this list .* does not exist"),
        (
            {"kind": "table", "path": "m.csv", "options": {"folds": "five"}},
            r"option 'folds' is 'five'; it must be a whole number or null",
        ),
        (
            {"kind": "table", "path": "m.csv", "folds": True},
            r"option 'folds' is True; it must be a whole number or null",
        ),
        (
            {"kind": "table", "path": "m.csv", "valid_share": "1/6"},
            r"option 'valid_share' is '1/6'; it must be a number",
        ),
        (
            {"kind": "table", "path": "m.csv", "metric": "f1"},
            r"option 'metric' is 'f1'; it must be 'accuracy' or 'map' or null",
        ),
        (
            {"kind": "table", "path": "m.csv", "max_missing": "few"},
            r"option 'max_missing' is 'few'; it must be a number",
        ),
        ({"kind": "table", "path": "m.csv", "max_missing": 2}, r"max_missing is 2; it must be a number from 0 to 1"),
        ({"kind": "table", "path": "m.csv", "delimiter": "\\t"}, r"options\.delimiter is .*; it must be one character"),
        ({"kind": "table", "path": "m.csv", "separator": ""}, r"tasks\.mine\.options\.separator is empty"),
    ],
)
def test_message_for_an_invalid_spec_is_one_line_that_names_the_key(spec: dict[str, Any], text: str) -> None:
    with pytest.raises(SsondoError, match=text) as error:
        load_task("mine", spec, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "row", "text"),
    [
        (("path", "class"), ("a.wav", "x"), "label_column"),
        (("sound", "label"), ("a.wav", "x"), "file_column"),
        (("path", "label"), ("a.wav", ""), "line 2: it has no label"),
        (("path", "label"), ("", "x"), "line 2: it has no file"),
        (("path;label",), ("a.wav;x",), r"it has the columns path;label; .*file_column, or set .*delimiter"),
        (("path;labels",), ("a.wav;rain", " wind"), r"set tasks\.mine\.options\.delimiter"),
        (("path", "label", "split"), ("a.wav", "x", "holdout"), "line 2: 'holdout' is neither a split"),
        (("path", "label", "split"), ("a.wav", "x"), "line 2: fewer columns"),
        (
            ("path", "labels"),
            ("a.wav", "rain", "wind"),
            "line 2: more columns .* put fields that contain ',' in quotes",
        ),
    ],
)
def test_message_for_an_invalid_table_names_the_line(tmp_path: Path, header: Any, row: Any, text: str) -> None:
    replicas.tone(tmp_path / "a.wav", 0.05)
    with pytest.raises(SsondoError, match=text):
        load("table", replicas.table(tmp_path / "m.csv", header, [row]))


def pattern_folder(folder: Path) -> Path:
    for index in range(24):
        replicas.tone(folder / f"{'ab'[index % 2]}{f'_s{index % 3}' if index < 12 else ''}_{index:02d}.wav", 0.05)
    return folder


def test_file_for_which_a_pattern_has_no_group_is_its_own_group(tmp_path: Path) -> None:
    task = load("pattern", pattern_folder(tmp_path), pattern=r"(?P<label>\w)(_(?P<group>s\d))?_\d+\.wav", folds=3)
    assert Counter(clip.split for clip in task.clips) == {1: 8, 2: 8, 3: 8}
    assert len({clip.split for clip in task.clips if "s1" in clip.clip_id}) == 1


def test_pattern_with_an_empty_label_fails(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match=r"the group label is empty for b_13\.wav"):
        load("pattern", pattern_folder(tmp_path), pattern=r"((?P<label>a)|b)_\d+\.wav")


def test_pattern_with_validation_but_no_test_clips_fails(tmp_path: Path) -> None:
    with pytest.raises(SsondoError, match="no clip is in the split test"):
        load("pattern", pattern_folder(tmp_path), pattern=r"(?P<label>\w)(_s\d)?_((?P<valid>0\d)|\d+)\.wav")


@pytest.mark.parametrize("folds", [-1, 0, 2])
def test_drawing_fewer_than_three_folds_fails(tmp_path: Path, folds: int) -> None:
    with pytest.raises(SsondoError, match=rf"tasks\.mine\.options\.folds is {folds}; it must be at least 3"):
        load("table", own_table(tmp_path), folds=folds)


@pytest.mark.parametrize("splits", ["train valid test 1", "1 2 3 test"])
def test_splits_and_folds_in_one_column_fail(tmp_path: Path, splits: str) -> None:
    rows = [(f"{index}.wav", "ab"[index % 2], split) for index, split in enumerate(3 * splits.split())]
    for name, _, _ in rows:
        replicas.tone(tmp_path / name, 0.05)
    with pytest.raises(SsondoError, match="some clips are in a split and others in a fold"):
        load("table", replicas.table(tmp_path / "m.csv", ("path", "label", "split"), rows))


def test_task_without_a_test_split_fails(tmp_path: Path) -> None:
    rows = [(f"{index}.wav", "ab"[index % 2], ("train", "valid")[index % 2]) for index in range(4)]
    for name, _, _ in rows:
        replicas.tone(tmp_path / name, 0.05)
    with pytest.raises(SsondoError, match="no clip is in the split test"):
        load("table", replicas.table(tmp_path / "m.csv", ("path", "label", "split"), rows))


def test_magnatagatune_clips_without_a_tag_can_be_dropped(tmp_path: Path) -> None:
    root = replicas.magnatagatune(tmp_path / "mtt", TAGS)
    kept, dropped = (load("magnatagatune", root, untagged=untagged) for untagged in ("keep", "drop"))
    assert {c.clip_id for c in kept.clips} - {c.clip_id for c in dropped.clips} == {replicas.MTT_EMPTY}


FORMATS = [
    ("a.wav", 8000, 1, "PCM_U8"),
    ("b.wav", 192000, 2, "FLOAT"),
    ("c.flac", 96000, 2, "PCM_24"),
    ("d.ogg", 44100, 2, "VORBIS"),
    ("e.ogg", 8000, 1, "VORBIS"),
    ("f.mp3", 48000, 2, "MPEG_LAYER_III"),
    ("g.mp3", 8000, 1, "MPEG_LAYER_III"),
    ("h.au", 22050, 1, "PCM_16"),
    ("i.au", 8000, 1, "ULAW"),
    ("j.au", 192000, 2, "PCM_16"),
    ("k.wav", 11025, 4, "PCM_16"),
    ("l.wav", 8000, 1, "ALAW"),
]


def test_audio_of_any_format_rate_and_number_of_channels_becomes_32_khz_mono(tmp_path: Path) -> None:
    for name, rate, channels, subtype in FORMATS:
        replicas.tone(tmp_path / name, 0.5, rate, channels, subtype)  # 405 Hz
    rows = [(name, "ab"[index % 2], 1 + index % 3) for index, (name, *_) in enumerate(FORMATS)]
    path = replicas.table(tmp_path / "mine.csv", ("path", "label", "fold"), rows)
    task = prepare(tmp_path / "t.h5", "table", path)
    assert set(task.status.values()) == {Status.OK}
    for clip in task.clip_ids:
        wave, file = task.sound(clip)
        assert (file.samplerate, wave.shape[1]) == (32000, 1)
        assert task.duration_s[clip] == pytest.approx(0.5, abs=0.15)  # MP3 pads to whole frames.
        middle = wave[4000:12000, 0]
        assert np.fft.rfftfreq(len(middle), 1 / 32000)[np.abs(np.fft.rfft(middle)).argmax()] == pytest.approx(
            405, abs=4
        )
        assert np.sqrt(2) * middle.std() == pytest.approx(0.5, abs=0.03)


def test_clip_that_is_listed_twice_fails(tmp_path: Path) -> None:
    replicas.tone(tmp_path / "a.wav", 0.05)
    path = replicas.table(tmp_path / "m.csv", ("path", "label", "fold"), [("a.wav", "x", 1), ("a.wav", "y", 2)])
    with pytest.raises(SsondoError, match=r"clip a\.wav is listed twice"):
        load("table", path)


def test_stratified_folds_distribute_every_class_evenly() -> None:
    labels = [["a"]] * 11 + [["b"]] * 6 + [["a", "c"]] * 5
    folds = stratified_folds(labels, [str(i) for i in range(len(labels))], 3, 0, "x")
    for name in "abc":
        counts = Counter(fold for fold, present in zip(folds, labels, strict=True) if name in present)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_every_registered_function_exists() -> None:
    from importlib import import_module

    for target in READERS.values():
        module, function = target.split(":")
        assert callable(getattr(import_module(module), function))


def test_shard_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    root = replicas.urbansound8k(tmp_path)
    one = prepare(tmp_path / "one.h5", "urbansound8k", root)
    two = prepare(tmp_path / "two.h5", "urbansound8k", root, n_workers=2)
    assert one.digest == two.digest
    assert (tmp_path / "two.h5.digest").read_text().strip() == two.digest


def rendered(content: str, seed: int = 0) -> Task:
    return load("rendered", seed=seed, content=content)


def test_rendered_test_notes_have_unseen_pitches_and_velocities_of_the_training_programs() -> None:
    notes: dict[str, list[tuple[int, int, int]]] = {"train": [], "valid": [], "test": []}
    for clip in rendered("notes").clips:
        (part,) = clip.source.parts  # type: ignore[union-attr]
        notes[str(clip.split)].append((part.program, part.notes[0].key, part.notes[0].velocity))
    columns = {split: [set(values) for values in zip(*rows, strict=True)] for split, rows in notes.items()}
    for first, second in (("train", "test"), ("train", "valid"), ("valid", "test")):
        assert columns[first][0] == columns[second][0]
        assert not columns[first][1] & columns[second][1]
        assert not columns[first][2] & columns[second][2]


@pytest.mark.parametrize("content", ["notes", "mixtures", "drums"])
def test_rendered_labels_match_the_scene(content: str) -> None:
    task = rendered(content)
    masked = 0
    for clip in task.clips:
        audible = set(clip.source.labels)  # type: ignore[union-attr]
        for name, label in zip(task.classes, clip.labels, strict=True):
            masked += label == -1
            assert label in (-1, int(name in audible))
    share = masked / (len(task.clips) * len(task.classes))
    assert share == pytest.approx(0.4 if content == "mixtures" else 0.0, abs=0.02)


def test_rendered_drums_have_every_class_in_each_of_five_folds() -> None:
    task = rendered("drums")
    assert (task.metric, len(task.classes)) == ("accuracy", 32)
    per_fold = Counter((clip.split, int(clip.labels.argmax())) for clip in task.clips)
    assert per_fold == {(fold, index): 5 for fold in range(1, 6) for index in range(32)}


def test_rendered_tasks_depend_on_the_seed_only() -> None:
    def scenes(seed: int) -> list[Any]:
        return [clip.source for clip in rendered("mixtures", seed).clips]

    assert scenes(1) == scenes(1)
    assert not set(scenes(1)) & set(scenes(2))


def test_rendered_tasks_share_no_clip_with_the_training_corpus() -> None:
    from ssondo.audioset import renderer

    corpus = {renderer.scene(renderer.ytid(index, 0), seconds=1.28, seed=0).parts for index in range(3000)}
    tasks = {clip.source.parts for name in ("notes", "mixtures", "drums") for clip in rendered(name).clips}  # type: ignore[union-attr]
    assert not corpus & tasks


@pytest.mark.slow
def test_prepared_rendered_clips_are_audible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssondo.tasks.rendered.HITS_PER_CLASS", 5)
    task = prepare(tmp_path / "t.h5", "rendered", content="drums")
    assert len(task.clip_ids) == 160
    assert set(task.status.values()) == {Status.OK}
    for clip in task.clip_ids:
        wave, _ = task.sound(clip)
        assert wave.shape == (40960, 1)  # 1.28 s at 32 kHz
        # The peak at 48 kHz is at least 0.126; resampling removes what is above 16 kHz.
        assert np.abs(wave).max() > 0.02


@pytest.mark.parametrize("kind", sorted(READERS))
def test_code_hash_of_a_task_covers_only_its_own_module_and_the_shared_ones(kind: str) -> None:
    module = READERS[kind].split(":")[0]
    modules = set(modules_of("ssondo.tasks", module))
    readers = {target.split(":")[0] for target in READERS.values()}
    shared = {"ssondo.tasks.table"} if kind == "pattern" else set()
    assert modules & readers == {module} | shared
    assert ("ssondo.audioset.renderer" in modules) == (kind == "rendered")


@pytest.mark.parametrize(("n_groups", "least"), [(2, 0.5), (3, 0.34), (5, 0.2), (6, 0.17)])
def test_message_for_too_few_groups_states_the_smallest_possible_valid_share(n_groups: int, least: float) -> None:
    groups = [str(i % n_groups) for i in range(14)]

    def drawn(share: float) -> list[str]:
        return draw_valid([["bark"]] * 14, groups, share, 0, "barks")

    with pytest.raises(SsondoError) as error:
        drawn(0.15)
    assert str(error.value) == (
        f"tasks.barks.options.valid_share is 0.15, which is less than one of {n_groups} group(s) of clips; "
        f"set it to {least:g} or more, or assign clips to the split valid yourself"
    )
    assert set(drawn(least)) == {"train", "valid"}


def test_drawing_validation_clips_from_one_group_fails() -> None:
    with pytest.raises(SsondoError, match=r"one of 1 group\(s\) of clips; assign clips to the split valid yourself$"):
        draw_valid([["bark"]] * 3, ["all"] * 3, 0.5, 0, "barks")
