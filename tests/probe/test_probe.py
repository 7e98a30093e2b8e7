"""Probes: which clips the selection reads, what it selects, and that equal runs write equal files."""

import json
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ssondo.config.probe import Probe
from ssondo.errors import SsondoError
from ssondo.probe.batched_probes import AdamW, Head
from ssondo.probe.confidence import ci95
from ssondo.probe.eval_splits import fold_splits, official_split
from ssondo.probe.grid_search import EarlyStopping, GridPoint, LabelledEmbeddings, TrainValid, select
from ssondo.probe.probe import probe
from ssondo.probe.scoring import score
from ssondo.provenance import code_hash
from ssondo.storage.atomic_files import clip_list_digest
from ssondo.storage.shards.embedding import EmbeddingShardWriter

MODEL = {
    "row_kind": "distilled",
    "teacher": "yamnet",
    "student": "mobilenetv3",
    "loss": "cosine",
    "n_clusters": 50,
    "seed": 0,
}


def clips_of(n, n_classes=4, dim=12, noise=1.0, seed=0):
    """Return one Gaussian cloud per class: embeddings (n, dim) and labels (n, n_classes)."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, n_classes, n)
    centres = np.random.default_rng(99).normal(size=(n_classes, dim))
    embeddings = (centres[classes] + noise * rng.normal(size=(n, dim))).astype("f4")
    return embeddings, np.eye(n_classes, dtype="i1")[classes]


def write_task(path, embeddings, labels, *, metric="accuracy", split=None, fold=None):
    settings = {
        "task": "toy",
        "metric": metric,
        "classes": [f"class {i}" for i in range(labels.shape[1])],
        "split_kind": "split" if fold is None else "fold",
        "parameters": 1234,
        "n_missing": 2,
        "training_clip_list_sha256": "feed",
    }
    with EmbeddingShardWriter(
        path, embedding_dim=embeddings.shape[1], settings=settings, checkpoint_sha256="c0ffee", dtype="float32"
    ) as shard:
        shard.add([f"clip-{i:04d}" for i in range(len(embeddings))], embeddings)
        shard.add_extra("labels", labels)
        if fold is None:
            shard.add_extra("split", split)
        else:
            shard.add_extra("fold", np.asarray(fold, dtype="i2"))
    return path


def run(embeddings, out, **changes):
    settings = {
        "model": MODEL,
        "head": "linear",
        "hidden": 0,
        "learning_rates": [1e-3, 3e-2],
        "weight_decays": [0.0, 0.1],
        "batch_sizes": [32],
        "steps": 200,
        "patience": 60,
        "validate_every": 10,
        "seeds": [0, 1, 2],
        "protocol": "standard",
        "device": "cpu",
    } | changes
    probe(embeddings=embeddings, out=out, **settings)
    return json.loads(out.read_text())


def thirds(n):
    return np.array([b"train", b"train", b"train", b"valid", b"test"], dtype="S5")[np.arange(n) % 5]


@pytest.fixture
def split_task(tmp_path):
    embeddings, labels = clips_of(250)
    return write_task(tmp_path / "task.h5", embeddings, labels, split=thirds(250))


def test_adamw_equals_that_of_torch_for_every_grid_point():
    learning_rates, weight_decays = [1e-2, 3e-3, 0.1], [0.0, 0.1, 0.5]
    start = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    ours = AdamW([start.clone()], learning_rates, weight_decays)
    theirs = [start[:, :, g].clone().requires_grad_() for g in range(3)]
    optimisers = [
        torch.optim.AdamW([weight], lr=rate, weight_decay=decay)
        for weight, rate, decay in zip(theirs, learning_rates, weight_decays, strict=True)
    ]
    for step in range(5):
        gradient = torch.randn(start.shape, generator=torch.Generator().manual_seed(step + 1))
        ours.step([gradient])
        for g, (weight, optimiser) in enumerate(zip(theirs, optimisers, strict=True)):
            weight.grad = gradient[:, :, g].clone()
            optimiser.step()
    torch.testing.assert_close(ours.weights[0], torch.stack([w.detach() for w in theirs], dim=2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("hidden", [0, 16])
def test_batched_probes_learn_the_same_as_single_probes(hidden):
    embeddings, labels = map(torch.from_numpy, clips_of(200))
    rows = torch.arange(200).expand(2, -1)
    data = TrainValid(LabelledEmbeddings(embeddings, labels), rows[:, :150], rows[:, 150:])
    grid = [GridPoint(rate, decay, size) for size in (16, 50) for rate in (1e-3, 1e-2) for decay in (0.0, 0.1)]

    def alone(point, seed):
        one = TrainValid(data.clips, data.train_rows[:1], data.valid_rows[:1])
        return select(
            one, metric="accuracy", head=Head(hidden), grid=[point], schedule=EarlyStopping(60, 20, 10), seeds=[seed]
        )

    together = select(
        data, metric="accuracy", head=Head(hidden), grid=grid, schedule=EarlyStopping(60, 20, 10), seeds=[7, 8]
    )
    for s, seed in enumerate([7, 8]):
        best = max(float(alone(point, seed).valid_scores[0]) for point in grid)
        assert float(together.valid_scores[s]) == pytest.approx(best)
        mine = alone(together.chosen[s], seed)
        assert mine.steps[0] == together.steps[s]
        for layer, expected in zip(together.weights, mine.weights, strict=True):
            torch.testing.assert_close(layer[s : s + 1], expected, rtol=1e-3, atol=1e-5)


def digits():
    """Return 8 x 8 images of ten digits, their labels, and the ends of the training and of the validation clips."""
    images = load_digits()
    return images.data.astype("f4"), np.eye(10, dtype="i1")[images.target], 900, 1200


def few_clips_of_many_classes():
    """Return a dozen training clips per class and more dimensions than clips, as in the folds of ESC-50."""
    embeddings, labels = clips_of(1500, n_classes=15, dim=256, noise=4.0)
    return embeddings, labels, 200, 300


def logistic_regression(embeddings, classes, train, valid, test):
    """Return the test accuracy of scikit-learn's logistic regression with the C that is best on validation clips."""
    inputs = StandardScaler().fit(embeddings[train]).transform(embeddings)
    fits = [LogisticRegression(C=c, max_iter=500).fit(inputs[train], classes[train]) for c in np.logspace(-5, 1, 7)]
    best = max(fits, key=lambda fit: fit.score(inputs[valid], classes[valid]))
    return best.score(inputs[test], classes[test])


