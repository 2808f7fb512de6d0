"""The whole loop on real data: a teacher, its pseudo-labels, students that learn from them, and what that is worth."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip.errors import OutputExistsError, UsageError
from tfzip.export import export
from tfzip.mix import mix
from tfzip.read import Export

if TYPE_CHECKING:
    import tensorflow as tf

POLICIES: Mapping[str, Mapping[str, Any]] = {
    "--min-confidence 0.9": {"min_confidence": 0.9},
    "--per-class 90 --balance": {"per_class": 90, "balance": True},
}
"""What students learn from, as `tfzip select` has it."""

_LABELLED, _HELD_OUT = 50, 500
_UPDATES, _BATCH = 600, 32
_PSEUDO = 0.8
"""The share of pseudo-labels in what a student learns from."""

_MARK = "made-by-tfzip-demo.txt"


class Digits(NamedTuple):
    """Images [N, 8, 8, 1] of uint8 and their classes [N]."""

    images: npt.NDArray[np.uint8]
    classes: npt.NDArray[np.int64]

    def of(self, rows: Any) -> Digits:
        """Some of them."""
        return Digits(self.images[rows], self.classes[rows])


def run(folder: str, command: str, seeds: int = 3) -> str:
    """Go round the loop once a seed, below `folder`; return what to say at the end; `command` is how tfzip was called.

    The data are the 1,797 digits, 8 by 8 pixels, that scikit-learn ships (E. Alpaydin and C. Kaynak, Optical
    Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998). For each seed a teacher learns from 50 of
    them and labels 1,247 others; students, the same network trained with as many updates, learn from the 50 and from
    what each policy selects. The 500 left tell how good they all are.
    """
    digits = _digits()
    _claim(folder)
    print(f"{_LABELLED} labelled digits, {_HELD_OUT} held out, the others without labels; {seeds} seeds", flush=True)
    rows = []
    for seed in range(seeds):
        found = _round(digits, os.path.join(folder, str(seed)), seed)
        print(f"seed {seed}: teacher {found['teacher']:.1%}", end="", flush=True)
        print("".join(f", {name} {found[name]:.1%}" for name in POLICIES), flush=True)
        rows.append(found)
    out = os.path.join(folder, "0", "labelled")
    look = [
        f"  {command} inspect {out}",
        f"  {command} report {out}",
        f"  {command} select {out} --out {os.path.join(folder, 'chosen')} --min-confidence 0.9",
    ]
    return "\n".join(["", *_gains(rows), "", "Now look at one of the exports, and select from it:", *look])


def _gains(rounds: list[dict[str, float]]) -> list[str]:
    """What each policy's students are better by than their teachers, on held-out digits."""
    lines = ["held-out accuracy of the students minus that of their teachers, in points: mean, and each seed"]
    width = max(map(len, POLICIES))
    for name in POLICIES:
        gains = np.array([100 * (found[name] - found["teacher"]) for found in rounds])
        spread = f" (deviation {gains.std(ddof=1):.1f})" if len(gains) > 1 else ""
        each = " ".join(f"{gain:+.1f}" for gain in gains)
        lines.append(f"  {name.ljust(width)}  {gains.mean():+.1f}{spread}  {each}")
        if gains.mean() <= 0:
            lines.append(f"  {' ' * width}  did not help")
    return lines


def _round(digits: Digits, folder: str, seed: int) -> dict[str, float]:
    """The held-out accuracy of a teacher, and of a student of each policy."""
    order = np.random.default_rng(seed).permutation(len(digits.classes))
    labelled, held_out, others = np.split(order, [_LABELLED, _LABELLED + _HELD_OUT])
    known, images = digits.of(labelled), os.path.join(folder, "digits")
    write_pngs(images, *digits.of(others))
    teacher = trained(_dataset(known, seed), seed)
    teacher.save(os.path.join(folder, "teacher.keras"))
    made = export(images, teacher, os.path.join(folder, "labelled"), source_labels="folder", quiet=True)
    assert made is not None  # not a dry run
    students = {name: _student(made, known, rules, seed) for name, rules in POLICIES.items()}
    return {name: _accuracy(m, digits.of(held_out)) for name, m in {"teacher": teacher, **students}.items()}


def _student(teachings: Export, known: Digits, rules: Mapping[str, Any], seed: int) -> Any:
    """The same network, trained on what is known and on what the rules select."""
    pseudo = teachings.pseudo_labels(shuffle=seed, **rules)
    return trained(mix(_dataset(known, seed), pseudo, _PSEUDO, seed=seed), seed)


def _dataset(digits: Digits, seed: int) -> tf.data.Dataset:
    """The digits in an order that is another each epoch: a dataset that was used before would go on where that was."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(tuple(digits)).shuffle(len(digits.classes), seed)


def _accuracy(model: Any, digits: Digits) -> float:
    return float(np.mean(model.predict(digits.images, verbose=0).argmax(axis=1) == digits.classes))


def _digits() -> Digits:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError("the demo's digits come with scikit-learn: pip install 'tfzip[demo]'") from None
    digits = load_digits()
    return Digits(np.round(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8), digits.target)


def _claim(folder: str) -> None:
    """Make the folder, or empty it if an earlier demo made it."""
    mark = os.path.join(folder, _MARK)
    if os.path.exists(mark):
        shutil.rmtree(folder)
    elif os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise OutputExistsError(f"{folder} exists and was not made by the demo; give another with --to")
    os.makedirs(folder, exist_ok=True)
    with open(mark, "w", encoding="utf-8") as file:
        file.write("This folder was made by `tfzip demo`, which empties it when it runs again.\n")


def write_pngs(folder: str, images: Any, classes: Any) -> None:
    """Write images [N, height, width, 1] of uint8 as `folder/CLASS/NNNN.png`."""
    import tensorflow as tf

    for number, (image, label) in enumerate(zip(images, classes, strict=True)):
        os.makedirs(os.path.join(folder, str(label)), exist_ok=True)
        with open(os.path.join(folder, str(label), f"{number:04d}.png"), "wb") as file:
            file.write(tf.io.encode_png(image).numpy())


def trained(examples: tf.data.Dataset, seed: int, updates: int = _UPDATES) -> Any:
    """A small Keras classifier of digits 0..255, trained on single `(image, label)` or `(image, label, weight)`."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    soft = examples.element_spec[1].shape.rank
    model.compile("adam", "categorical_crossentropy" if soft else "sparse_categorical_crossentropy")
    model.fit(examples.repeat().batch(_BATCH), steps_per_epoch=updates, shuffle=False, verbose=0)
    return model
