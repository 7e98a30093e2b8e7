"""Training: that it learns, that it repeats itself to the bit, and that no kill can spoil it."""

import csv
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ssondo import training
from ssondo.artefacts import digest_path
from ssondo.audio import encode_flac
from ssondo.distill import distill, nearest_neighbour_agreement
from ssondo.errors import SsondoError, TransientError
from ssondo.initialise import initialise, new_student
from ssondo.loader import AudioClips
from ssondo.model import load_student
from ssondo.shards import AudioShardWriter, ClusterWriter, EmbeddingShardWriter, Status
from ssondo.supervise import supervise

DIM = 6
SAMPLES = 4096
STUDENT = {"architecture": "mobilenetv3", "window_s": 0.128, "width_mult": 0.1}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tone(kind, rng):
    """One of DIM pitches in noise: what the teacher's embedding tells apart."""
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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    parts = [write_shard(folder, name, 24, seed) for seed, name in enumerate(("one", "two"))]
    write_shard(folder, "eval", 20, 9)
    with ClusterWriter(folder / "clusters.h5", settings={}) as clusters:
        for ids, kinds in parts:
            clusters.add(ids, kinds % 3)
        clusters.add_centroids(np.zeros((3, DIM)))
    classes = ["index,mid,display_name", *(f"{i},/m/{i},tone {i}" for i in range(DIM))]
    (folder / "classes.csv").write_text("\n".join(classes) + "\n")
    return folder


def common(out):
    return {
        "student": STUDENT,
        "out": out / "student.ckpt",
        "history": out / "history.csv",
        "curves": out / "curves.png",
        "seed": 0,
        "epochs": 2,
        "draws_per_epoch": 35,
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


def digest(out):
    return digest_path(out / "student.ckpt").read_text()


def history(out):
    with (out / "history.csv").open() as file:
        return list(csv.DictReader(file))


def killed_at(monkeypatch, step):
    """Let the process that trains die right after the state of `step` is kept, as a kill would."""

    class KillError(Exception):
        pass

    save = training._save

    def save_and_die(path, identity, student, optimizer, scaler, at):
        save(path, identity, student, optimizer, scaler, at)
        if at.step == step:
            raise KillError

    monkeypatch.setattr(training, "_save", save_and_die)
    return pytest.raises(KillError)


# --- repeating ---------------------------------------------------------------------------------


def test_same_seed_gives_bit_identical_weights_and_another_seed_others(corpus, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        distill(**arguments(corpus, tmp_path / name, seed=seed, mixup_alpha=0.3, freq_mask=20, time_mask=2))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert digest(tmp_path / "a") != digest(tmp_path / "c")


def test_reading_threads_do_not_change_the_weights(corpus, tmp_path):
    for name, num_workers in (("a", 0), ("b", 3)):
        distill(**arguments(corpus, tmp_path / name, num_workers=num_workers, cache_mb=0))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


@pytest.mark.parametrize("step", [1, 4, 6])
def test_training_that_dies_goes_on_to_bit_identical_weights(corpus, tmp_path, monkeypatch, step):
    # Step 4 is the end of the first of two epochs.
    settings = {"mixup_alpha": 0.3, "freq_mask": 20, "time_mask": 2, "reestimate_batches": 2}
    distill(**arguments(corpus, tmp_path / "whole", **settings))
    broken = arguments(corpus, tmp_path / "broken", checkpoint_minutes=0, **settings)
    with monkeypatch.context() as patch, killed_at(patch, step):
        distill(**broken)
    assert not (tmp_path / "broken" / "student.ckpt").exists()
    distill(**broken)
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")
    measured = {"seconds", "clips_per_s", "wait_share"}
    for left, right in zip(history(tmp_path / "broken"), history(tmp_path / "whole"), strict=True):
        assert {k: v for k, v in left.items() if k not in measured} == {
            k: v for k, v in right.items() if k not in measured
        }


def test_supervised_training_that_dies_goes_on_to_bit_identical_weights(corpus, tmp_path, monkeypatch):
    supervise(**supervise_arguments(corpus, tmp_path / "whole", mixup_alpha=0.3))
    broken = supervise_arguments(corpus, tmp_path / "broken", mixup_alpha=0.3, checkpoint_minutes=0)
    with monkeypatch.context() as patch, killed_at(patch, 5):
        supervise(**broken)
    supervise(**broken)
    assert digest(tmp_path / "broken") == digest(tmp_path / "whole")


def test_state_of_the_running_training_is_gone_after_it(corpus, tmp_path):
    distill(**arguments(corpus, tmp_path, checkpoint_minutes=0))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "curves.png",
        "history.csv",
        "student.ckpt",
        "student.ckpt.digest",
    ]


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 0.001}, {"center": True}, {"loss": "mse"}, {"n_clusters": 0}, {"audio": "one"}],
    ids=str,
)
def test_state_of_another_training_is_not_resumed(corpus, tmp_path, monkeypatch, caplog, change):
    if change == {"audio": "one"}:
        change = {"audio": [corpus / "one.audio.h5"], "embeddings": [corpus / "one.embeddings.h5"]}
    with monkeypatch.context() as patch, killed_at(patch, 3):
        distill(**arguments(corpus, tmp_path / "a", checkpoint_minutes=0))
    with caplog.at_level(logging.INFO):
        distill(**arguments(corpus, tmp_path / "a", **change))
    assert "of a training with other settings, data or code; starting anew" in caplog.text
    distill(**arguments(corpus, tmp_path / "b", **change))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_state_that_cannot_be_read_is_left_aside(corpus, tmp_path, caplog):
    state = training.running_path(tmp_path / "a" / "student.ckpt")
    state.parent.mkdir()
    state.write_bytes(b"PK\x03\x04 no checkpoint")
    distill(**arguments(corpus, tmp_path / "a"))
    assert "cannot be read" in caplog.text
    distill(**arguments(corpus, tmp_path / "b"))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_looking_at_eval_clips_does_not_change_the_training(corpus, tmp_path):
    for name, validate_every in (("a", 1), ("b", 2)):
        distill(**arguments(corpus, tmp_path / name, validate_every=validate_every, reestimate_batches=2))
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert [row["eval_cosine"] != "" for row in history(tmp_path / "b")] == [False, True]


