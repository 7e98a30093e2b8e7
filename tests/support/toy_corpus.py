"""A toy corpus for trainings: tones in noise, and a teacher whose embeddings encode the pitch."""

import json
import os
import subprocess
import sys
import time
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
import torch

from ssondo.audio.codec import encode_flac
from ssondo.distill import trainer
from ssondo.distill.distill import distill
from ssondo.distill.supervise import supervise
from ssondo.distill.training_config import Outputs, Runtime, TrainingConfig
from ssondo.storage.atomic_files import digest_path
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.clusters import ClusterWriter
from ssondo.storage.shards.embedding import EmbeddingShardWriter
from ssondo.storage.shards.status import Status
from ssondo.students.checkpoint import load_student
from ssondo.students.student import build_student

DIM = 6
SAMPLES = 4096
STUDENT = {"architecture": "mobilenetv3", "window_s": 0.128, "width_mult": 0.1}


def tone(kind, rng):
    """A tone of one of DIM pitches in noise; the teacher's embedding encodes the pitch."""
    t = np.arange(SAMPLES) / 32000
    pitch = 0.4 * np.sin(2 * np.pi * 250 * 2**kind * t + 6 * rng.random())
    return (pitch + 0.01 * rng.standard_normal(SAMPLES)).astype(np.float32)


def write_shard(folder, name, n_clips, seed):
    """An audio, embedding and segment shard of `n_clips`; returns the clips' kinds."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(DIM, size=n_clips)
    ids = [f"{name}{i:03d}" for i in range(n_clips)]
    with (
        AudioShardWriter(folder / f"{name}.audio.h5", sample_rate=32000, settings={}) as sound,
        EmbeddingShardWriter(
            folder / f"{name}.embeddings.h5",
            embedding_dim=DIM,
            settings={"teacher": {"kind": "toy"}},
            checkpoint_sha256="",
            dtype="float32",
        ) as teacher,
    ):
        for clip_id, kind in zip(ids, kinds, strict=True):
            sound.add(clip_id, encode_flac(tone(kind, rng), 32000), duration_s=SAMPLES / 32000)
            embedding = 1 + 0.05 * rng.standard_normal(DIM)
            embedding[kind] += 1
            teacher.add([clip_id], embedding[None])
        sound.add(f"{name}gone", status=Status.UNAVAILABLE, reason="private")
    rows = [f"{clip_id},0,1,/m/{kind}" for clip_id, kind in zip(ids, kinds, strict=True)]
    (folder / f"{name}.csv").write_text("\n".join(["ytid,start_s,end_s,labels", *rows]) + "\n")
    return ids, kinds


def make(folder):
    """Write the corpus: two training shards, an eval shard, clusters and labels."""
    parts = [write_shard(folder, name, 24, seed) for seed, name in enumerate(("one", "two"))]
    write_shard(folder, "eval", 20, 9)
    with ClusterWriter(folder / "clusters.h5", settings={}) as clusters:
        for ids, kinds in parts:
            clusters.add(ids, kinds % 3)
        clusters.add_centroids(np.zeros((3, DIM)))
    classes = ["index,mid,display_name", *(f"{i},/m/{i},tone {i}" for i in range(DIM))]
    (folder / "classes.csv").write_text("\n".join(classes) + "\n")


def common(out):
    return {
        "student": STUDENT,
        "out": out / "student.ckpt",
        "history": out / "history.csv",
        "curves": out / "curves.png",
        "seed": 0,
        "epochs": 2,
        "samples_per_epoch": 35,
        "batch_size": 8,
        "learning_rate": 0.003,
        "schedule": "constant",
        "device": "cpu",
        "cache_mb": 10,
    }


def arguments(corpus, out, **changes):
    data = {
        "audio": [corpus / "one.audio.h5", corpus / "two.audio.h5"],
        "embeddings": [corpus / "one.embeddings.h5", corpus / "two.embeddings.h5"],
        "eval_audio": [corpus / "eval.audio.h5"],
        "eval_embeddings": [corpus / "eval.embeddings.h5"],
        "clusters": corpus / "clusters.h5",
        "n_clusters": 3,
    }
    return data | common(out) | changes


def supervise_arguments(corpus, out, **changes):
    data = {
        "audio": [corpus / "one.audio.h5", corpus / "two.audio.h5"],
        "segments": [corpus / "one.csv", corpus / "two.csv"],
        "classes": corpus / "classes.csv",
        "eval_audio": [corpus / "eval.audio.h5"],
        "eval_segments": [corpus / "eval.csv"],
    }
    return data | common(out) | changes


def run(verb, **settings):
    """Call `distill` or `supervise` with the options of the command line, which are not grouped."""
    grouped = {}
    for name, kind in (("config", TrainingConfig), ("outputs", Outputs), ("runtime", Runtime)):
        own = {field.name for field in fields(kind)} & set(settings)
        grouped[name] = kind(**{key: settings.pop(key) for key in own})
    {"distill": distill, "supervise": supervise}[verb](**settings, **grouped)


def digest(out):
    return digest_path(out / "student.ckpt").read_text()


def history(out):
    """Rows of the history as text by column, with "" for missing values."""
    return pd.read_csv(out / "history.csv", dtype=str, keep_default_na=False).to_dict("records")


def cosine_of_updates(left, right):
    """Cosine between the changes of all weights in two trainings with seed 0.

    Adam moves a weight by a full step even if its gradient is only rounding, so single weights differ between two
    processors, whereas the cosine averages over all of them. In the trainings of these tests, rounding lowers it by
    5e-5; the statistics of half a batch lower it by 0.4 or more, and masks of dropout for half a batch by 0.14.
    """
    states = [load_student(path / "student.ckpt") for path in (left, right)]
    settings = dict(states[0].settings)
    n_outputs = settings.pop("n_outputs")
    start = build_student(settings, n_outputs=n_outputs, seed=0).state_dict()
    updates = []
    for student in states:
        state = student.state_dict()
        updates.append(torch.cat([(state[k] - start[k]).flatten() for k in start if k.endswith(("weight", "bias"))]))
    assert updates[0].abs().max() > 2e-4
    return float(torch.cosine_similarity(*updates, dim=0))


def command(settings, verb="distill"):
    words = [sys.executable, "-m", "ssondo", verb]
    for key, value in settings.items():
        words.append("--" + key.replace("_", "-"))
        values = value if isinstance(value, list) else [json.dumps(value) if isinstance(value, dict) else value]
        words += map(str, values)
    return words


def started(settings):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SSONDO_PROGRESS_LINES": "1"}
    return subprocess.Popen(command(settings), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def until(condition, process, seconds=600):
    """Wait until a condition holds or the process (of subprocess or multiprocessing) has ended."""
    limit = time.monotonic() + seconds
    alive = process.is_alive if hasattr(process, "is_alive") else lambda: process.poll() is None
    while not condition() and alive():
        assert time.monotonic() < limit, "the training did not reach the condition in time"
        time.sleep(0.001)


def killed_at(monkeypatch, step):
    """Abort the training directly after the state of `step` has been saved, as a kill would."""

    class KillError(Exception):
        pass

    save_state = trainer.save_state

    def save_and_abort(path, fingerprint, student, optimizer, scaler, state):
        save_state(path, fingerprint, student, optimizer, scaler, state)
        if state.step == step:
            raise KillError

    monkeypatch.setattr(trainer, "save_state", save_and_abort)
    return pytest.raises(KillError)
