"""Which predictions to learn from: columns of an export -> the rows chosen, with labels, weights and parts.

    finite -> sure enough -> the surest of each class -> a cap -> train and validation

Pure functions on arrays. Where two rows are equally sure, the hash of the filename decides: neither the order of the
rows nor the machine does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]


class Predictions(NamedTuple):
    """One row an image: the columns that policies look at."""

    key: npt.NDArray[np.uint64]  # the hash of its filename
    label: npt.NDArray[np.integer[Any]]  # -1 where there is none
    confidence: Floats
    margin: Floats
    entropy: Floats  # in nats

    def of(self, rows: Rows | Mask) -> Predictions:
        """Some of the rows."""
        key, label, confidence, margin, entropy = (np.asarray(column)[rows] for column in self)
        return Predictions(key, label, confidence, margin, entropy)


@dataclass(frozen=True)
class Policy:
    """What is chosen; all of it together.

    Attributes:
        min_confidence: the least confidence; by class where the mapping has one, 0 for the others.
        adaptive: a confidence that is asked of the class learned best, and less of others (`adaptive_thresholds`).
        min_margin: the least difference between the two highest scores.
        max_entropy: the most entropy of the scores, in nats.
        per_class: the surest so many of each class.
        limit: the surest so many of all.
        balance: each class weighs as much as if it had `per_class`, or as many as the largest has.
        validation: the share of what is chosen that is for validation.
        seed: of that draw.
    """

    min_confidence: float | Mapping[int, float] = 0.0
    adaptive: float | None = None
    min_margin: float = 0.0
    max_entropy: float | None = None
    per_class: int | None = None
    limit: int | None = None
    balance: bool = False
    validation: float = 0.0
    seed: int = 0


class Choice(NamedTuple):
    """What was chosen, in the order of the rows: each row, its weight, and whether it is for validation."""

    rows: Rows
    weight: npt.NDArray[np.float32]
    validation: Mask


def choose(predictions: Predictions, policy: Policy, classes: int) -> Choice:
    """Apply a policy to predictions of so many classes."""
    rows = np.flatnonzero(is_sure(predictions, policy, classes))
    if policy.per_class is not None:
        rows = rows[surest_of_class(predictions.of(rows), policy.per_class)]
    if policy.limit is not None:
        rows = rows[surest(predictions.of(rows), policy.limit)]
    chosen = predictions.of(rows)
    weight = np.ones(len(rows), np.float32)
    if policy.balance:
        weight = balanced_weights(chosen.label, policy.per_class)
    return Choice(rows, weight, drawn(chosen.key, policy.validation, policy.seed))


# How sure.


def is_sure(predictions: Predictions, policy: Policy, classes: int) -> Mask:
    """Which predictions are numbers, have a label, and are as sure as is asked of each.

    D.-H. Lee, Pseudo-Label, ICML workshop 2013 (the class predicted becomes the label); Q. Xie et al., Noisy Student,
    CVPR 2020, section 3 (a least confidence); Y. Grandvalet, Y. Bengio, NIPS 2004 (entropy); T. Scheffer et al., IDA
    2001 (margin).
    """
    label, confidence = predictions.label, predictions.confidence
    sure = (label >= 0) & np.isfinite(confidence)
    least = thresholds(policy.min_confidence, classes)
    if policy.adaptive is not None:
        least = np.maximum(least, adaptive_thresholds(predictions.of(sure), policy.adaptive, classes))
    sure &= confidence >= least[np.where(sure, label, 0)]
    if policy.min_margin > 0:
        sure &= predictions.margin >= policy.min_margin  # which NaN is not
    if policy.max_entropy is not None:
        sure &= predictions.entropy <= policy.max_entropy
    return sure


def thresholds(least: float | Mapping[int, float], classes: int) -> npt.NDArray[np.float32]:
    """The least confidence of each class, as a confidence is kept: what shows as 0.7 is no less than 0.7."""
    if not isinstance(least, Mapping):
        return np.full(classes, least, np.float32)
    found = np.zeros(classes, np.float32)
    for label, value in least.items():
        found[label] = value
    return found


def adaptive_thresholds(predictions: Predictions, most: float, classes: int) -> npt.NDArray[np.float32]:
    """The confidence to ask of each class: less, the fewer predictions of it are as sure as `most`.

    B. Zhang et al., FlexMatch, NeurIPS 2021, equations 5, 7 and 11, with the convex mapping x / (2 - x): of a class
    that nothing is sure of, all predictions are taken.
    """
    learned = np.bincount(predictions.label[predictions.confidence >= np.float32(most)], minlength=classes)
    unused = len(predictions.label) - learned.sum()
    status = learned / max(learned.max(initial=0), unused, 1)
    return (most * status / (2 - status)).astype(np.float32)


# How many.


def surest_of_class(predictions: Predictions, count: int) -> Rows:
    """The `count` surest rows of each class, in order.

    Q. Xie et al., Noisy Student, CVPR 2020, section 3: balancing.
    """
    order = np.lexsort((predictions.key, -predictions.confidence, predictions.label))
    labels = predictions.label[order]
    rank = np.arange(len(order)) - np.searchsorted(labels, labels)
    return np.sort(order[rank < count])


def surest(predictions: Predictions, count: int) -> Rows:
    """The `count` surest rows of all, in order."""
    return np.sort(np.lexsort((predictions.key, -predictions.confidence))[:count])


def balanced_weights(labels: npt.NDArray[np.integer[Any]], count: int | None) -> npt.NDArray[np.float32]:
    """What each row weighs where every class is to weigh as much as `count` rows, or as the largest class has.

    Noisy Student repeats the images of small classes instead: see `repeated`.
    """
    if not len(labels):
        return np.empty(0, np.float32)
    counts = np.bincount(labels)
    return ((counts.max() if count is None else count) / counts[labels]).astype(np.float32)


def repeated(key: npt.NDArray[np.uint64], labels: npt.NDArray[np.integer[Any]], count: int, seed: int) -> Rows:
    """Rows of which each class has `count`: those of larger classes once, the others as often as it takes.

    Q. Xie et al., Noisy Student, CVPR 2020, section 3: images of classes that have too few are repeated at random.
    """
    order = np.lexsort((mixed(key, seed), labels))
    ordered = labels[order]
    starts, counts = np.unique(ordered, return_index=True, return_counts=True)[1:]
    places = [start + np.arange(max(count, size)) % size for start, size in zip(starts, counts, strict=True)]
    return order[np.concatenate([np.empty(0, np.int64), *places])]


# Draws.


def drawn(key: npt.NDArray[np.uint64], share: float, seed: int) -> Mask:
    """A share of the images, drawn by filename: the same ones whatever else there is."""
    return mixed(key, seed) < np.uint64(min(int(share * 2**64), 2**64 - 1)) if share > 0 else np.zeros(len(key), bool)


def mixed(key: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Keys as other numbers for each seed, as good as random: SplitMix64 (G. Steele et al., OOPSLA 2014)."""
    mixed = key + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