def default_probe(embeddings, labels, train, valid, test, seeds):
    """Return the mean test accuracy of a probe with the default settings."""
    defaults = Probe()
    development = np.concatenate([train, valid])
    rows = torch.arange(len(development)).expand(len(seeds), -1)
    fitted = select(
        TrainValid(
            LabelledEmbeddings(torch.from_numpy(embeddings[development]), torch.from_numpy(labels[development])),
            rows[:, : len(train)],
            rows[:, len(train) :],
        ),
        metric="accuracy",
        head=Head(0),
        grid=[
            GridPoint(*point)
            for point in product(defaults.learning_rates, defaults.weight_decays, defaults.batch_sizes)
        ],
        schedule=EarlyStopping(defaults.steps, defaults.patience, defaults.validate_every),
        seeds=seeds,
    )
    scored = LabelledEmbeddings(torch.from_numpy(embeddings[test]), torch.from_numpy(labels[test]))
    return score(fitted, scored, metric="accuracy").mean().item()


# The weights grow ninefold in each step.
DIVERGES = GridPoint(learning_rate=1.0, weight_decay=10.0, batch_size=32)


def sorted_noise(n=120):
    """Return random embeddings sorted by their two classes, so that scores in the order of the clips look good."""
    embeddings = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.eye(2, dtype=torch.int8).repeat_interleave(n // 2, dim=0)
    rows = torch.arange(n)
    return TrainValid(LabelledEmbeddings(embeddings, labels), rows[None, ::2], rows[None, 1::2])


@pytest.mark.parametrize("metric", ["accuracy", "map"])
def test_diverged_probe_is_never_selected(metric):
    grid = [DIVERGES, GridPoint(1e-9, 0.0, 32)]
    # At the first validation the weights are no longer finite.
    schedule = EarlyStopping(steps=400, patience=400, validate_every=100)
    fitted = select(sorted_noise(), metric=metric, head=Head(0), grid=grid, schedule=schedule, seeds=[0])
    assert fitted.chosen == grid[1:]
    assert all(weight.isfinite().all() for weight in fitted.weights)
    with pytest.raises(SsondoError, match=r"^probe: the probe diverged at every point of the grid; lower probe\.learn"):
        select(sorted_noise(), metric=metric, head=Head(0), grid=grid[:1], schedule=schedule, seeds=[0])


@pytest.mark.slow
@pytest.mark.parametrize("problem", [digits, few_clips_of_many_classes])
def test_default_probe_is_within_a_point_of_tuned_logistic_regression(problem):
    embeddings, labels, n_train, n_development = problem()
    ours, theirs = [], []
    # With a single draw, the sampling error of the test clips is about one point.
    for draw in (0, 1):
        order = np.random.default_rng(draw).permutation(len(labels))
        splits = np.split(order, [n_train, n_development])
        ours.append(default_probe(embeddings, labels, *splits, seeds=[0, 1]))
        theirs.append(logistic_regression(embeddings, labels.argmax(1), *splits))
    assert 0.6 < np.mean(theirs) < 0.99  # The problem is neither too hard nor too easy.
    assert np.mean(ours) > np.mean(theirs) - 0.01


_SELECTION_WITHOUT_TEST_CLIPS = """
import json, sys
import numpy as np, torch
from ssondo.probe.batched_probes import Head
from ssondo.probe.grid_search import EarlyStopping, GridPoint, LabelledEmbeddings, TrainValid, select
arrays = np.load(sys.argv[1])  # This process has no other data.
data = TrainValid(
    LabelledEmbeddings(torch.from_numpy(arrays["embeddings"]), torch.from_numpy(arrays["labels"])),
    torch.from_numpy(arrays["train_rows"]),
    torch.from_numpy(arrays["valid_rows"]),
)
grid = [GridPoint(rate, decay, 32) for rate in (1e-3, 3e-2) for decay in (0.0, 0.1)]
fitted = select(
    data, metric="accuracy", head=Head(0), grid=grid, schedule=EarlyStopping(200, 60, 10), seeds=[0, 1, 2]
)
print(json.dumps([[[p.learning_rate, p.weight_decay] for p in fitted.chosen], fitted.steps,
    fitted.valid_scores.tolist()]))
"""


@pytest.mark.parametrize("kind", ["split", "fold"])
def test_selection_without_test_labels_is_the_same(tmp_path, kind):
    embeddings, labels = clips_of(250, noise=2.0)
    fold = np.arange(250) % 5 + 1
    extras = {"fold": fold} if kind == "fold" else {"split": thirds(250)}
    whole = run(write_task(tmp_path / "task.h5", embeddings, labels, **extras), tmp_path / "score.json")
    split = fold_splits(fold, 3)[0] if kind == "fold" else official_split(thirds(250), labels, [0, 1, 2])
    np.savez(
        tmp_path / "arrays.npz",
        embeddings=embeddings[split.development_rows],
        labels=labels[split.development_rows],
        train_rows=split.train_rows,
        valid_rows=split.valid_rows,
    )
    command = [sys.executable, "-c", _SELECTION_WITHOUT_TEST_CLIPS, str(tmp_path / "arrays.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    chosen, steps, valid_scores = json.loads(done.stdout)
    expected = whole["splits"][0]
    assert [[point["learning_rate"], point["weight_decay"]] for point in expected["chosen"]] == chosen
    assert [point["step"] for point in expected["chosen"]] == steps
    assert expected["valid_scores"] == valid_scores


@pytest.mark.parametrize("kind", ["split", "fold"])
def test_test_labels_do_not_affect_the_selection(tmp_path, kind):
    embeddings, labels = clips_of(250, noise=2.0)
    wrong_labels = labels.copy()
    fold = np.arange(250) % 5 + 1
    # In a task with folds, every clip is a test clip once, so only the split of the first fold is compared.
    is_test = fold == 1 if kind == "fold" else thirds(250) == b"test"
    wrong_labels[is_test] = np.roll(labels[is_test], 1, axis=1)
    extras = {"fold": fold} if kind == "fold" else {"split": thirds(250)}
    right = run(write_task(tmp_path / "a.h5", embeddings, labels, **extras), tmp_path / "a.json")["splits"][0]
    wrong = run(write_task(tmp_path / "b.h5", embeddings, wrong_labels, **extras), tmp_path / "b.json")["splits"][0]
    assert right["chosen"] == wrong["chosen"]
    assert right["valid_scores"] == wrong["valid_scores"]
    assert np.mean(right["scores"]) > np.mean(wrong["scores"]) + 0.2


def test_test_clips_do_not_affect_the_standardisation(tmp_path):
    embeddings, labels = clips_of(250)
    moved = embeddings.copy()
    moved[thirds(250) == b"test"] += 1000.0
    original = run(write_task(tmp_path / "a.h5", embeddings, labels, split=thirds(250)), tmp_path / "a.json")
    shifted = run(write_task(tmp_path / "b.h5", moved, labels, split=thirds(250)), tmp_path / "b.json")
    assert original["splits"][0]["chosen"] == shifted["splits"][0]["chosen"]
    assert original["splits"][0]["valid_scores"] == shifted["splits"][0]["valid_scores"]


def test_every_fold_is_the_test_set_once_and_disjoint_from_training_and_validation():
    folds = np.repeat([1, 2, 3, 4], 5)
    splits = fold_splits(folds, n_seeds=2)
    assert sorted(np.concatenate([split.test_rows for split in splits])) == list(range(20))
    for i, split in enumerate(splits):
        train = folds[split.development_rows[split.train_rows[0]]]
        valid = folds[split.development_rows[split.valid_rows[0]]]
        assert set(folds[split.test_rows]) == {i + 1}
        assert set(valid) == {(i + 1) % 4 + 1}
        assert set(train) == {1, 2, 3, 4} - {i + 1, (i + 1) % 4 + 1}


def test_two_folds_fail():
    with pytest.raises(SsondoError, match="at least 3"):
        fold_splits(np.array([1, 1, 2, 2]), n_seeds=1)


def test_each_seed_draws_a_stratified_validation_split_if_there_is_none():
    names = np.array([b"train"] * 200 + [b"test"] * 50)
    classes = np.arange(200) % 4
    split = official_split(names, classes, seeds=[0, 1])
    assert split.train_rows.shape == (2, 170)
    assert split.valid_rows.shape == (2, 30)
    assert not np.array_equal(split.valid_rows[0], split.valid_rows[1])
    for train, valid in zip(split.train_rows, split.valid_rows, strict=True):
        assert sorted([*train, *valid]) == list(range(200))
        assert np.bincount(classes[valid]).tolist() in [[7, 8, 7, 8], [7, 7, 8, 8], [7, 8, 8, 7], [8, 7, 8, 7]]


def test_score_file_states_its_provenance(split_task, tmp_path):
    result = run(split_task, tmp_path / "score.json")
    assert result["n_runs"] == 3
    assert result["mean"] == pytest.approx(np.mean(result["scores"]))
    assert result["ci95"] == pytest.approx(1.96 * np.std(result["scores"], ddof=1) / 3**0.5)
    assert (result["n_train"], result["n_valid"], result["n_test"], result["n_missing"]) == (150, 50, 50, 2)
    assert result["clip_list_sha256"] == clip_list_digest(f"clip-{i:04d}" for i in range(250))
    assert result["training_clip_list_sha256"] == "feed"
    assert result["checkpoint_sha256"] == "c0ffee"
    assert result["model"] == MODEL
    assert result["parameters"] == 1234
    assert result["options"]["learning_rates"] == [1e-3, 3e-2]
    assert result["embeddings_digest"] == (tmp_path / "task.h5.digest").read_text().strip()
    assert not result["optimistic"]


def test_score_file_has_the_first_hash_of_equivalent_code(split_task, tmp_path, monkeypatch):
    own = code_hash("ssondo.probe.probe")
    assert run(split_task, tmp_path / "score.json", steps=10, patience=10)["code"] == own
    table = tmp_path / "equivalent_code.json"
    table.write_text(json.dumps({"probe": [["0123456789abcdef", own]]}))
    monkeypatch.setattr("ssondo.provenance.EQUIVALENT_CODE", table)
    assert run(split_task, tmp_path / "score.json", steps=10, patience=10)["code"] == "0123456789abcdef"


def test_ci95_equals_the_hand_calculation():
    # Standard deviation of 1, 2, 3 is 1; three runs.
    assert ci95([1.0, 2.0, 3.0]) == pytest.approx(1.96 / 3**0.5)
    assert ci95([0.5]) is None


def test_equal_runs_write_equal_bytes(split_task, tmp_path):
    run(split_task, tmp_path / "a.json", bootstrap=20)
    run(split_task, tmp_path / "b.json", bootstrap=20)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_score_of_a_seed_does_not_depend_on_the_other_seeds(split_task, tmp_path):
    several = run(split_task, tmp_path / "a.json", seeds=[3, 4, 5])
    alone = run(split_task, tmp_path / "b.json", seeds=[4])
    assert alone["scores"][0] == pytest.approx(several["scores"][1], abs=0.021)  # One clip of 50.
    assert alone["ci95"] is None


def noise_task(folder):
    """Write a task with random labels: the standard protocol scores at chance level, the best epoch above it."""
    rng = np.random.default_rng(0)
    labels = np.eye(4, dtype="i1")[rng.integers(0, 4, 250)]
    return write_task(folder / "task.h5", rng.normal(size=(250, 12)).astype("f4"), labels, split=thirds(250))


def test_published_notebook_protocol_reports_the_best_test_score_as_optimistic(tmp_path):
    task = noise_task(tmp_path)
    standard = run(task, tmp_path / "a.json")
    leaking = run(task, tmp_path / "b.json", protocol="published_notebook")
    assert leaking["optimistic"]
    assert leaking["mean"] > standard["mean"] + 0.05
    assert leaking["n_train"] == 200
    assert leaking["splits"][0]["valid_scores"] == pytest.approx(leaking["scores"], abs=0.021)


@pytest.mark.slow
def test_published_notebook_protocol_trains_as_the_notebook_does(tmp_path):
    """The notebook trains torch.nn.Linear on raw embeddings with Adam (1e-3, batches of 64) for 1,000 epochs."""
    embeddings, labels = clips_of(250, noise=2.0)
    task = write_task(tmp_path / "task.h5", 3 * embeddings + 1, labels, split=thirds(250))
    leaking = run(task, tmp_path / "b.json", protocol="published_notebook", seeds=[0, 1])
    test = thirds(250) == b"test"
    inputs, classes = torch.from_numpy(3 * embeddings + 1), torch.from_numpy(labels.argmax(1))
    bests = []
    for seed in range(2):
        torch.manual_seed(seed)
        layer = torch.nn.Linear(12, 4)
        optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3)
        best = 0.0
        for _ in range(1000):
            for rows in torch.randperm(200).split(64):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(layer(inputs[~test][rows]), classes[~test][rows]).backward()
                optimiser.step()
            with torch.no_grad():
                is_correct = layer(inputs[test]).argmax(1) == classes[test]
            best = max(best, float(is_correct.float().mean()))
        bests.append(best)
    assert leaking["mean"] == pytest.approx(np.mean(bests), abs=0.03)
    assert leaking["options"]["epochs"] == 1000
    assert leaking["splits"][0]["chosen"][0]["batch_size"] == 64


def test_multi_label_tasks_with_a_mask_learn_from_known_labels_only(tmp_path):
    embeddings, labels = clips_of(400, noise=0.5)
    # Half of the labels are unknown; a probe that treated -1 as a label would learn noise.
    masked = np.where(np.random.default_rng(1).random(labels.shape) < 0.5, -1, labels).astype("i1")
    task = write_task(tmp_path / "task.h5", embeddings, masked, metric="masked_map", split=thirds(400))
    for head, hidden in (("linear", 0), ("mlp", 32)):
        assert run(task, tmp_path / "score.json", head=head, hidden=hidden)["mean"] > 0.95


def test_classes_without_a_positive_test_clip_are_named(tmp_path):
    embeddings, labels = clips_of(250)
    labels[(thirds(250) == b"test")[:, None] & (np.arange(4) == 2)] = 0
    task = write_task(tmp_path / "task.h5", embeddings, labels, metric="map", split=thirds(250))
    assert run(task, tmp_path / "score.json")["classes_without_positive"] == ["class 2"]


def test_constant_dimension_does_not_lower_the_score(tmp_path):
    embeddings, labels = clips_of(250, noise=0.5)
    embeddings[:, 3] = 7.1
    task = write_task(tmp_path / "task.h5", embeddings, labels, split=thirds(250))
    assert run(task, tmp_path / "score.json")["mean"] > 0.9


def test_bootstrap_interval_contains_the_score_and_narrows_with_more_test_clips(tmp_path):
    widths = []
    for n in (100, 1000):
        embeddings, labels = clips_of(n, noise=2.0)
        task = write_task(tmp_path / f"{n}.h5", embeddings, labels, split=thirds(n))
        result = run(task, tmp_path / "score.json", bootstrap=100, steps=50)
        low, high = result["bootstrap_ci95"]
        assert low <= result["mean"] <= high
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_bootstrap_draws_the_folds_independently(tmp_path):
    # The same half of each fold has wrong labels. If all folds used the same draw, the interval would be as wide as
    # that of a single fold: sqrt(5) times too wide.
    embeddings, labels = clips_of(400, noise=0.1)
    labels = np.where(np.arange(400)[:, None] % 80 < 40, labels, np.roll(labels, 1, axis=0))
    task = write_task(tmp_path / "task.h5", embeddings, labels, fold=np.repeat(np.arange(5), 80))
    result = run(task, tmp_path / "score.json", bootstrap=400, seeds=[0], steps=50)
    low, high = result["bootstrap_ci95"]
    # The width of the 95 % interval of a proportion of 400 independent clips.
    expected = 2 * 1.96 * (result["mean"] * (1 - result["mean"]) / 400) ** 0.5
    assert 0.8 * expected < high - low < 1.2 * expected


@pytest.mark.parametrize(
    "schedule", [EarlyStopping(steps=200, patience=5, validate_every=50), EarlyStopping(30, 5, 50)]
)
def test_first_validation_counts_however_short_the_patience(schedule):
    embeddings, labels = clips_of(300, noise=0.1)
    rows = torch.arange(300)[None]
    clips = LabelledEmbeddings(torch.from_numpy(embeddings), torch.from_numpy(labels))
    fitted = select(
        TrainValid(clips, rows[:, :200], rows[:, 200:]),
        metric="accuracy",
        head=Head(0),
        grid=[GridPoint(0.03, 0.0, 32)],
        schedule=schedule,
        seeds=[0],
    )
    assert fitted.steps == [min(schedule.validate_every, schedule.steps)]
    assert fitted.valid_scores[0] > 0.9


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": {**MODEL, "row_kind": "pupil"}}, "row_kind.*teacher, distilled, supervised, untrained"),
        ({"head": "svm"}, "linear, mlp"),
        ({"head": "mlp", "hidden": 0}, "width"),
        ({"learning_rates": []}, "learning_rates"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"protocol": "best"}, "standard, published_notebook"),
        ({"patience": 9}, r"patience is 9, below validate_every \(10\).*raise patience or lower validate_every$"),
    ],
)
def test_message_for_an_invalid_setting_names_it(split_task, tmp_path, changes, says):
    with pytest.raises(SsondoError, match=says):
        run(split_task, tmp_path / "score.json", **changes)
    assert not (tmp_path / "score.json").exists()


def test_a_task_without_test_clips_is_an_error_that_names_the_file(tmp_path):
    embeddings, labels = clips_of(100)
    split = np.where(thirds(100) == b"test", b"train", thirds(100))
    task = write_task(tmp_path / "task.h5", embeddings, labels, split=split)
    with pytest.raises(SsondoError, match=r"task\.h5.*no test clip"):
        run(task, tmp_path / "score.json")


def test_embeddings_that_are_not_of_a_task_fail(tmp_path):
    with EmbeddingShardWriter(tmp_path / "e.h5", embedding_dim=2, settings={}, checkpoint_sha256="") as shard:
        shard.add(["a"], np.zeros((1, 2)))
    with pytest.raises(SsondoError, match="embed_task"):
        run(tmp_path / "e.h5", tmp_path / "score.json")
