"""Distillation: that a student learns from its teacher, and which input is refused."""

import csv
import logging

import numpy as np
import pytest
import torch
from toy_corpus import DIM, STUDENT, arguments, history, run

from ssondo.audio.codec import encode_flac
from ssondo.distill.datasets import AudioDataset
from ssondo.distill.distill import nearest_neighbour_agreement
from ssondo.distill.initialise import initialise
from ssondo.errors import SsondoError
from ssondo.storage.shards.audio import AudioShardWriter
from ssondo.storage.shards.clusters import ClusterWriter
from ssondo.storage.shards.embedding import EmbeddingShard
from ssondo.students.checkpoint import load_student
from ssondo.students.student import build_student

pytestmark = pytest.mark.usefixtures("one_thread")


def labelled(corpus, out, weight):
    return arguments(
        corpus,
        out,
        student={**STUDENT, "dropout": 0.0},
        segments=[corpus / "one.csv", corpus / "two.csv"],
        classes=corpus / "classes.csv",
        prediction_weight=weight,
    )


def test_prediction_weight_weighs_the_losses_on_labels_and_embeddings(corpus, tmp_path):
    losses, rows = {}, {}
    for weight in (1e-9, 0.25, 1.0):
        run("distill", **labelled(corpus, tmp_path / str(weight), weight) | {"epochs": 1, "samples_per_epoch": 8})
        rows[weight] = history(tmp_path / str(weight))[0]
        losses[weight] = float(rows[weight]["loss"])
    assert losses[0.25] == pytest.approx(0.25 * losses[1.0] + 0.75 * losses[1e-9], rel=1e-4)
    # The history has the components without their weights.
    assert float(rows[0.25]["loss_prediction"]) == pytest.approx(losses[1.0], rel=1e-4)
    assert float(rows[0.25]["loss_distillation"]) == pytest.approx(losses[1e-9], rel=1e-4)
    assert "loss_distillation" not in rows[1.0]
    # The logits of an untrained student are near 0, a probability of one half for each class.
    assert losses[1.0] == pytest.approx(np.log(2), abs=0.05)
    student = load_student(tmp_path / "0.25" / "student.ckpt")
    assert student.settings["n_outputs"] == DIM + DIM
    assert student.provenance["prediction_weight"] == 0.25


@pytest.mark.slow
def test_student_learns_from_teacher_and_labels_together(corpus, tmp_path):
    run("distill", **labelled(corpus, tmp_path, 0.5) | {"epochs": 25, "center": True, "bn_update_batches": 10})
    # Five seeds give a cosine of 0.94 to 0.98 and the right class of each clip; by chance it is one clip in six.
    assert float(history(tmp_path)[-1]["eval_cosine"]) > 0.7
    student = load_student(tmp_path / "student.ckpt")
    clips = AudioDataset([corpus / "eval.audio.h5"])
    sound = torch.from_numpy(clips.read(np.arange(20))).float() / 32768
    with torch.no_grad():
        logits = student(student.log_mel(sound))[:, DIM:]
    mids = [row["labels"] for row in csv.DictReader((corpus / "eval.csv").open())]
    truth = torch.tensor([int(mid.removeprefix("/m/")) for mid in mids])
    assert (logits.argmax(1) == truth).double().mean() > 0.7


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"classes": None}, "prediction_weight is 0.5, which needs labels; add --segments and --classes"),
        ({"prediction_weight": 1.5}, "prediction_weight is 1.5; it must be from 0 to 1"),
        ({"segments": ["one.csv"]}, "24 training clips are in no segment list"),
    ],
)
def test_unusable_labels_are_refused(corpus, tmp_path, changes, text):
    if "segments" in changes:
        changes = {"segments": [corpus / name for name in changes["segments"]]}
    with pytest.raises(SsondoError, match=text):
        run("distill", **labelled(corpus, tmp_path, 0.5) | changes)


