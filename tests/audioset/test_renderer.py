import csv
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ssondo.audioset import renderer
from ssondo.audioset.compose import compose as compose_corpus
from ssondo.errors import SsondoError

CLIP_S = 1.28


def compose(folder: Path, n_train: int = 40, n_eval: int = 10, seed: int = 0) -> tuple[Path, Path, Path]:
    paths = folder / "train.csv", folder / "eval.csv", folder / "classes.csv"
    compose_corpus(
        n_train=n_train, n_eval=n_eval, clip_s=CLIP_S, seed=seed, train=paths[0], eval=paths[1], classes=paths[2]
    )
    return paths


def segments(path: Path) -> dict[str, tuple[float, float, set[str]]]:
    """Read an AudioSet segment list in the official form: three comment lines, then rows with quoted labels."""
    lines = path.read_text().splitlines()
    assert [line[0] for line in lines[:3]] == ["#"] * 3
    rows = csv.reader(lines[3:], skipinitialspace=True)
    return {clip: (float(start), float(end), set(labels.split(","))) for clip, start, end, labels in rows}


def spectrum_db(waveform: np.ndarray) -> np.ndarray:
    return 20 * np.log10(np.abs(np.fft.rfft(waveform)) + 1e-6)


def test_corpus_has_the_form_of_audioset_and_the_requested_sizes(tmp_path: Path) -> None:
    train, evaluation, classes = compose(tmp_path)
    rows = segments(train) | segments(evaluation)
    assert (len(segments(train)), len(segments(evaluation)), len(rows)) == (40, 10, 50)
    with classes.open(newline="") as file:
        class_rows = {row["mid"]: row for row in csv.DictReader(file)}
    assert [int(row["index"]) for row in class_rows.values()] == list(range(len(class_rows)))
    for clip, (start, end, labels) in rows.items():
        assert len(clip) == 11
        assert set(clip) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        assert (start, end) == (0.0, CLIP_S)
        assert labels <= set(class_rows)
    assert train.read_text().splitlines()[3:] == sorted(train.read_text().splitlines()[3:])