def test_sigterm_saves_the_state_and_asks_to_be_run_again(corpus, tmp_path, monkeypatch):
    distill(**arguments(corpus, tmp_path / "whole"))
    read, calls = training._read, []

    def read_and_terminate(*args):
        calls.append(args)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return read(*args)

    stopped = arguments(corpus, tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(training, "_read", read_and_terminate)
        with pytest.raises(TransientError, match=r"stopped by SIGTERM at step \d of 8; the same command goes on"):
            distill(**stopped)
    assert training.running_path(stopped["out"]).is_file()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    distill(**stopped)
    assert digest(tmp_path / "stopped") == digest(tmp_path / "whole")


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


def until(condition, process, seconds=120):
    limit = time.monotonic() + seconds
    while not condition() and process.poll() is None:
        assert time.monotonic() < limit, "the training did not get there"
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_weights_of_an_uninterrupted_run(corpus, tmp_path):
    settings = arguments(corpus, tmp_path / "killed", epochs=5, checkpoint_minutes=1e-9, reestimate_batches=2)
    state = training.running_path(settings["out"])
    kills = 0

    def changed(before):
        return lambda: state.is_file() and state.stat().st_mtime_ns != before

    def half_written():
        return any(state.parent.glob(f".{state.name}.*.partial"))

    # Before anything is kept, at the first state, in the middle of writing one, and a while after.
    for moment in ("start", "state", "writing", "later", "writing"):
        process = started(settings)
        if moment == "start":
            time.sleep(0.5)
        elif moment == "writing":
            until(half_written, process)
        else:
            until(changed(state.stat().st_mtime_ns if state.is_file() else 0), process)
            time.sleep(0.05 if moment == "later" else 0)
        kills += process.poll() is None
        process.kill()
        process.communicate()
        assert not settings["out"].exists()
    assert kills == 5
    process = started(settings)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output.decode()
    assert "going on at step" in output.decode(), output.decode()
    distill(**arguments(corpus, tmp_path / "whole", epochs=5, reestimate_batches=2))
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert not state.exists()
    assert not list(state.parent.glob("*.partial"))


@pytest.mark.slow
def test_command_that_is_terminated_exits_with_75(corpus, tmp_path):
    settings = arguments(corpus, tmp_path, epochs=400, checkpoint_minutes=1e-9)
    process = started(settings)
    until(training.running_path(settings["out"]).is_file, process)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output.decode()
    assert "stopped by SIGTERM at step" in output.decode().splitlines()[-1]


# --- labels beside the teacher -----------------------------------------------------------------


def labelled(corpus, out, weight):
    return arguments(
        corpus,
        out,
        student={**STUDENT, "dropout": 0.0},
        segments=[corpus / "one.csv", corpus / "two.csv"],
        classes=corpus / "classes.csv",
        prediction_weight=weight,
    )


def test_loss_on_labels_and_on_the_teacher_are_weighed_against_each_other(corpus, tmp_path):
    losses = {}
    for weight in (1e-9, 0.25, 1.0):
        distill(**labelled(corpus, tmp_path / str(weight), weight) | {"epochs": 1, "draws_per_epoch": 8})
        losses[weight] = float(history(tmp_path / str(weight))[0]["loss"])
    assert losses[0.25] == pytest.approx(0.25 * losses[1.0] + 0.75 * losses[1e-9], rel=1e-4)
    # A new student's logits are near 0: half a chance for each class.
    assert losses[1.0] == pytest.approx(np.log(2), abs=0.05)
    student = load_student(tmp_path / "0.25" / "student.ckpt")
    assert student.settings["n_outputs"] == DIM + DIM
    assert student.provenance["prediction_weight"] == 0.25


@pytest.mark.slow
def test_student_learns_from_teacher_and_labels_together(corpus, tmp_path):
    distill(**labelled(corpus, tmp_path, 0.5) | {"epochs": 25, "center": True, "reestimate_batches": 10})
    assert float(history(tmp_path)[-1]["eval_cosine"]) > 0.8
    student = load_student(tmp_path / "student.ckpt")
    clips = AudioClips([corpus / "eval.audio.h5"])
    sound = torch.from_numpy(clips.read(np.arange(20))).float() / 32768
    with torch.no_grad():
        logits = student(student.log_mel(sound))[:, DIM:]
    mids = [row["labels"] for row in csv.DictReader((corpus / "eval.csv").open())]
    truth = torch.tensor([int(mid.removeprefix("/m/")) for mid in mids])
    assert (logits.argmax(1) == truth).double().mean() > 0.9


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"classes": None}, "prediction_weight is 0.5, which needs labels; give --segments and --classes"),
        ({"prediction_weight": 1.5}, "prediction_weight is 1.5; it must be from 0 to 1"),
        ({"segments": ["one.csv"]}, "24 training clips stand in no segment list"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(corpus, tmp_path, changes, text):
    if "segments" in changes:
        changes = {"segments": [corpus / name for name in changes["segments"]]}
    with pytest.raises(SsondoError, match=text):
        distill(**labelled(corpus, tmp_path, 0.5) | changes)


@pytest.mark.slow
def test_temperature_of_dymn_is_lowered_in_training_and_kept_in_its_checkpoint(corpus, tmp_path):
    student = {"architecture": "dymn", "window_s": 0.128, "width_mult": 0.1, "temperature": 3.0, "anneal": True}
    distill(**arguments(corpus, tmp_path, student=student, epochs=2))
    # The second epoch is one below the first.
    assert load_student(tmp_path / "student.ckpt").model.temperature == 2.0


@pytest.mark.parametrize(("name", "channels_last"), [("mobilenetv3", True), ("dymn", False)])
def test_student_is_placed_in_the_layout_that_its_training_is_fastest_in(name, channels_last):
    student = new_student({"architecture": name, "width_mult": 0.1}, n_outputs=2, seed=0)
    convolution = training.place(student, training.Job(torch.device("cpu"))).model.get_submodule(
        "features.0.0" if name == "mobilenetv3" else "in_c.0"
    )
    with torch.no_grad():
        out = convolution(torch.zeros(2, 1, 16, 16))
    assert out.is_contiguous(memory_format=torch.channels_last) is channels_last


# --- learning ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_student_learns_what_the_teacher_tells_apart(corpus, tmp_path):
    distill(**arguments(corpus, tmp_path, epochs=25, center=True, reestimate_batches=10))
    rows = history(tmp_path)
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    assert float(rows[-1]["eval_cosine"]) > 0.8
    assert abs(float(rows[-1]["constant_cosine"])) < 0.3


@pytest.mark.slow
def test_supervised_student_learns_the_labels(corpus, tmp_path):
    supervise(**supervise_arguments(corpus, tmp_path, epochs=25, reestimate_batches=10))
    last = history(tmp_path)[-1]
    assert float(last["eval_map"]) > 0.8
    # Scores that are all equal have a precision of the share of positive clips: 1 in DIM on average.
    assert float(last["constant_map"]) == pytest.approx(1 / DIM, abs=0.05)


@pytest.mark.slow
def test_a_short_training_needs_its_batch_norms_measured_anew(corpus, tmp_path):
    """With a momentum of 0.01 the running statistics are still those of the start after some ten steps."""
    cosines = {}
    for n_batches in (0, 10):
        out = tmp_path / str(n_batches)
        distill(**arguments(corpus, out, epochs=25, center=True, reestimate_batches=n_batches))
        cosines[n_batches] = float(history(out)[-1]["eval_cosine"])
    assert cosines[10] > cosines[0] + 0.2
    # The same weights: only the statistics differ.
    states = [load_student(tmp_path / str(n) / "student.ckpt").state_dict() for n in (0, 10)]
    for key, value in states[0].items():
        if "running" not in key and "num_batches" not in key:
            assert torch.equal(value, states[1][key]), key
    assert not torch.equal(states[0]["model.features.0.1.running_var"], states[1]["model.features.0.1.running_var"])


def test_training_starts_from_the_untrained_student_of_the_same_seed(tmp_path):
    initialise(student=STUDENT, seed=3, out=tmp_path / "floor.ckpt")
    floor = load_student(tmp_path / "floor.ckpt").model.state_dict()
    start = new_student(STUDENT, n_outputs=DIM, seed=3).model.state_dict()
    other = new_student(STUDENT, n_outputs=DIM, seed=4).model.state_dict()
    assert all(torch.equal(floor[key], start[key]) for key in floor)
    assert not torch.equal(floor["features.0.0.weight"], other["features.0.0.weight"])


def test_pretrained_weights_are_where_training_starts(corpus, tmp_path):
    pretrained = new_student(STUDENT, n_outputs=DIM, seed=77).model.state_dict()
    torch.save({**pretrained, "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "init.pt")
    distill(**arguments(corpus, tmp_path, init=tmp_path / "init.pt", learning_rate=1e-9))
    found = load_student(tmp_path / "student.ckpt").model.state_dict()["features.0.0.weight"]
    torch.testing.assert_close(found, pretrained["features.0.0.weight"], atol=1e-6, rtol=0)


def test_centre_is_the_mean_of_the_training_clips_that_have_both_and_is_kept(corpus, tmp_path):
    only_first = {"audio": [corpus / "one.audio.h5"], "center": True}
    distill(**arguments(corpus, tmp_path, **only_first))
    from ssondo.shards import EmbeddingShard

    with EmbeddingShard(corpus / "one.embeddings.h5") as shard:
        expected = shard.rows().astype(np.float64).mean(axis=0)
    found = load_student(tmp_path / "student.ckpt").provenance["center"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_constant_cosine_is_that_of_the_mean_direction_of_training_embeddings(corpus, tmp_path):
    distill(**arguments(corpus, tmp_path))
    from ssondo.shards import EmbeddingShard

    def unit(name):
        with EmbeddingShard(corpus / f"{name}.embeddings.h5") as shard:
            rows = shard.rows().astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    constant = np.concatenate([unit("one"), unit("two")]).mean(axis=0)
    expected = (unit("eval") @ constant / np.linalg.norm(constant)).mean()
    assert float(history(tmp_path)[0]["constant_cosine"]) == pytest.approx(expected, rel=1e-5)
    assert expected > 0.9  # the toy teacher is not centred, as YAMNet is not


def test_nearest_neighbour_agreement_by_hand():
    # On a line from 0 to 90 degrees: teacher's neighbours 1, 0, 3, 2; the student swaps clips 1 and 2.
    def at(*degrees):
        angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    teacher = at(0, 10, 50, 65)
    assert nearest_neighbour_agreement(5 * teacher, teacher) == 1.0
    # Student's neighbours: 0 -> 2, 1 -> 3, 2 -> 0, 3 -> 1.
    assert nearest_neighbour_agreement(at(0, 50, 10, 65), teacher) == 0.0
    # Student's neighbours: 0 -> 1, 1 -> 0, 2 -> 1, 3 -> 2.
    assert nearest_neighbour_agreement(at(0, 10, 22, 80), teacher) == 0.75


@pytest.mark.parametrize("loss", ["contrastive_neg_clusters", "hybrid", "kl"])
def test_other_losses_train(corpus, tmp_path, loss):
    distill(**arguments(corpus, tmp_path, epochs=1, loss=loss, temperature=0.5, mixup_alpha=0.3))
    assert np.isfinite(float(history(tmp_path)[0]["loss"]))


def test_history_has_a_row_for_each_epoch_with_the_learning_rate_and_the_speed(corpus, tmp_path):
    schedule = {"schedule": "published", "warmup_epochs": 1, "decay_start_epoch": 1, "decay_epochs": 1}
    distill(**arguments(corpus, tmp_path, epochs=3, final_multiplier=0.5, **schedule))
    rows = history(tmp_path)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    expected = [0.003 * factor for factor in (np.exp(-5 / 4), 1, 0.5)]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(expected, rel=1e-5)
    assert all(float(row["clips_per_s"]) > 0 and 0 <= float(row["wait_share"]) <= 1 for row in rows)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_last_line_tells_what_came_out(corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        distill(**arguments(corpus, tmp_path))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == (
        "48 training clips have sound and an embedding; 0 with sound have no embedding, "
        "0 with an embedding have no sound, 2 are listed without sound"
    )
    assert lines[-1].startswith("distill toy -> mobilenetv3: cosine, k=3, seed 0, 8 steps, eval cosine ")
    assert lines[-1].endswith(f"-> {tmp_path / 'student.ckpt'}")


def test_clips_without_an_embedding_are_counted_and_left_out(corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        distill(**arguments(corpus, tmp_path, embeddings=[corpus / "one.embeddings.h5"]))
    assert "24 training clips have sound and an embedding; 24 with sound have no embedding, 0 with" in caplog.text


def test_events_for_tensorboard_are_written_when_asked_for(corpus, tmp_path):
    pytest.importorskip("tensorboard")
    distill(**arguments(corpus, tmp_path, epochs=1, tensorboard=tmp_path / "events"))
    assert list((tmp_path / "events").glob("events.out.tfevents.*"))


def test_16_bit_training_works_on_a_cpu_when_it_is_asked_for(corpus, tmp_path):
    distill(**arguments(corpus, tmp_path, epochs=1, precision="bf16"))
    assert np.isfinite(float(history(tmp_path)[0]["loss"]))


def test_auto_precision_is_float32_on_a_cpu():
    assert training.half_type("auto", torch.device("cpu")) is None


# --- faults ------------------------------------------------------------------------------------


def test_loss_that_is_no_number_stops_the_training_and_names_the_clips(corpus, tmp_path):
    with pytest.raises(SsondoError, match="near step ") as fault:
        distill(**arguments(corpus, tmp_path, loss="mse", learning_rate=1e30, epochs=20))
    text = str(fault.value)
    assert "lower learning_rate" in text
    names = text.rpartition(": ")[2].split()
    assert len(names) == 8
    assert set(names) <= set(AudioClips([corpus / "one.audio.h5", corpus / "two.audio.h5"]).clip_ids)
    assert not (tmp_path / "student.ckpt").exists()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"clusters": None}, "n_clusters is 3, but no clusters were given; add --clusters, or set it to 0"),
        ({"n_clusters": 5}, "has 3 clusters, n_clusters is 5"),
        ({"loss": "hybrid", "n_clusters": 0}, "loss 'hybrid' compares clusters; set n_clusters above 0"),
        ({"sampling": "balanced"}, "sampling is 'balanced'; it must be one of clusters, uniform"),
        ({"precision": "half"}, "precision is 'half'; it must be one of auto, float32, bf16, fp16"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"student": {"window_s": 1.0}}, "student: architecture is missing"),
        ({"student": STUDENT | {"widht_mult": 1.0}}, "has no setting 'widht_mult'"),
        ({"student": STUDENT | {"front_end": {"sample_rate": 44100}}}, "have 32000 Hz and the student takes 44100"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_fault_of_the_user_is_one_line_that_says_the_way_out(corpus, tmp_path, change, text):
    with pytest.raises(SsondoError, match=text):
        distill(**arguments(corpus, tmp_path, **change))


def test_embeddings_of_other_clips_are_refused(corpus, tmp_path):
    swapped = {"embeddings": [corpus / "eval.embeddings.h5"]}
    with pytest.raises(SsondoError, match="0 training clips have sound and an embedding; 48 with sound have no"):
        distill(**arguments(corpus, tmp_path, **swapped))


def test_training_clip_without_a_cluster_is_named(corpus, tmp_path):
    with ClusterWriter(tmp_path / "old.h5", settings={}) as clusters:
        clusters.add(["one000"], np.zeros(1))
        clusters.add_centroids(np.zeros((3, DIM)))
    with pytest.raises(SsondoError, match=r"old\.h5: 47 training clips have no cluster \(the first is one001\)"):
        distill(**arguments(corpus, tmp_path, clusters=tmp_path / "old.h5"))


def test_corpus_without_classes_cannot_be_supervised(corpus, tmp_path):
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n")
    with pytest.raises(SsondoError, match="a corpus without labels cannot be supervised"):
        supervise(**supervise_arguments(corpus, tmp_path, classes=tmp_path / "classes.csv"))


def test_label_outside_the_class_list_is_named(corpus, tmp_path):
    (tmp_path / "classes.csv").write_text("index,mid,display_name\n0,/m/0,tone\n")
    with pytest.raises(SsondoError, match=r"one\.csv: clip one\d+ has the label /m/[1-5], which is not in the class"):
        supervise(**supervise_arguments(corpus, tmp_path, classes=tmp_path / "classes.csv"))


# --- several processes -------------------------------------------------------------------------

BACKBONE = '''
import torch
from ssondo.students.backbone import Backbone

class Plain(Backbone):
    """No batch norm: what several CPU processes compute is then what one computes."""
    embedding_dim = 8
    hidden_dim = 16
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(1, 8, 3, stride=2)
    def embed_windows(self, log_mel):
        return self.layer(log_mel[:, None]).relu().mean((2, 3))
'''


def on_two_processes(settings, folder):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder), "SSONDO_PROGRESS_LINES": "1"}
    return subprocess.Popen(
        [*torchrun, *command(settings)[2:]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cosine", "contrastive"])
def test_two_processes_train_the_student_that_one_trains(corpus, tmp_path, monkeypatch, loss):
    """Batch, learning rate and, for losses that compare clips, the negatives are those of the whole job."""
    (tmp_path / "plain_backbone.py").write_text(BACKBONE)
    monkeypatch.syspath_prepend(tmp_path)
    student = {"architecture": "plain_backbone:Plain", "window_s": 0.128, "dropout": 0.0}
    distill(**arguments(corpus, tmp_path / "one", student=student, loss=loss))
    settings = arguments(corpus, tmp_path / "two", student=student, loss=loss)
    process = on_two_processes(settings, tmp_path)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert output.count("48 training clips have sound and an embedding") == 1
    one, two = (
        load_student(tmp_path / name / "student.ckpt", trust_checkpoint=True).state_dict() for name in ("one", "two")
    )
    start = new_student(student, n_outputs=DIM, seed=0).state_dict()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=2e-5)
        assert not torch.allclose(value, start[key], atol=1e-3), f"{key} has not been trained"
    losses = [[row["loss"] for row in history(tmp_path / name)] for name in ("one", "two")]
    assert [float(x) for x in losses[0]] == pytest.approx([float(x) for x in losses[1]], rel=1e-4)


@pytest.mark.slow
def test_two_processes_that_are_terminated_stop_at_one_step_and_go_on_from_it(corpus, tmp_path):
    settings = arguments(corpus, tmp_path / "stopped", epochs=40, checkpoint_minutes=1e-9)
    state = training.running_path(settings["out"])
    process = on_two_processes(settings, tmp_path)
    until(state.is_file, process)
    process.terminate()
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    stopped = {line.partition("step ")[2] for line in output.splitlines() if "stopped by SIGTERM" in line}
    assert len(stopped) == 1, output
    at = torch.load(state, weights_only=True)["progress"]["step"]
    assert stopped.pop().startswith(f"{at} of 160")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_training_computes_the_same_loss(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    plain = {"student": {**STUDENT, "dropout": 0.0}, "epochs": 1}
    for name, compiled in (("plain", False), ("compiled", True)):
        distill(**arguments(corpus, tmp_path / name, compile=compiled, **plain))
    losses = [float(history(tmp_path / name)[0]["loss"]) for name in ("plain", "compiled")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