@pytest.mark.slow
def test_student_learns_from_the_teacher(corpus, tmp_path):
    run("distill", **arguments(corpus, tmp_path, epochs=25, center=True, bn_update_batches=10))
    rows = history(tmp_path)
    assert float(rows[-1]["loss"]) < 0.5 * float(rows[0]["loss"])
    # Another seed changes the training more than the rounding of another processor: five seeds give 0.94 to 0.98.
    assert float(rows[-1]["eval_cosine"]) > 0.7
    assert abs(float(rows[-1]["constant_cosine"])) < 0.3


def test_training_starts_from_the_untrained_student_of_the_same_seed(tmp_path):
    initialise(student=STUDENT, seed=3, out=tmp_path / "floor.ckpt")
    floor = load_student(tmp_path / "floor.ckpt").model.state_dict()
    start = build_student(STUDENT, n_outputs=DIM, seed=3).model.state_dict()
    other = build_student(STUDENT, n_outputs=DIM, seed=4).model.state_dict()
    assert all(torch.equal(floor[key], start[key]) for key in floor)
    assert not torch.equal(floor["features.0.0.weight"], other["features.0.0.weight"])


def test_clips_of_another_sample_rate_are_refused_by_distill_and_initialise(corpus, tmp_path):
    with AudioShardWriter(tmp_path / "slow.audio.h5", sample_rate=16000, settings={}) as sound:
        sound.add("one000", encode_flac(np.zeros(4096, dtype=np.float32), 16000), duration_s=0.256)
    message = "the clips have 16000 Hz and the student takes 32000; make them with audioset.sample_rate: 32000$"
    audio = [tmp_path / "slow.audio.h5"]
    with pytest.raises(SsondoError, match=message):
        run("distill", **arguments(corpus, tmp_path, audio=audio, n_clusters=0))
    with pytest.raises(SsondoError, match=message):
        initialise(student=STUDENT, seed=3, out=tmp_path / "floor.ckpt", audio=audio, bn_update_batches=1)
    assert not (tmp_path / "floor.ckpt").exists()


def test_training_starts_from_pretrained_weights(corpus, tmp_path):
    pretrained = build_student(STUDENT, n_outputs=DIM, seed=77).model.state_dict()
    torch.save({**pretrained, "classifier.0.weight": torch.zeros(2, 2)}, tmp_path / "init.pt")
    run("distill", **arguments(corpus, tmp_path, pretrained=tmp_path / "init.pt", learning_rate=1e-9))
    found = load_student(tmp_path / "student.ckpt").model.state_dict()["features.0.0.weight"]
    torch.testing.assert_close(found, pretrained["features.0.0.weight"], atol=1e-6, rtol=0)


def test_center_is_the_mean_over_training_clips_with_audio_and_embedding_and_is_saved(corpus, tmp_path):
    only_first = {"audio": [corpus / "one.audio.h5"], "center": True}
    run("distill", **arguments(corpus, tmp_path, **only_first))
    with EmbeddingShard(corpus / "one.embeddings.h5") as shard:
        expected = shard.rows().astype(np.float64).mean(axis=0)
    found = load_student(tmp_path / "student.ckpt").provenance["center"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_constant_cosine_is_the_cosine_with_the_mean_direction_of_training_embeddings(corpus, tmp_path):
    run("distill", **arguments(corpus, tmp_path))

    def unit(name):
        with EmbeddingShard(corpus / f"{name}.embeddings.h5") as shard:
            rows = shard.rows().astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    constant = np.concatenate([unit("one"), unit("two")]).mean(axis=0)
    expected = (unit("eval") @ constant / np.linalg.norm(constant)).mean()
    assert float(history(tmp_path)[0]["constant_cosine"]) == pytest.approx(expected, rel=1e-5)
    assert expected > 0.9  # the toy teacher is not centred, as YAMNet is not


def test_nearest_neighbour_agreement_by_hand():
    # Directions between 0 and 90 degrees; the teacher's neighbours are 1, 0, 3, 2.
    def directions(*degrees):
        angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float32))
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    teacher = directions(0, 10, 50, 65)
    assert nearest_neighbour_agreement(5 * teacher, teacher) == 1.0
    # Student's neighbours: 0 -> 2, 1 -> 3, 2 -> 0, 3 -> 1.
    assert nearest_neighbour_agreement(directions(0, 50, 10, 65), teacher) == 0.0
    # Student's neighbours: 0 -> 1, 1 -> 0, 2 -> 1, 3 -> 2.
    assert nearest_neighbour_agreement(directions(0, 10, 22, 80), teacher) == 0.75


