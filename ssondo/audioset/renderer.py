"""The renderer of the demo corpus: real sampled instruments and effects without a download.

`midirenderer` plays a General MIDI sound bank (TimGM6mb, which `pretty_midi` contains). The content of a clip, `scene`,
is a pure function of its id and a seed. Both its labels (`ssondo.audioset.compose`) and its sound (`render_clip`) are
derived from it, so they always agree.
"""

import base64
import hashlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ssondo.errors import SsondoError

SAMPLE_RATE = 48000  # of the files that midirenderer writes
DRUM_CHANNEL = 9
KITS = (0, 8, 16, 24, 25, 32, 40)  # of TimGM6mb, except its orchestra kit, which has timpani in place of toms

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
"""The sixteen families of General MIDI; family f consists of the programs 8·f to 8·f + 7."""

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
"""Programs of the last family, which are sound effects rather than instruments."""

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
"""Pieces of the General MIDI drum kit and the keys that play them."""

_PIECE_OF_KEY = {key: piece for piece, keys in PERCUSSION.items() for key in keys}
PERCUSSION_KEYS = tuple(sorted(_PIECE_OF_KEY))
CLASSES = (*FAMILIES, *EFFECTS.values(), *PERCUSSION)
"""Display names of the classes of the corpus; the index of a class is its position in this tuple."""


@dataclass(frozen=True)
class Note:
    """A key that is held from `start_s` to `end_s` in seconds; key and velocity are those of MIDI (0 to 127)."""

    key: int
    velocity: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Part:
    """The notes of one instrument.

    Attributes:
        program: General MIDI program, or number of the drum kit if `drums` is true.
        notes: The notes that are played.
        drums: Whether the instrument is a drum kit.
        tuning: Transposition in semitones, from -2 to 2 exclusive.
    """

    program: int
    notes: tuple[Note, ...]
    drums: bool = False
    tuning: float = 0.0

    @property
    def labels(self) -> set[str]:
        """Display names of the classes that are audible in this part."""
        if self.drums:
            return {_PIECE_OF_KEY[note.key] for note in self.notes}
        effect = {EFFECTS[self.program]} if self.program in EFFECTS else set()
        return {FAMILIES[self.program // 8], *effect}


@dataclass(frozen=True)
class Scene:
    """The content of a clip: instruments that play at the same time, scaled to a largest sample of `peak`."""

    seconds: float
    parts: tuple[Part, ...]
    peak: float

    @property
    def labels(self) -> tuple[str, ...]:
        """Display names of the audible classes, in the order of `CLASSES`."""
        present = set().union(*(part.labels for part in self.parts))
        return tuple(name for name in CLASSES if name in present)

    def play(self) -> tuple[np.ndarray, int]:
        """Return the waveform, float32, shape (round(seconds · 48000),), and its sample rate, 48000 Hz.

        On one machine the same scene always gives the same samples.

        Raises:
            SsondoError: If the packages of the demo are not installed.
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
    """Return the id of a class in the form of AudioSet's ids, e.g. "/demo/bass_drum" for "Bass drum"."""
    return "/demo/" + name.lower().replace(" ", "_").replace("-", "_")


def generator(*words: str | int) -> np.random.Generator:
    """Return a random generator that depends only on the words."""
    digest = hashlib.sha256("\0".join(map(str, words)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def ytid(index: int, seed: int) -> str:
    """Return the id of clip `index` of the corpus: eleven characters, as on YouTube."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"ssondo demo {seed} {index}".encode()).digest())[:11].decode()


def draw_tuning(rng: np.random.Generator) -> float:
    """Draw a tuning for drums and effects; without it every hit of a key would be the same recording."""
    return float(rng.uniform(-1.9, 1.9))


def draw_peak(rng: np.random.Generator) -> float:
    """Draw the peak of a scene, between -18 and -1 dB of full scale."""
    return float(10 ** (rng.uniform(-18, -1) / 20))


def _velocity(rng: np.random.Generator) -> int:
    return int(rng.integers(40, 128))


def key_range(program: int) -> tuple[int, int]:
    """Return the range of keys of a program, the second exclusive: low for basses, medium for the others."""
    return (28, 56) if program // 8 == FAMILIES.index("Bass") else (38, 88)


def _single_note(seconds: float, rng: np.random.Generator) -> tuple[Part, ...]:
    program = int(rng.integers(128))
    start_s = rng.uniform(0, 0.1) * seconds
    note = Note(int(rng.integers(*key_range(program))), _velocity(rng), start_s, rng.uniform(0.4, 1.0) * seconds)
    return (Part(program, (note,)),)


def hits(key: int, every_s: float, seconds: float, rng: np.random.Generator) -> tuple[Note, ...]:
    """Draw hits of one key: the first near the start, the others about `every_s` seconds apart."""
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
    """Draw a sequence of notes of 0.15 to 0.8 s around one key that fills the clip."""
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
    """Return the content of a clip: polyphony in half of the clips, single notes in a quarter, hits in a quarter.

    A student that is trained on polyphony alone learns nothing about drums, which the downstream tasks require.
    `clip` is the id of the clip, `seconds` its length as in the segment list, and `seed` that of the corpus.
    """
    rng = generator("corpus", seed, clip)
    compose_parts = (_polyphony, _polyphony, _single_note, _drum_hits)[rng.integers(4)]
    return Scene(seconds, compose_parts(seconds, rng), draw_peak(rng))


@cache
def _sound_bank() -> bytes:
    """The bytes of the sound bank, located without importing pretty_midi, which takes half a second."""
    from importlib.util import find_spec

    spec = find_spec("pretty_midi")
    if spec is None or spec.origin is None or find_spec("midirenderer") is None:
        raise SsondoError(
            "rendering sound requires the packages of the demo; install them in the folder of this project with: "
            "pip install '.[demo]'"
        )
    return (Path(spec.origin).parent / "TimGM6mb.sf2").read_bytes()


def _midi(content: Scene) -> bytes:
    """A MIDI file with one track whose ticks are milliseconds: 500 per beat, at the default of 120 beats per minute."""
    import mido

    events: list[tuple[int, int, mido.Message]] = []
    melodic = (channel for channel in range(16) if channel != DRUM_CHANNEL)
    for part in content.parts:
        channel = DRUM_CHANNEL if part.drums else next(melodic)
        events.append((0, 0, mido.Message("program_change", channel=channel, program=part.program)))
        events.append((0, 0, mido.Message("pitchwheel", channel=channel, pitch=round(4096 * part.tuning))))
        for note in part.notes:
            start, end = round(1000 * note.start_s), round(1000 * note.end_s)
            events.append((start, 2, mido.Message("note_on", channel=channel, note=note.key, velocity=note.velocity)))
            events.append((max(end, start + 1), 1, mido.Message("note_off", channel=channel, note=note.key)))
    track, now = mido.MidiTrack(), 0
    for tick, _, message in sorted(events, key=lambda event: event[:2]):  # at the same tick: program, off, on
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=max(0, round(1000 * content.seconds) - now)))
    file = io.BytesIO()
    mido.MidiFile(type=0, ticks_per_beat=500, tracks=[track]).save(file=file)
    return file.getvalue()


def render_clip(ytid: str, *, seconds: float, seed: int) -> bytes:
    """Return the sound of a clip as a FLAC file: mono, 48 kHz, 16 bit; the arguments are those of `scene`."""
    waveform, sample_rate = scene(ytid, seconds=seconds, seed=seed).play()
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform, sample_rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()
