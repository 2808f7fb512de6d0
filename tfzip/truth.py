"""Graph: what a source knows of an item's class, as a label and as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from tfzip import naming
from tfzip.record import UNKNOWN
from tfzip.sources import Element


def namer(names: Sequence[str], classes: Sequence[bytes]) -> Callable[[Element], Element]:
    """A graph function over one item: adds `truth`, the label of its `truth_text`, or the text of its `truth`.

    Args:
        names: of the classes, by label; empty if they are not known.
        classes: the texts that the source uses, which need not be UTF-8; empty if it has labels only.

    A text that is no class has the label UNKNOWN; but where there are no names, or labels only, a label that the item
    has beside its text is kept. A label that has no name is its own text, in decimal.
    """
    find = finder(names, classes)

    def name_truth(item: Element) -> Element:
        if "truth_text" not in item:
            return {**item, "truth_text": _text(item["truth"], names)}
        label = find(item["truth_text"])
        if "truth" in item and not (names and classes):
            label = tf.where(label == UNKNOWN, item["truth"], label)
        return {**item, "truth": label}

    return name_truth


def finder(names: Sequence[str], classes: Sequence[bytes]) -> Callable[[tf.Tensor], tf.Tensor]:
    """A graph function: texts -> their labels, UNKNOWN for one that is no class."""
    labels = {name.encode(): label for label, name in enumerate(names)}
    labels |= {raw: labels[text] for raw in classes if (text := naming.to_text(raw).encode()) in labels}
    if not labels:
        return lambda text: tf.fill(tf.shape(text), tf.constant(UNKNOWN, tf.int64))
    pairs = tf.lookup.KeyValueTensorInitializer(list(labels), list(labels.values()), tf.string, tf.int64)
    return tf.lookup.StaticHashTable(pairs, UNKNOWN).lookup


def _text(label: tf.Tensor, names: Sequence[str]) -> tf.Tensor:
    named = (label >= 0) & (label < len(names))
    text = tf.where(label == UNKNOWN, "", tf.strings.as_string(label))
    return tf.where(named, tf.gather(tf.constant(names), tf.where(named, label, 0)), text) if names else text
