"""Tiny replicas of the seven data sets, each in its official layout, unpacked and in its archives.

The audio of a clip is a mixture of tones, one for each of its classes, so that tests detect a clip with the labels of
another one.
"""

import csv
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

SHARED = Path(__file__).parents[2].parent / "shared"


def hz(number: int) -> float:
    """Return the frequency of the tone of a class; nine different ones from 300 Hz on, which then repeat."""
    return 300.0 * 1.35 ** (number % 9)


def tone(
    path: Path,
    seconds: float = 0.3,
    rate: int = 44100,
    channels: int = 1,
    subtype: str | None = None,
    classes: Iterable[int] = (1,),
) -> Path:
    """Write the mixed tones of `classes`, with a peak of at most 0.5, in the format of the suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(round(seconds * rate)) / rate
    tones = [np.sin(2 * np.pi * hz(number) * time_s) for number in classes]
    wave = 0.5 * np.mean(tones, axis=0) if tones else np.zeros(len(time_s))
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
            tone(root / "audio" / name, classes=[target])
            rows.append((name, fold, target, category, target == 0, 1000 + target, "A"))
    header = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    table(root / "meta/esc50.csv", header, rows[::-1])
    return folder


def urbansound8k(folder: Path) -> Path:
    """Write files of several formats, as in the data set: 8 to 192 kHz, one or two channels, 8 to 32 bit."""
    root = folder / "UrbanSound8K"
    formats = [
        (8000, 1, "PCM_U8"),
        (11025, 2, "PCM_16"),
        (44100, 2, "PCM_24"),
        (96000, 1, "PCM_32"),
        (192000, 2, "FLOAT"),
    ]
    rows = []
    for fold in range(1, 11):
        for class_id, name in ((0, "air_conditioner"), (3, "dog_bark")):
            rate, channels, subtype = formats[(fold + class_id) % len(formats)]
            file = f"{fold}00-{class_id}-0-0.wav"
            tone(root / f"audio/fold{fold}" / file, 0.25, rate, channels, subtype, [class_id])
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
    present = [[names[i] for i in range(3) if (number + 1) & 1 << i] for number in range(7)]
    dev += [(f"{100 + i}", ",".join(p), "", "val" if i % 3 == 0 else "train") for i, p in enumerate(present * 3)]
    test = [("20", "Accordion,Bark,Wind", "/m/0,/m/1,/m/2")]
    test += [(f"{200 + i}", ",".join(p), "") for i, p in enumerate(present)]
    table(truth / "dev.csv", ("fname", "labels", "mids", "split"), dev)
    table(truth / "eval.csv", ("fname", "labels", "mids"), test)
    for subset, rows in (("dev", dev), ("eval", test)):
        for name, labels, *_ in rows:
            seconds = 1.0 if name == "20" else 0.3
            classes = [names.index(label) for label in labels.split(",")]
            tone(folder / f"FSD50K.{subset}_audio/{name}.wav", seconds, classes=classes)
    return folder


def gtzan(folder: Path, suffix: str = ".wav") -> Path:
    """Write all 1,000 files, so that the split must exclude some; jazz.00054 is not audio, as in the archive."""
    genres = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
    for index, genre in enumerate(genres):
        sound = tone(folder / f"tone{suffix}", 0.02, 22050, classes=[index]).read_bytes()
        (folder / "genres" / genre).mkdir(parents=True)
        for number in range(100):
            (folder / "genres" / genre / f"{genre}.{number:05d}{suffix}").write_bytes(sound)
    (folder / f"tone{suffix}").unlink()
    (folder / "genres/jazz" / f"jazz.00054{suffix}").write_bytes(bytes(range(256)) * 4)
    return folder


MTT_EMPTY = "6/norine_braun-now_and_zen-08-gently-117-146.mp3"


def magnatagatune(folder: Path, tags: Sequence[str]) -> Path:
    """Write five clips to each of the folders 0 to f and an empty file; one tag is not among the fifty."""
    columns = ("weird noise", *reversed(tags))
    rows = []
    for number, letter in enumerate("0123456789abcdef"):
        name = f"{letter}/band-album-{number:02d}-song-0-29.mp3"
        tone(folder / name, 0.5, 16000, classes=[number])
        rows.append((number, *(int(tag in (tags[number], "weird noise")) for tag in columns), name))
        for index in range(4):
            name = f"{letter}/band-{letter}-{index}.mp3"
            tone(folder / name, 0.5, 16000, classes=[index])
            rows.append((100 + 4 * number + index, *(int(tag == tags[index]) for tag in columns), name))
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
    more = {"bass": 0, "keyboard": 4, "string": 8, "vocal": 10}
    for split, n in (("train", 6), ("valid", 2), ("test", 3)):
        notes[split] |= {f"{name}_{split}_{i:03d}-060-100": number for name, number in more.items() for i in range(n)}
    for split, families in notes.items():
        for name, family in families.items():
            tone(folder / f"nsynth-{split}/audio/{name}.wav", 0.3, 16000, classes=[family])
        content = {
            name: {"instrument_family": family, "note_str": name, "sample_rate": 16000}
            for name, family in families.items()
        }
        (folder / f"nsynth-{split}/examples.json").write_text(json.dumps(content))
    return folder


OPENMIC_TRAIN = [f"{number:06d}_3840" for number in range(100, 220)]
OPENMIC_TEST = ["200000_0", "200001_7680", *(f"{number:06d}_0" for number in range(200002, 200008))]


def openmic(folder: Path) -> Path:
    root = folder / "openmic-2018"
    classes = {"accordion": 0, "banjo": 1, "bass": 2}
    (root / "partitions").mkdir(parents=True)
    (root / "class-map.json").write_text(json.dumps(classes))
    (root / "partitions/split01_train.csv").write_text("\n".join(OPENMIC_TRAIN) + "\n")
    (root / "partitions/split01_test.csv").write_text("\n".join(OPENMIC_TEST) + "\n")
    classes_of_clips: dict[str, list[int]] = {}
    rows: list[tuple[object, ...]] = []
    for index, key in enumerate(OPENMIC_TRAIN):
        name, present = ("banjo", "bass", "accordion")[index % 3], index // 3 % 2 == 1
        rows.append((key, name, 0.9 if present else 0.1, 3))
        classes_of_clips[key] = [classes[name] if present else (classes[name] + 1 + index // 6 % 2) % 3]
    rows += [(OPENMIC_TEST[0], "bass", 0.5, 3), (OPENMIC_TEST[0], "accordion", 0.49, 3)]
    rows += [(OPENMIC_TEST[1], "banjo", 1.0, 3)]
    classes_of_clips |= {OPENMIC_TEST[0]: [2], OPENMIC_TEST[1]: [1]}
    for index, key in enumerate(OPENMIC_TEST[2:]):
        rows += [(key, name, float(number == index % 3), 3) for name, number in classes.items()]
        classes_of_clips[key] = [index % 3]
    header = ("sample_key", "instrument", "relevance", "num_responses")
    table(root / "openmic-2018-aggregated-labels.csv", header, rows)
    for key, numbers in classes_of_clips.items():
        tone(root / "audio" / key[:3] / f"{key}.ogg", 0.3, 44100, 2, classes=numbers)
    (root / "vggish/000").mkdir(parents=True)
    (root / "vggish/000/000100_3840.json").write_text("{}")
    return folder


def zipped(folder: Path, inside: Sequence[str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive of some folders in `folder`, which has entries for the folders themselves too."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for top in inside:
            for path in [folder / top, *sorted((folder / top).rglob("*"))]:
                archive.write(path, path.relative_to(folder))
    return data.getvalue()


def tarred(folder: Path, inside: Sequence[str], suffix: str = "w:gz") -> bytes:
    """Return a tar archive of some folders in `folder`; its order differs from that of the lists."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=suffix) as archive:  # type: ignore[call-overload]
        for top in inside:
            for path in [folder / top, *sorted((folder / top).rglob("*"), key=lambda path: str(path)[::-1])]:
                archive.add(path, str(path.relative_to(folder)), recursive=False)
    return data.getvalue()