def test_corpus_is_reproducible_and_other_seeds_share_no_clip(tmp_path: Path) -> None:
    first, again, other = (compose(tmp_path / name, seed=seed)[0] for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert first.read_bytes() == again.read_bytes()
    assert not set(segments(first)) & set(segments(other))


def test_larger_corpus_contains_the_clips_of_a_smaller_one(tmp_path: Path) -> None:
    small, large = compose(tmp_path / "a", n_train=10)[0], compose(tmp_path / "b", n_train=30)[0]
    assert segments(small).items() <= segments(large).items()


def test_clip_has_the_requested_length_is_mono_and_is_not_silent() -> None:
    for index in range(8):
        waveform, rate = soundfile.read(
            io.BytesIO(renderer.render_clip(renderer.ytid(index, 0), seconds=CLIP_S, seed=0))
        )
        assert (waveform.shape, rate) == ((61440,), 48000)
        assert 10 ** (-18.1 / 20) < np.abs(waveform).max() < 10 ** (-0.9 / 20)


def test_clip_depends_only_on_its_id_and_the_seed() -> None:
    first = renderer.render_clip("AAAAAAAAAAA", seconds=CLIP_S, seed=0)
    renderer.render_clip("BBBBBBBBBBB", seconds=CLIP_S, seed=0)
    assert renderer.render_clip("AAAAAAAAAAA", seconds=CLIP_S, seed=0) == first
    assert renderer.render_clip("AAAAAAAAAAA", seconds=CLIP_S, seed=1) != first


def test_labels_of_a_scene_are_general_midi_families_and_keys() -> None:
    # General MIDI: program 41 of 1..128 is the violin (strings), 124 the bird tweet; key 38 is the acoustic snare.
    note = renderer.Note(60, 100, 0.0, 1.0)
    parts = (
        renderer.Part(40, (note,)),
        renderer.Part(123, (note,)),
        renderer.Part(0, (renderer.Note(38, 90, 0, 1),), drums=True),
    )
    assert renderer.Scene(1.0, parts, 0.5).labels == ("Strings", "Sound effects", "Bird tweet", "Snare drum")


def test_percussion_classes_partition_the_keys_of_general_midi() -> None:
    assert tuple(range(35, 82)) == renderer.PERCUSSION_KEYS
    assert sum(map(len, renderer.PERCUSSION.values())) == 47


def test_labels_in_the_list_are_those_of_the_rendered_scene(tmp_path: Path) -> None:
    for clip, (_, end, labels) in segments(compose(tmp_path)[0]).items():
        assert labels == {renderer.mid(name) for name in renderer.scene(clip, seconds=end, seed=0).labels}


def test_note_has_the_pitch_of_its_key() -> None:
    flute = renderer.Part(73, (renderer.Note(69, 100, 0.0, 1.0),))  # key 69 is 440 Hz
    waveform = renderer.Scene(1.0, (flute,), 0.5).play()[0]
    peak_hz = np.argmax(spectrum_db(waveform)[: len(waveform) // 4]) * renderer.SAMPLE_RATE / len(waveform)
    assert min(abs(peak_hz - harmonic) for harmonic in (440, 880, 1320)) < 12


def test_tuning_moves_the_pitch_by_semitones() -> None:
    note = (renderer.Note(69, 100, 0.0, 1.0),)  # 440 Hz; one semitone up is 466.2 Hz, two down 392.0 Hz
    for tuning, expected_hz in ((0.0, 440.0), (1.0, 466.2), (-1.9, 394.3)):
        waveform, _ = renderer.Scene(1.0, (renderer.Part(79, note, tuning=tuning),), 0.5).play()
        band = spectrum_db(waveform)[380:480]  # bins are 1 Hz wide
        assert abs(380 + np.argmax(band) - expected_hz) < 6


def test_each_part_of_a_scene_is_audible() -> None:
    bass = renderer.Part(38, (renderer.Note(33, 110, 0.0, 1.0),))
    piccolo = renderer.Part(72, (renderer.Note(96, 110, 0.0, 1.0),))
    both, low = (spectrum_db(renderer.Scene(1.0, parts, 0.5).play()[0]) for parts in ((bass, piccolo), (bass,)))
    high_hz = slice(1900, 2300)  # key 96 is 2093 Hz; bins are 1 Hz wide
    assert both[high_hz].max() > low[high_hz].max() + 20
    assert both[:200].max() > both[250:1500].max()


def test_drum_kit_is_not_played_as_the_program_with_its_number() -> None:
    note = (renderer.Note(42, 100, 0.0, 1.0),)  # a closed hi-hat is noise far above key 42's 92 Hz
    hat, piano = (
        spectrum_db(renderer.Scene(1.0, (renderer.Part(0, note, drums=d),), 0.5).play()[0]) for d in (True, False)
    )
    assert hat[5000:].max() > hat[:1000].max()
    assert piano[5000:].max() < piano[:1000].max()


def test_half_of_the_corpus_is_polyphony_a_quarter_notes_and_a_quarter_drum_hits() -> None:
    scenes = [renderer.scene(renderer.ytid(index, 0), seconds=CLIP_S, seed=0) for index in range(2000)]
    polyphony = sum(len(scene.parts) > 1 for scene in scenes)
    hits = sum(len(scene.parts) == 1 and (scene.parts[0].drums or scene.parts[0].program >= 120) for scene in scenes)
    # The standard deviation is at most 22 of 2,000 clips; one single note in sixteen is an effect.
    assert abs(polyphony - 1000) < 90
    assert abs(hits - (500 + 500 / 16)) < 90
    present = {label for scene in scenes for label in scene.labels}
    assert present == set(renderer.CLASSES)


@pytest.mark.parametrize(("n_train", "clip_s"), [(0, 1.28), (10, 0.0), (10, 3600.0)])
def test_impossible_corpus_is_refused_in_one_line(tmp_path: Path, n_train: int, clip_s: float) -> None:
    path = tmp_path / "x.csv"
    with pytest.raises(SsondoError, match=r"^[^\n]+$"):
        compose_corpus(n_train=n_train, n_eval=1, clip_s=clip_s, seed=0, train=path, eval=path, classes=path)
    assert not path.exists()


def test_error_for_missing_packages_gives_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    renderer._sound_bank.cache_clear()
    with pytest.raises(SsondoError, match=r"pip install '\.\[demo\]'"):
        renderer.render_clip("AAAAAAAAAAA", seconds=CLIP_S, seed=0)