@pytest.mark.parametrize("loss", ["contrastive_neg_clusters", "hybrid", "kl"])
def test_other_losses_train(corpus, tmp_path, loss):
    run("distill", **arguments(corpus, tmp_path, epochs=1, loss=loss, temperature=0.5, mixup_alpha=0.3))
    assert np.isfinite(float(history(tmp_path)[0]["loss"]))


def test_last_log_message_summarises_the_training(corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run("distill", **arguments(corpus, tmp_path))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == (
        "48 training clips have sound and an embedding; 0 with sound have no embedding, "
        "0 with an embedding have no sound, 2 are listed without sound"
    )
    assert lines[-1].startswith("distill toy -> mobilenetv3: cosine, k=3, seed 0, 8 steps, eval cosine ")
    assert lines[-1].endswith(f"-> {tmp_path / 'student.ckpt'}")


def test_clips_without_an_embedding_are_counted_and_not_used(corpus, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run("distill", **arguments(corpus, tmp_path, embeddings=[corpus / "one.embeddings.h5"]))
    assert "24 training clips have sound and an embedding; 24 with sound have no embedding, 0 with" in caplog.text


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"clusters": None}, "n_clusters is 3, but there is no file of clusters; add --clusters, or set it to 0"),
        ({"n_clusters": 5}, "has 3 clusters, but n_clusters is 5"),
        ({"loss_options": {"temprature": 2}}, "loss 'cosine' has no option 'temprature'; it has no options"),
        ({"loss": "kl", "loss_options": {"scale": 2}}, "'kl' has no option 'scale'; its options are temperature"),
        ({"loss": "cosin"}, r"loss 'cosin' does not exist; .* \(did you mean 'cosine'\?\)"),
        ({"schedule": "cosine"}, "schedule 'cosine' does not exist; choose one of published, linear, constant"),
        ({"loss": "hybrid", "n_clusters": 0}, "loss 'hybrid' needs clusters; set n_clusters above 0"),
        ({"sampling": "balanced"}, "sampling is 'balanced'; it must be one of clusters, uniform"),
        ({"precision": "half"}, "precision 'half' is unknown; use one of auto, float32, bf16, fp16"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
        ({"student": {"window_s": 1.0}}, "student requires the option 'architecture'"),
        ({"student": STUDENT | {"widht_mult": 1.0}}, "has no option 'widht_mult'; its options are width_mult, strides"),
        ({"student": STUDENT | {"front_end": {"sample_rate": 44100}}}, "have 32000 Hz and the student takes 44100"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_invalid_setting_is_refused_with_a_hint(corpus, tmp_path, change, text):
    with pytest.raises(SsondoError, match=text):
        run("distill", **arguments(corpus, tmp_path, **change))


def test_embeddings_of_other_clips_are_refused(corpus, tmp_path):
    swapped = {"embeddings": [corpus / "eval.embeddings.h5"]}
    with pytest.raises(SsondoError, match="0 training clips have sound and an embedding; 48 with sound have no"):
        run("distill", **arguments(corpus, tmp_path, **swapped))


def test_training_clip_without_a_cluster_is_named(corpus, tmp_path):
    with ClusterWriter(tmp_path / "old.h5", settings={}) as clusters:
        clusters.add(["one000"], np.zeros(1))
        clusters.add_centroids(np.zeros((3, DIM)))
    with pytest.raises(SsondoError, match=r"old\.h5: 47 training clips have no cluster \(the first is one001\)"):
        run("distill", **arguments(corpus, tmp_path, clusters=tmp_path / "old.h5"))
