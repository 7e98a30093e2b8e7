"""Real sampled sound without a download: the corpus and the renderer of the demo.

A General MIDI sound bank (TimGM6mb, inside `pretty_midi`) is played by `midirenderer`. What a clip
holds is a pure function of its id and a seed, `scene`, and both the segment list (`compose`) and
the sound (`render_clip`) come from it, so labels and sound cannot disagree.

    ssondo compose --n-train 6000 --n-eval 500 --clip-s 1.28 --seed 0 \\
        --train train.csv --eval eval.csv --classes classes.csv
"""

import base64
import hashlib
import io
import logging
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import write_text

log = logging.getLogger(__name__)

SAMPLE_RATE = 48000  # what midirenderer writes
DRUM_CHANNEL = 9
KITS = (0, 8, 16, 24, 25, 32, 40)  # of TimGM6mb, without its orchestra kit, which has timpani where toms should be

FAMILIES = (
    "Piano",
    "Chromatic percussion",
    "Organ",
    "Guitar",
    "Bass",
    "Strings",
    "Ensemble",
    "Brass",
    "Reed",
    "Pipe",
    "Synth lead",
    "Synth pad",
    "Synth effects",
    "Ethnic",
    "Percussive",
    "Sound effects",
)
"""General MIDI's sixteen families; family f holds the programs 8·f to 8·f + 7."""

EFFECTS = {
    120: "Fret noise",
    121: "Breath noise",
    122: "Seashore",
    123: "Bird tweet",
    124: "Telephone ring",
    125: "Helicopter",
    126: "Applause",
    127: "Gunshot",
}
"""Programs of the last family: each is a sound of its own, not an instrument."""

PERCUSSION = {
    "Bass drum": (35, 36),
    "Side stick": (37,),
    "Snare drum": (38, 40),
    "Hand clap": (39,),
    "Tom": (41, 43, 45, 47, 48, 50),
    "Closed hi-hat": (42, 44),
    "Open hi-hat": (46,),
    "Crash cymbal": (49, 52, 55, 57),
    "Ride cymbal": (51, 53, 59),
    "Tambourine": (54,),
    "Cowbell": (56,),
    "Vibraslap": (58,),
    "Bongo": (60, 61),
    "Conga": (62, 63, 64),
    "Timbale": (65, 66),
    "Agogo": (67, 68),
    "Cabasa": (69,),
    "Maracas": (70,),
    "Whistle": (71, 72),
    "Guiro": (73, 74),
    "Claves": (75,),
    "Wood block": (76, 77),
    "Cuica": (78, 79),
    "Triangle": (80, 81),
}
"""Pieces of General MIDI's drum kit and the keys that play them."""

_PIECE_OF_KEY = {key: piece for piece, keys in PERCUSSION.items() for key in keys}
PERCUSSION_KEYS = tuple(sorted(_PIECE_OF_KEY))
CLASSES = (*FAMILIES, *EFFECTS.values(), *PERCUSSION)
"""Display names of the corpus's classes; the index is the place in this tuple."""


