"""NSynth (Engel et al., 2017): 305,979 notes of 4 s, eleven instrument families.

Layout: `nsynth-{train,valid,test}/examples.json` and `audio/*.wav`. The official splits share no
instrument between train and the other two; `synth_lead` is in train only.
"""

from pathlib import Path

from ssondo.artefacts import read_json
from ssondo.errors import SsondoError
from ssondo.tasks.task import SPLITS, Clip, Remote, Task, archive_root, encode_labels

LICENCE = "CC BY 4.0"
_HOME = "http://download.magenta.tensorflow.org/datasets/nsynth"
REMOTES = {
    name: Remote(f"{_HOME}/{name}", md5)
    for name, md5 in {
        "nsynth-train.jsonwav.tar.gz": "fde6665a93865503ba598b9fac388660",
        "nsynth-valid.jsonwav.tar.gz": "87e94a00a19b6dbc99cf6d4c0c0cae87",
        "nsynth-test.jsonwav.tar.gz": "5e6f8719bf7e16ad0a00d518b78af77d",
    }.items()
}
FAMILIES = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal")
"""In the order of the archive's `instrument_family`."""


def load(*, path: Path, task: str) -> Task:
    """Read the three `examples.json`.

    Args:
        path: the folder with the unpacked archives.
        task: its name in the config.
    """
    root = archive_root(path, "nsynth-train", task)
    clips = []
    for split in SPLITS:
        folder = root / f"nsynth-{split}"
        if not (folder / "examples.json").is_file():
            raise SsondoError(f"{folder}/examples.json: no such file; unpack all three archives of NSynth into {root}")
        for name, note in sorted(read_json(folder / "examples.json").items()):
            labels = encode_labels([FAMILIES[note["instrument_family"]]], FAMILIES)
            clips.append(Clip(name, folder / "audio" / f"{name}.wav", labels, split))
    return Task("accuracy", FAMILIES, clips)
