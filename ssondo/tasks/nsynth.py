"""NSynth (Engel et al., 2017): 305,979 notes of 4 s, eleven instrument families.

The data set consists of `nsynth-{train,valid,test}/examples.json` and `audio/*.wav`. The official training split shares
no instrument with the other two; the family `synth_lead` occurs in training only.
"""

from pathlib import Path

from ssondo.errors import SsondoError
from ssondo.tasks.files import Files
from ssondo.tasks.task import SPLITS, Clip, DatasetSize, Remote, Task, encode_labels

LICENCE = "CC BY 4.0"
# The storage bucket of download.magenta.tensorflow.org, a host name without a valid certificate.
_HOME = "https://storage.googleapis.com/download.magenta.tensorflow.org/datasets/nsynth"
REMOTES = {
    f"nsynth-{split}.jsonwav.tar.gz": Remote(f"{_HOME}/nsynth-{split}.jsonwav.tar.gz", md5, size)
    for split, md5, size in (
        ("train", "fde6665a93865503ba598b9fac388660", 23_815_298_079),
        ("valid", "87e94a00a19b6dbc99cf6d4c0c0cae87", 1_068_767_009),
        ("test", "5e6f8719bf7e16ad0a00d518b78af77d", 349_501_546),
    )
}
SIZE = DatasetSize(n_classes=11, clips={"train": 289_205, "valid": 12_678, "test": 4_096}, clip_s=4.0)
FAMILIES = ("bass", "brass", "flute", "guitar", "keyboard", "mallet", "organ", "reed", "string", "synth_lead", "vocal")
"""Names of the values of `instrument_family`, in order."""


def load(*, path: Path, task: str) -> Task:
    """Read the three `examples.json`."""
    lists = {split: f"nsynth-{split}/examples.json" for split in SPLITS}
    files = Files.find(path, task, lists=tuple(lists.values()), folders=[f"nsynth-{split}/audio" for split in SPLITS])
    clips = []
    for split, list_name in lists.items():
        for name, note in sorted(files.json(list_name).items()):
            family = note.get("instrument_family") if isinstance(note, dict) else None
            if not (isinstance(family, int) and 0 <= family < len(FAMILIES)):
                raise SsondoError(
                    f"{files.root / list_name}: note {name} has no instrument_family; download the file again"
                )
            labels = encode_labels([FAMILIES[family]], FAMILIES)
            clips.append(Clip(name, files.audio(f"nsynth-{split}/audio/{name}.wav"), labels, split))
    return Task("accuracy", FAMILIES, clips, official_size=SIZE)
