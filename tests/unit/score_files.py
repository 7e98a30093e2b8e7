"""Probe scores made up for the tests of tables and report."""

import json


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
        "protocol": "field",
        "optimistic": False,
        "clip_list_sha256": "a" * 64,
        "checkpoint_sha256": "b" * 64,
        "embeddings_digest": "c" * 64,
        "options": {"head": "linear", "epochs": 100},
        "code": "0123456789abcdef",
        "environment": {"torch": "2.14.1", "python": "3.11"},
        "parts": [
            {
                "part": "test",
                "scores": runs,
                "chosen": [{"learning_rate": 0.001, "weight_decay": 0.0, "batch_size": 64, "epoch": 7}] * len(runs),
            }
        ],
    } | changes
    path = folder / "-".join([*(str(part) for part in of.values() if part != ""), f"{task}.json"])
    path.write_text(json.dumps(value))
    return path
