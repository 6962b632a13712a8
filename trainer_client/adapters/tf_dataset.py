"""A run of batches as a tf.data.Dataset. The one file that knows tensorflow; it knows neither servers nor order."""

from __future__ import annotations

from collections.abc import Iterator

import tensorflow as tf

from trainer_client.feed.batch import Batch
from trainer_client.loader import ClipLoader

_IDS = {"positions": tf.int64, "epochs": tf.int64, "indices": tf.int64, "seeds": tf.uint64}


def tf_dataset(loader: ClipLoader) -> tf.data.Dataset:
    """Dictionaries of tensors: `pixels` uint8 as in Batch; `positions`, `epochs`, `indices` int64, `seeds` uint64 (B,).

    Every iteration goes on where the loader stands, to its end. TensorFlow's own threads take batches out, before they
    are used if it is told to prefetch: save `loader.state_after(steps)` of the steps that were done. Errors of
    next(loader) come as TensorFlow's, with their message; closing the loader is the caller's.
    """

    def batches() -> Iterator[dict[str, object]]:
        return loader.made_by(arrays)

    def arrays(batch: Batch) -> dict[str, object]:
        return {"pixels": batch.pixels, **{name: getattr(batch, name) for name in _IDS}}

    shape = loader.batch_shape
    signature = {name: tf.TensorSpec(shape[:1], dtype, name=name) for name, dtype in _IDS.items()}
    signature["pixels"] = tf.TensorSpec(shape, tf.uint8, name="pixels")
    return tf.data.Dataset.from_generator(batches, output_signature=signature)
