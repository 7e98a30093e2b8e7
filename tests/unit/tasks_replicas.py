"""Tiny replicas of the seven archives, each in its official layout, with sound that is made here."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

SHARED = Path(__file__).parents[2].parent / "shared"


def tone(path: Path, seconds: float = 0.3, rate: int = 44100, channels: int = 1, subtype: str | None = None) -> Path:
    """Write a 440 Hz tone in the format that the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate, subtype=subtype)
    return path


def table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([header, *rows] if header else rows)
    return path


def esc50(folder: Path) -> Path:
    root = folder / "ESC-50-master"
    rows = []
    for fold in range(1, 6):
        for target, category in enumerate(("dog", "rooster", "pig")):
            name = f"{fold}-{1000 + target}-A-{target}.wav"
            tone(root / "audio" / name)
            rows.append((name, fold, target, category, target == 0, 1000 + target, "A"))
    header = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    table(root / "meta/esc50.csv", header, rows[::-1])
    return folder


def urbansound8k(folder: Path) -> Path:
    """Files of many kinds, as the real ones are: 8 to 192 kHz, one or two channels, 8 to 32 bit."""
    root = folder / "UrbanSound8K"
    kinds = [
        (8000, 1, "PCM_U8"),
        (11025, 2, "PCM_16"),
        (44100, 2, "PCM_24"),
        (96000, 1, "PCM_32"),
        (192000, 2, "FLOAT"),
    ]
    rows = []
    for fold in range(1, 11):
        for class_id, name in ((0, "air_conditioner"), (3, "dog_bark")):
            rate, channels, subtype = kinds[(fold + class_id) % len(kinds)]
            file = f"{fold}00-{class_id}-0-0.wav"
            tone(root / f"audio/fold{fold}" / file, 0.25, rate, channels, subtype)
            rows.append((file, fold * 100, 0.0, 0.25, 1, fold, class_id, name))
    header = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")
    table(root / "metadata/UrbanSound8K.csv", header, rows)
    return root


def fsd50k(folder: Path) -> Path:
    truth = folder / "FSD50K.ground_truth"
    names = ("Accordion", "Bark", "Wind")
    table(truth / "vocabulary.csv", (), [(i, name, f"/m/{i}") for i, name in enumerate(names)])
    dev = [
        ("10", "Bark,Wind", "/m/1,/m/2", "train"),
        ("11", "Accordion", "/m/0", "train"),
        ("12", "Wind", "/m/2", "val"),
    ]
    table(truth / "dev.csv", ("fname", "labels", "mids", "split"), dev)
    table(truth / "eval.csv", ("fname", "labels", "mids"), [("20", "Accordion,Bark,Wind", "/m/0,/m/1,/m/2")])
    for name in ("10", "11", "12"):
        tone(folder / "FSD50K.dev_audio" / f"{name}.wav")
    tone(folder / "FSD50K.eval_audio/20.wav", seconds=1.0)
    return folder


def gtzan(folder: Path, suffix: str = ".wav") -> Path:
    """All 1,000 files, so that the split has to choose; jazz.00054 is no sound, as in the archive."""
    genres = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
    sound = tone(folder / f"tone{suffix}", 0.02, 22050).read_bytes()
    for genre in genres:
        (folder / "genres" / genre).mkdir(parents=True)
        for number in range(100):
            (folder / "genres" / genre / f"{genre}.{number:05d}{suffix}").write_bytes(sound)
    (folder / "genres/jazz" / f"jazz.00054{suffix}").write_bytes(bytes(range(256)) * 4)
    return folder


MTT_EMPTY = "6/norine_braun-now_and_zen-08-gently-117-146.mp3"


def magnatagatune(folder: Path, tags: Sequence[str]) -> Path:
    """A clip in each folder, 0 to f, and one of the archive's three empty files; a tag beyond the fifty."""
    columns = ("weird noise", *reversed(tags))
    rows = []
    for number, letter in enumerate("0123456789abcdef"):
        name = f"{letter}/band-album-{number:02d}-song-0-29.mp3"
        tone(folder / name, 0.5, 16000)
        rows.append((number, *(int(tag in (tags[number], "weird noise")) for tag in columns), name))
    rows.append((99, *(0 for _ in columns), MTT_EMPTY))
    (folder / MTT_EMPTY).touch()
    table(folder / "annotations_final.csv", ("clip_id", *columns, "mp3_path"), rows, delimiter="\t")
    return folder


def nsynth(folder: Path) -> Path:
    notes = {
        "train": {"bass_synthetic_033-022-050": 0, "synth_lead_synthetic_001-060-100": 9},
        "valid": {"keyboard_acoustic_004-060-025": 4},
        "test": {"vocal_acoustic_000-057-127": 10, "string_acoustic_056-055-050": 8},
    }
    for split, families in notes.items():
        for name in families:
            tone(folder / f"nsynth-{split}/audio/{name}.wav", 0.3, 16000)
        content = {
            name: {"instrument_family": family, "note_str": name, "sample_rate": 16000}
            for name, family in families.items()
        }
        (folder / f"nsynth-{split}/examples.json").write_text(json.dumps(content))
    return folder


OPENMIC_TRAIN = [f"{number:06d}_3840" for number in range(100, 130)]
OPENMIC_TEST = ["200000_0", "200001_7680"]


def openmic(folder: Path) -> Path:
    root = folder / "openmic-2018"
    classes = {"accordion": 0, "banjo": 1, "bass": 2}
    (root / "partitions").mkdir(parents=True)
    (root / "class-map.json").write_text(json.dumps(classes))
    (root / "partitions/split01_train.csv").write_text("\n".join(OPENMIC_TRAIN) + "\n")
    (root / "partitions/split01_test.csv").write_text("\n".join(OPENMIC_TEST) + "\n")
    rows = [(key, "banjo", 0.9 if index % 2 else 0.1, 3) for index, key in enumerate(OPENMIC_TRAIN)]
    rows += [(OPENMIC_TEST[0], "bass", 0.5, 3), (OPENMIC_TEST[0], "accordion", 0.49, 3)]
    rows += [(OPENMIC_TEST[1], "banjo", 1.0, 3)]
    header = ("sample_key", "instrument", "relevance", "num_responses")
    table(root / "openmic-2018-aggregated-labels.csv", header, rows)
    for key in (*OPENMIC_TRAIN, *OPENMIC_TEST):
        tone(root / "audio" / key[:3] / f"{key}.ogg", 0.3, 44100, 2)
    return folder
