"""Synthetic tasks for the demo and the tests, one for each metric.

- `notes`, as NSynth: the instrument family of a single note. No test note has a pitch or a velocity of a training note.
- `mixtures`, as OpenMIC: the instrument families in a mixture; only some of the labels of a clip are known.
- `drums`, as ESC-50: the drum or sound effect of a clip, with five folds.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ssondo.audioset import renderer
from ssondo.errors import SsondoError
from ssondo.system.registry import unknown_name
from ssondo.tasks.task import Clip, Task, encode_labels

CLIP_S = 1.28
NOTES_PER_PROGRAM = {"train": 7, "valid": 2, "test": 4}
MIXTURES = {"train": 800, "valid": 200, "test": 500}
# Probability that a label of a mixture is known.
KNOWN_SHARE = 0.6
HITS_PER_CLASS = 25
N_FOLDS = 5

# The splits use keys and velocities with different remainders modulo six, so no key and no velocity is in two splits.
_REMAINDERS = {"train": (2, 4, 5), "valid": (1,), "test": (0, 3)}
# The last family contains sound effects.
_INSTRUMENTS = renderer.FAMILIES[:-1]


def _draw(low: int, high: int, split: str, rng: np.random.Generator) -> int:
    return int(rng.choice([value for value in range(low, high) if value % 6 in _REMAINDERS[split]]))


def _notes(task: str, seed: int, size: float) -> Task:
    clips = []
    for split, n in NOTES_PER_PROGRAM.items():
        for program in range(8 * len(_INSTRUMENTS)):
            family = renderer.FAMILIES[program // 8]
            low, high = renderer.key_range(program)
            for take in range(max(1, round(size * n))):
                rng = renderer.generator("notes", task, seed, split, program, take)
                key, velocity = _draw(low, high, split, rng), _draw(40, 127, split, rng)
                note = renderer.Note(key, velocity, 0.0, rng.uniform(0.5, 1.0) * CLIP_S)
                scene = renderer.Scene(CLIP_S, (renderer.Part(program, (note,)),), renderer.draw_peak(rng))
                labels = encode_labels([family], _INSTRUMENTS)
                clips.append(Clip(f"{split}-program{program:03d}-take{take}", scene, labels, split))
    return Task("accuracy", _INSTRUMENTS, clips)


def _mixtures(task: str, seed: int, size: float) -> Task:
    clips = []
    for split, n in MIXTURES.items():
        for index in range(max(1, round(size * n))):
            rng = renderer.generator("mixtures", task, seed, split, index)
            families = rng.choice(len(_INSTRUMENTS), size=int(rng.integers(1, 4)), replace=False)
            parts = tuple(renderer.melody(int(8 * family + rng.integers(8)), CLIP_S, rng) for family in families)
            scene = renderer.Scene(CLIP_S, parts, renderer.draw_peak(rng))
            labels = encode_labels(scene.labels, _INSTRUMENTS)
            labels[rng.random(len(labels)) >= KNOWN_SHARE] = -1
            clips.append(Clip(f"{split}-{index:04d}", scene, labels, split))
    return Task("masked_map", _INSTRUMENTS, clips)


def _drums(task: str, seed: int, size: float) -> Task:
    classes = (*renderer.PERCUSSION, *renderer.EFFECTS.values())
    programs = {name: program for program, name in renderer.EFFECTS.items()}
    clips = []
    for name in classes:
        for take in range(max(N_FOLDS, round(size * HITS_PER_CLASS))):
            rng = renderer.generator("drums", task, seed, name, take)
            every_s = rng.uniform(0.3, 1.5)
            if name in programs:
                part = renderer.Part(programs[name], renderer.hits(int(rng.integers(45, 76)), every_s, CLIP_S, rng))
            else:
                key = int(rng.choice(renderer.PERCUSSION[name]))
                part = renderer.Part(
                    int(rng.choice(renderer.KITS)), renderer.hits(key, every_s, CLIP_S, rng), drums=True
                )
            scene = renderer.Scene(CLIP_S, (replace(part, tuning=renderer.draw_tuning(rng)),), renderer.draw_peak(rng))
            fold = 1 + take % N_FOLDS
            clips.append(Clip(f"{renderer.mid(name)[6:]}-{take:02d}", scene, encode_labels([name], classes), fold))
    return Task("accuracy", classes, clips)


CONTENTS: dict[str, Callable[[str, int, float], Task]] = {"notes": _notes, "mixtures": _mixtures, "drums": _drums}


def load(*, content: str, task: str, seed: int, size: float = 1.0) -> Task:
    """Create a rendered task; `prepare_task` renders its audio.

    Args:
        content: Content of the clips: notes, mixtures or drums.
        size: Factor of the number of clips; every class and split, or every class and fold, keeps at least one.

    Raises:
        SsondoError: If the content does not exist.
    """
    if content not in CONTENTS:
        raise SsondoError(unknown_name(f"tasks.{task}.options.content", content, CONTENTS))
    return CONTENTS[content](task, seed, size)