@dataclass(frozen=True)
class Note:
    """One key held from `start_s` to `end_s` (seconds); key and velocity as in MIDI (0 to 127)."""

    key: int
    velocity: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Part:
    """What one instrument plays: a General MIDI program, or a drum kit where `drums` is true.

    `tuning` is in semitones, from -2 to 2 exclusive.
    """

    program: int
    notes: tuple[Note, ...]
    drums: bool = False
    tuning: float = 0.0

    @property
    def labels(self) -> set[str]:
        """Display names of the classes that sound in this part."""
        if self.drums:
            return {_PIECE_OF_KEY[note.key] for note in self.notes}
        effect = {EFFECTS[self.program]} if self.program in EFFECTS else set()
        return {FAMILIES[self.program // 8], *effect}


@dataclass(frozen=True)
class Scene:
    """What sounds in a clip of `seconds`, scaled so that its largest sample is `peak` (0 to 1)."""

    seconds: float
    parts: tuple[Part, ...]
    peak: float

    @property
    def labels(self) -> tuple[str, ...]:
        """Display names of the classes that sound, in the order of `CLASSES`."""
        present = set().union(*(part.labels for part in self.parts))
        return tuple(name for name in CLASSES if name in present)

    def play(self) -> tuple[np.ndarray, int]:
        """Play the scene.

        Returns:
            The waveform, float32, shape (samples,), of round(seconds · 48000) samples, and its sample
            rate, 48000 Hz. The same scene gives the same samples on one machine.

        Raises:
            SsondoError: if the packages of the demo are not installed.
        """
        bank = _sound_bank()
        import soundfile
        from midirenderer import render_wave_from

        stereo, _ = soundfile.read(io.BytesIO(render_wave_from(bank, _midi(self))), dtype="float32")
        n_samples = round(self.seconds * SAMPLE_RATE)
        waveform = np.zeros(n_samples, dtype=np.float32)
        played = stereo[:n_samples].mean(axis=1)
        waveform[: len(played)] = played * (self.peak / max(float(np.abs(played).max(initial=0.0)), 1e-6))
        return waveform, SAMPLE_RATE


def mid(name: str) -> str:
    """The id of a class, in the form of AudioSet's: "Bass drum" is /demo/bass_drum."""
    return "/demo/" + name.lower().replace(" ", "_").replace("-", "_")


def generator(*words: str | int) -> np.random.Generator:
    """A random generator that depends on the words and on nothing else."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def ytid(index: int, seed: int) -> str:
    """The id of clip `index` of the corpus, eleven characters like YouTube's."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"ssondo demo {seed} {index}".encode()).digest())[:11].decode()


def draw_tuning(rng: np.random.Generator) -> float:
    """A tuning for drums and effects: without it each key would be one and the same recording."""
    return float(rng.uniform(-1.9, 1.9))


def draw_peak(rng: np.random.Generator) -> float:
    """A peak for a scene, -18 to -1 dB of full scale."""
    return float(10 ** (rng.uniform(-18, -1) / 20))


def _velocity(rng: np.random.Generator) -> int:
    return int(rng.integers(40, 128))


def key_range(program: int) -> tuple[int, int]:
    """Keys that a program plays, the second exclusive: basses low, the others in the middle."""
    return (28, 56) if program // 8 == FAMILIES.index("Bass") else (38, 88)


def _single_note(seconds: float, rng: np.random.Generator) -> tuple[Part, ...]:
    program = int(rng.integers(128))
    start_s = rng.uniform(0, 0.1) * seconds
    note = Note(int(rng.integers(*key_range(program))), _velocity(rng), start_s, rng.uniform(0.4, 1.0) * seconds)
    return (Part(program, (note,)),)


def hits(key: int, every_s: float, seconds: float, rng: np.random.Generator) -> tuple[Note, ...]:
    """Hits of one key, one at the start and the others about `every_s` apart."""
    notes, start_s = [], rng.uniform(0, 0.1) * seconds
    while start_s < 0.9 * seconds:
        notes.append(Note(key, _velocity(rng), start_s, min(start_s + every_s, seconds)))
        start_s += every_s * rng.uniform(0.8, 1.2)
    return tuple(notes)


def _drum_hits(seconds: float, rng: np.random.Generator) -> tuple[Part, ...]:
    every_s = rng.uniform(0.25, 1.5)
    if rng.random() < 0.25:
        program = int(rng.choice(list(EFFECTS)))
        return (Part(program, hits(int(rng.integers(45, 76)), every_s, seconds, rng), tuning=draw_tuning(rng)),)
    notes = hits(int(rng.choice(PERCUSSION_KEYS)), every_s, seconds, rng)
    return (Part(int(rng.choice(KITS)), notes, drums=True, tuning=draw_tuning(rng)),)


def melody(program: int, seconds: float, rng: np.random.Generator) -> Part:
    """A line of notes of 0.15 to 0.8 s around one key, from the start to the end of the clip."""
    centre, notes = int(rng.integers(*key_range(program))), []
    start_s = rng.uniform(0, 0.15) * seconds
    while start_s < 0.9 * seconds:
        end_s = min(start_s + rng.uniform(0.15, 0.8), seconds)
        notes.append(Note(int(np.clip(centre + rng.integers(-7, 8), 24, 96)), _velocity(rng), start_s, end_s))
        start_s = end_s + rng.exponential(0.05)
    return Part(program, tuple(notes))


def _polyphony(seconds: float, rng: np.random.Generator) -> tuple[Part, ...]:
    programs = rng.choice(128, size=int(rng.integers(2, 4)), replace=False)
    parts = [melody(int(program), seconds, rng) for program in programs]
    if rng.random() < 0.3:
        keys = rng.choice(PERCUSSION_KEYS, size=2, replace=False)
        notes = sum((hits(int(key), rng.uniform(0.2, 0.6), seconds, rng) for key in keys), ())
        parts.append(Part(int(rng.choice(KITS)), notes, drums=True, tuning=draw_tuning(rng)))
    return tuple(parts)


def scene(clip: str, *, seconds: float, seed: int) -> Scene:
    """What sounds in a clip of the corpus: half polyphony, a quarter notes, a quarter drum hits and effects.

    Polyphony alone teaches a student nothing about drums, so the corpus has what the tasks ask.

    Args:
        clip: its id.
        seconds: its length.
        seed: of the corpus.
    """
    rng = generator("corpus", seed, clip)
    compose_parts = (_polyphony, _polyphony, _single_note, _drum_hits)[rng.integers(4)]
    return Scene(seconds, compose_parts(seconds, rng), draw_peak(rng))


@cache
def _sound_bank() -> bytes:
    """The sound bank's bytes; found without importing pretty_midi, which takes half a second."""
    from importlib.util import find_spec

    spec = find_spec("pretty_midi")
    if spec is None or spec.origin is None or find_spec("midirenderer") is None:
        raise SsondoError(
            "rendered sound needs the demo's packages; install them in the folder of this project with: "
            "pip install '.[demo]'"
        )
    return (Path(spec.origin).parent / "TimGM6mb.sf2").read_bytes()


def _midi(sounding: Scene) -> bytes:
    """A MIDI file of one track whose ticks are milliseconds (500 a beat at the default 120 beats a minute)."""
    import mido

    events: list[tuple[int, int, mido.Message]] = []
    melodic = (channel for channel in range(16) if channel != DRUM_CHANNEL)
    for part in sounding.parts:
        channel = DRUM_CHANNEL if part.drums else next(melodic)
        events.append((0, 0, mido.Message("program_change", channel=channel, program=part.program)))
        events.append((0, 0, mido.Message("pitchwheel", channel=channel, pitch=round(4096 * part.tuning))))
        for note in part.notes:
            start, end = round(1000 * note.start_s), round(1000 * note.end_s)
            events.append((start, 2, mido.Message("note_on", channel=channel, note=note.key, velocity=note.velocity)))
            events.append((max(end, start + 1), 1, mido.Message("note_off", channel=channel, note=note.key)))
    track, now = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):  # at one tick: program, off, on
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=max(0, round(1000 * sounding.seconds) - now)))
    file = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=500, tracks=[track]).save(file=file)
    return file.getvalue()