# Scores.


def of_scores(key: npt.NDArray[np.uint64], scores: Floats) -> Predictions:
    """What scores [N, C] say, as the columns of an index have it; no label where they are not all finite."""
    finite = np.all(np.isfinite(scores), axis=1)
    scores = np.where(finite[:, np.newaxis], scores, 0)
    label = scores.argmax(axis=1)
    rows = np.arange(len(scores))
    first = scores[rows, label].astype(np.float32)
    others = scores.copy()
    others[rows, label] = -np.inf
    margin = first - others.max(axis=1)
    logs = np.log(scores, out=np.zeros_like(scores), where=scores > 0)
    entropy = -np.einsum("nc,nc->n", scores, logs)
    values = [np.where(finite, column, np.nan) for column in (first, margin, entropy)]
    return Predictions(key, np.where(finite, label, -1), *values)


def mean(scores: Sequence[Floats]) -> npt.NDArray[np.float32]:
    """The mean of what several models say of the same images, [N, C] each."""
    return np.asarray(sum(several.astype(np.float64) for several in scores) / len(scores), np.float32)


def agreed(several: Sequence[Predictions]) -> Predictions:
    """What several models say alike of the same images, as sure as the least sure of them; no label elsewhere.

    A. Blum, T. Mitchell, Co-training, COLT 1998; Z.-H. Zhou, M. Li, Tri-training, TKDE 2005.
    """
    first = several[0]
    labels: npt.NDArray[np.int64] = np.stack([other.label for other in several])
    label = np.where((labels == first.label).all(axis=0), first.label, -1)
    confidence = np.min([other.confidence for other in several], axis=0)  # NaN if one is
    margin = np.min([other.margin for other in several], axis=0)
    entropy = np.max([other.entropy for other in several], axis=0)
    return Predictions(first.key, label, confidence, margin, entropy)


def sharpened(scores: Floats, temperature: float) -> npt.NDArray[np.float32]:
    """Scores [N, C] to the power of 1 / temperature, which add up to one again; below 1 they become surer.

    A score below 0 counts as 0; where all are, each class is as likely; NaN where they are not all finite.

    D. Berthelot et al., MixMatch, NeurIPS 2019, equation 7.
    """
    with np.errstate(all="ignore"):
        logs = np.log(np.maximum(scores, 0, dtype=np.float64))
        most = logs.max(axis=1, keepdims=True)
        powers = np.exp(np.where(np.isneginf(most), 0, logs - most) / temperature)
        return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