def in_pieces(data: bytes, n: int) -> list[bytes]:
    size = -(-len(data) // n)
    return [data[start : start + size] for start in range(0, len(data), size)]


def split_zip(data: bytes, n: int) -> list[bytes]:
    """Split a zip archive into `n` files as `zip -s` does: offsets are relative to the start of their file."""
    plain = b"PK\7\10" + data  # signature of a split archive
    size = -(-len(plain) // n)
    end = plain.rfind(b"PK\5\6")
    *_, n_entries, table_size, table_start, _ = struct.unpack("<4s4H2LH", plain[end : end + 22])
    table_start += 4
    out = bytearray(plain)
    position, n_entries_on_last = table_start, 0
    for _ in range(n_entries):
        n_name, n_extra, n_comment = struct.unpack_from("<3H", plain, position + 28)
        offset = struct.unpack_from("<L", plain, position + 42)[0] + 4
        struct.pack_into("<H", out, position + 34, offset // size)
        struct.pack_into("<L", out, position + 42, offset % size)
        n_entries_on_last += position // size == n - 1
        position += 46 + n_name + n_extra + n_comment
    last, first = (len(plain) - 1) // size, table_start // size
    struct.pack_into("<4H2L", out, end + 4, last, first, n_entries_on_last, n_entries, table_size, table_start % size)
    return [bytes(out[start : start + size]) for start in range(0, len(out), size)]


def archives(kind: str, folder: Path, tags: Sequence[str] = ()) -> dict[str, bytes]:
    """Return the archives of a data set by their official names; its unpacked replica is written to `folder`."""
    make: dict[str, Callable[[Path], Path]] = {
        "esc50": esc50,
        "urbansound8k": urbansound8k,
        "fsd50k": fsd50k,
        "gtzan": gtzan,
        "magnatagatune": lambda folder: magnatagatune(folder, tags),
        "nsynth": nsynth,
        "openmic": openmic,
    }
    make[kind](folder)
    match kind:
        case "esc50":
            return {"ESC-50-master.zip": zipped(folder, ["ESC-50-master"])}
        case "urbansound8k":
            return {"UrbanSound8K.tar.gz": tarred(folder, ["UrbanSound8K"])}
        case "gtzan":
            return {"genres.tar.gz": tarred(folder, ["genres"])}
        case "openmic":
            return {"openmic-2018-v1.0.0.tgz": tarred(folder, ["openmic-2018"])}
        case "nsynth":
            splits = ("train", "valid", "test")
            return {f"nsynth-{s}.jsonwav.tar.gz": tarred(folder, [f"nsynth-{s}"]) for s in splits}
        case "magnatagatune":
            pieces = in_pieces(zipped(folder, "0123456789abcdef", zipfile.ZIP_STORED), 3)
            files = {f"mp3.zip.{number:03d}": piece for number, piece in enumerate(pieces, start=1)}
            return {"annotations_final.csv": (folder / "annotations_final.csv").read_bytes(), **files}
    files = {"FSD50K.ground_truth.zip": zipped(folder, ["FSD50K.ground_truth"])}
    for subset, n in (("dev", 6), ("eval", 2)):
        *first, last = split_zip(zipped(folder, [f"FSD50K.{subset}_audio"]), n)
        files |= {f"FSD50K.{subset}_audio.z{number:02d}": data for number, data in enumerate(first, start=1)}
        files[f"FSD50K.{subset}_audio.zip"] = last
    return files
