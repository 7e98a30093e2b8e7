"""Invented probe scores and results of a run for the tests of tables and report."""

import base64
import json

from ssondo.audioset.availability import availability
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.status import Status

# A PNG of one grey pixel.
PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


def model(row_kind, teacher="", student="", loss="", n_clusters=0, seed=0):
    return {
        "row_kind": row_kind,
        "teacher": teacher,
        "student": student,
        "loss": loss,
        "n_clusters": n_clusters,
        "seed": seed,
    }


def distilled(teacher="matpac", student="dymn", loss="cosine", n_clusters=50, seed=0):
    return model("distilled", teacher, student, loss, n_clusters, seed)


def write_score(folder, of, task, runs, **changes):
    """Write a score file as `probe` does and return its path."""
    value = {
        "task": task,
        "metric": "accuracy",
        "model": of,
        "scores": runs,
        "mean": sum(runs) / len(runs),
        "n_runs": len(runs),
        "seeds": list(range(len(runs))),
        "n_clips": 2000,
        "n_train": 1200,
        "n_valid": 400,
        "n_test": 400,
        "n_missing": 0,
        "n_classes": 50,
        "classes_without_positive": [],
        "parameters": 2_971_664,
        "protocol": "standard",
        "optimistic": False,
        "clip_list_sha256": "a" * 64,
        "checkpoint_sha256": "b" * 64,
        "embeddings_digest": "c" * 64,
        "options": {"head": "linear", "epochs": 100},
        "code": "0123456789abcdef",
        "environment": {"torch": "2.14.1", "python": "3.11", "processor": "A small one", "cores": "4", "device": "cpu"},
        "environment_of": {
            "distill": {
                "gpu": "NVIDIA H100",
                "gpu_memory": "80 GiB",
                "driver": "570.1",
                "cuda": "13.0",
                "processes": "2",
                "processor": "A large one",
                "cores": "16",
                "memory": "128 GiB",
                "torch": "2.14.1",
            },
            "embed_task": {"processor": "A small one", "cores": "2", "processes": "2"},
        },
        "splits": [
            {
                "split": "test",
                "scores": runs,
                "chosen": [{"learning_rate": 0.001, "weight_decay": 0.0, "batch_size": 64, "epoch": 7}] * len(runs),
            }
        ],
    } | changes
    path = folder / "-".join([*(str(part) for part in of.values() if part != ""), f"{task}.json"])
    path.write_text(json.dumps(value))
    return path


def write_availability(folder, clips=None, classes=()):
    """Write what `availability` writes and return its folder.

    Args:
        folder: Existing folder for the shards and the result.
        clips: For each split, the labels, status and reason of each clip; by default 97 of 100 training clips
            are available.
        classes: Id and name of each class.
    """
    if clips is None:
        clips = {
            "train": [("/m/a", "OK", "")] * 97 + [("/m/b", "UNAVAILABLE", "private video")] * 3,
            "eval": [("/m/b", "OK", ""), ("/m/b", "FAILED", "timeout")],
        }
        classes = [("/m/a", "Speech"), ("/m/b", "Whoosh, swoosh, swish")]
    (folder / "index").mkdir()
    rows = "".join(f'{i},{mid},"{name}"\n' for i, (mid, name) in enumerate(classes))
    (folder / "index" / "classes.csv").write_text(f"index,mid,display_name\n{rows}")
    for split, listed in clips.items():
        rows = "".join(f"{split}{i},0,10,{labels}\n" for i, (labels, _, _) in enumerate(listed))
        (folder / "index" / f"{split}-0000.csv").write_text(f"ytid,start_s,end_s,labels\n{rows}")
        with AudioShardWriter(folder / "audio" / f"{split}-0000.h5", sample_rate=32_000, settings={}) as shard:
            for i, (_, status, reason) in enumerate(listed):
                shard.add(f"{split}{i}", b"x" if status == "OK" else b"", status=Status[status], reason=reason)
    out = folder / "availability"
    availability(index=folder / "index", audio=folder / "audio", n_train_shards=1, n_eval_shards=1, out=out)
    return out


def write_results(tmp_path):
    """Write the results of a small run and return the arguments of `report`."""
    scores = [
        write_score(tmp_path, model("teacher", "matpac"), "esc50", [0.90, 0.92], parameters=86_000_000),
        write_score(tmp_path, model("supervised", student="dymn"), "esc50", [0.80, 0.80]),
        write_score(tmp_path, distilled(), "esc50", [0.864, 0.864], n_missing=7, clip_list_sha256="feed" * 16),
    ]
    history = tmp_path / "students" / "a_name_that_is_too_long_for_a_phone" / "dymn" / "seed0" / "history.csv"
    history.parent.mkdir(parents=True)
    history.write_text(
        "epoch,step,loss,loss_distillation,learning_rate,clips_per_s,eval_cosine,constant_cosine\n"
        "1,10,0.9,0.8,0.001,500,,\n2,20,0.5,0.4,0.001,510,0.71,0.4\n3,30,0.25,0.2,0.001,505,0.83,0.4\n"
    )
    metrics = tmp_path / "clusters" / "k3" / "metrics.json"
    metrics.parent.mkdir(parents=True)
    for picture in (metrics.with_name("sizes.png"), metrics.with_name("tsne.png")):
        picture.write_bytes(PIXEL)
    metrics.write_text(
        json.dumps(
            {
                "n_clips": 60,
                "inertia": {"mean": 1.5},
                "silhouette": None,
                "davies_bouldin": 1.25,
                "calinski_harabasz": 33.0,
                "cluster_sizes": {"each": [10, 30, 20]},
                "settings": {"n_clusters": 3},
            }
        )
    )
    benchmark = tmp_path / "benchmarks" / "distill" / "matpac" / "dymn.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\tmean_load\n3725.5\t1:02:05\t812.34\t99\n")
    graph = tmp_path / "rule_graph.json"
    graph.write_text(json.dumps({"report": ["distill", "embed"], "distill": ["embed"], "embed": []}))
    return {
        "title": "A small run",
        "table1": {
            "teachers": ["matpac"],
            "students": ["dymn"],
            "baselines": ["supervised"],
            "loss": "cosine",
            "n_clusters": 50,
            "seeds": [0],
            "tasks": ["esc50"],
        },
        "scores": scores,
        "histories": [history],
        "clusters": [metrics],
        "availability": write_availability(tmp_path),
        "benchmarks": tmp_path / "benchmarks",
        "rule_graph": graph,
        "out": tmp_path / "report.html",
    }
