"""Division of the clips of a task into training, validation and test clips."""

from dataclasses import dataclass

import numpy as np

from ssondo.errors import SsondoError

# Fraction of the training clips that validate where a task has no validation split.
VALID_FRACTION = 0.15


@dataclass(frozen=True)
class EvalSplit:
    """Clips that train, validate and test; a task with folds has one such split per fold, other tasks have one.

    Attributes:
        name: "test", or the fold that is the test set, e.g. "fold 1".
        development_rows: Rows of the training and validation clips in the task, shape (n,).
        train_rows: Rows of the training clips in the development clips, shape (n_seeds, n_train).
        valid_rows: Rows of the validation clips in the development clips, shape (n_seeds, n_valid).
        test_rows: Rows of the test clips in the task, shape (n_test,).

    Raises:
        SsondoError: If one of the three sets is empty.
    """

    name: str
    development_rows: np.ndarray
    train_rows: np.ndarray
    valid_rows: np.ndarray
    test_rows: np.ndarray

    def __post_init__(self) -> None:
        n_clips = {
            "training": self.train_rows.shape[1],
            "validation": self.valid_rows.shape[1],
            "test": len(self.test_rows),
        }
        for kind, n in n_clips.items():
            if not n:
                reason = "check the missing clips and splits of the task"
                raise SsondoError(f"{self.name}: there is no {kind} clip; {reason}")


def fold_splits(folds: np.ndarray, n_seeds: int) -> list[EvalSplit]:
    """Return one split per fold: the fold is the test set, the next fold validates, and the others train.

    Args:
        folds: Fold of each clip, shape (n_clips,).
        n_seeds: Number of seeds, which all use the same splits.

    Raises:
        SsondoError: If there are fewer than three folds.
    """
    names = np.unique(folds)
    if len(names) < 3:
        raise SsondoError(f"{len(names)} folds: at least 3 are needed, for training, validation and test")
    splits = []
    for i, test_fold in enumerate(names):
        development = np.flatnonzero(folds != test_fold)
        rows = _same_for_all(folds[development] == names[(i + 1) % len(names)], n_seeds)
        splits.append(EvalSplit(f"fold {test_fold}", development, *rows, np.flatnonzero(folds == test_fold)))
    return splits


def official_split(split: np.ndarray, classes: np.ndarray, seeds: list[int]) -> EvalSplit:
    """Return the official split of a task.

    If the task has no validation clips, each seed draws its own from the training clips, stratified by class.

    Args:
        split: Split of each clip, shape (n_clips,): b"train", b"valid" or b"test".
        classes: Class index of each clip that is not a test clip, in order; the draw is stratified by it.
        seeds: Seeds of the draws.
    """
    development = np.flatnonzero(split != b"test")
    test = np.flatnonzero(split == b"test")
    is_valid = split[development] == b"valid"
    if is_valid.any():
        return EvalSplit("test", development, *_same_for_all(is_valid, len(seeds)), test)
    draws = [_draw(classes, np.random.default_rng([seed, len(classes)])) for seed in seeds]
    return EvalSplit("test", development, np.stack([d[0] for d in draws]), np.stack([d[1] for d in draws]), test)


def _same_for_all(is_valid: np.ndarray, n_seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the training and validation rows of every seed, all with the same division."""
    return np.tile(np.flatnonzero(~is_valid), (n_seeds, 1)), np.tile(np.flatnonzero(is_valid), (n_seeds, 1))


def _draw(classes: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw training and validation rows; every class is represented, and the sizes are the same in every draw."""
    shuffled = generator.permutation(len(classes))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    position = np.arange(len(classes))
    is_valid = np.floor((position + 1) * VALID_FRACTION) > np.floor(position * VALID_FRACTION)
    return np.sort(by_class[~is_valid]), np.sort(by_class[is_valid])
