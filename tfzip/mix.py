"""Images with labels and images with pseudo-labels, together in one `tf.data.Dataset`."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING

from tfzip.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf


def mix(
    labelled: tf.data.Dataset, pseudo: tf.data.Dataset, share: float = 0.5, *, seed: int | None = None
) -> tf.data.Dataset:
    """Images with labels and images with pseudo-labels, drawn at a ratio, as `(image, label, weight)`.

    It ends where the pseudo-labels end; the labelled images begin again as often as it takes.

    Args:
        labelled: single `(image, label)` or `(image, label, weight)`, of the other's shape; a label is a class, also
            where the other's are soft.
        pseudo: single images, as `pseudo_labels` gives them without a batch size.
        share: of pseudo-labels, above 0 and at most 1.
        seed: of the draw.

    Raises UsageError where the two do not fit.
    """
    import tensorflow as tf

    if not isinstance(share, numbers.Real) or isinstance(share, bool) or not 0 < share <= 1:
        raise UsageError(f"share {share!r}: give a number above 0, at most 1")
    image, label, weight = pseudo.element_spec
    if weight.shape.rank:
        raise UsageError("the pseudo-labels come in batches: batch what is mixed instead")
    if int(labelled.cardinality()) == 0:
        raise UsageError("the labelled dataset is empty")

    def as_pseudo(picture: tf.Tensor, truth: tf.Tensor, counts: tf.Tensor | float = 1.0) -> tuple[tf.Tensor, ...]:
        made = tf.one_hot(tf.cast(truth, tf.int64), label.shape[0]) if label.shape.rank else truth
        return tf.cast(picture, image.dtype), tf.cast(made, label.dtype), tf.cast(counts, weight.dtype)

    known = labelled.map(as_pseudo, tf.data.AUTOTUNE)
    for ours, theirs in zip(pseudo.element_spec, known.element_spec, strict=True):
        if not ours.is_compatible_with(theirs):
            raise UsageError(f"the labelled dataset gives {theirs.shape} where the pseudo-labels give {ours.shape}")
    drawn = [known.repeat(), pseudo]
    return tf.data.Dataset.sample_from_datasets(drawn, [1.0 - share, float(share)], seed, stop_on_empty_dataset=True)