def render_clip(ytid: str, *, seconds: float, seed: int) -> bytes:
    """The sound of a clip of the corpus, as an encoded file: FLAC, mono, 48 kHz, 16 bit.

    Args:
        ytid: the clip's id.
        seconds: its length, as the segment list has it.
        seed: of the corpus, the same as given to `compose`.

    Raises:
        SsondoError: if the packages of the demo are not installed.
    """
    waveform, sample_rate = scene(ytid, seconds=seconds, seed=seed).play()
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _segments_csv(clips: list[str], clip_s: float, seed: int) -> str:
    labels = {clip: [mid(name) for name in scene(clip, seconds=clip_s, seed=seed).labels] for clip in sorted(clips)}
    n_positive = sum(map(len, labels.values()))
    n_classes = len({label for present in labels.values() for label in present})
    return "\n".join(
        [
            f"# Segments csv composed by ssondo, seed {seed}",
            f"# num_ytids={len(clips)}, num_segs={len(clips)}, num_unique_labels={n_classes}, "
            f"num_positive_labels={n_positive}",
            "# YTID, start_seconds, end_seconds, positive_labels",
            *(f'{clip}, 0.000, {clip_s:.3f}, "{",".join(present)}"' for clip, present in labels.items()),
            "",
        ]
    )


def compose(*, n_train: int, n_eval: int, clip_s: float, seed: int, train: Path, eval: Path, classes: Path) -> None:
    """Compose the demo's corpus: segment lists and classes in AudioSet's form.

    Args:
        n_train: training clips.
        n_eval: evaluation clips; none of them is a training clip.
        clip_s: length of a clip in seconds.
        seed: decides which clips there are and what sounds in them.
        train: segment list of the training clips, written here.
        eval: segment list of the evaluation clips, written here.
        classes: index, id and name of each class, written here.
    """
    if n_train < 1 or n_eval < 0:
        raise SsondoError(f"a corpus of {n_train} training and {n_eval} evaluation clips; give at least 1 and 0")
    clip_s = round(clip_s, 3)  # as the list writes it: the renderer must see the same length
    if not 0.1 <= clip_s <= 60:
        raise SsondoError(f"clip_s = {clip_s}: a rendered clip lasts 0.1 to 60 seconds")
    started = time.perf_counter()
    clips = [ytid(index, seed) for index in range(n_train + n_eval)]
    write_text(train, _segments_csv(clips[:n_train], clip_s, seed))
    write_text(eval, _segments_csv(clips[n_train:], clip_s, seed))
    rows = [f'{index},{mid(name)},"{name}"' for index, name in enumerate(CLASSES)]
    write_text(classes, "\n".join(["index,mid,display_name", *rows, ""]))
    log.info(
        "composed %d training and %d evaluation clips of %.2f s in %d classes (%.1f s): %s, %s",
        *(n_train, n_eval, clip_s, len(CLASSES), time.perf_counter() - started, train, eval),
    )
