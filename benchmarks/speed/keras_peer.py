"""The Keras peers: the native networks of conf/model, by fit().

    python keras_peer.py torch|tensorflow JOB.json

On TensorFlow the data come through tf.data as its guide on performance recommends, on torch through
the same DataLoader as the plain loop's. A file for itself: the Python that has TensorFlow need not
be the one that has medexp.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np


def main() -> None:
    backend, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    os.environ["KERAS_BACKEND"] = backend
    print(json.dumps(train(job, backend)))


def train(job: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """fit() for the job's epochs, each with a validation by predict() and Keras' AUC."""
    keras: Any = importlib.import_module("keras")
    settings, classes = job["settings"], job["classes"]
    keras.utils.set_random_seed(settings["seed"])
    if job["precision"] != "float32":
        keras.config.set_dtype_policy(f"mixed_{job['precision']}")
    data = (of_tensorflow if backend == "tensorflow" else of_torch)(job)
    network = build(keras, settings["model"], job["shape"], classes)
    rate, momentum = settings["optimizer"]["lr"], settings["optimizer"]["momentum"]
    loss = keras.losses.BinaryCrossentropy if classes == 2 else (
        keras.losses.SparseCategoricalCrossentropy
    )  # fmt: skip
    hits = (
        keras.metrics.BinaryAccuracy(threshold=0.0)  # of logits
        if classes == 2
        else keras.metrics.SparseCategoricalAccuracy()
    )
    network.compile(
        optimizer=keras.optimizers.SGD(rate, momentum, settings["optimizer"]["nesterov"]),
        loss=loss(from_logits=True),
        metrics=[hits],
    )
    times = watch(keras, data["valid"], data["labels"], classes)
    network.fit(data["train"], epochs=job["epochs"], verbose=0, callbacks=[times])
    return {
        "images": data["images"],
        "epoch_seconds": times.epochs,
        "train_seconds": times.training,
        "first_step": times.first_step,
        "precision": job["precision"],
        "device_memory": device_memory(backend),
        "versions": {name: metadata.version(name) for name in ("keras", data["package"])},
        "extra": {"auc": times.scores},
    }


def build(keras: Any, node: Mapping[str, Any], shape: Sequence[int], classes: int) -> Any:
    """medexp.models.pcam.NativeCNN's layers in Keras; logits."""
    layers = [keras.Input(tuple(shape))]
    for i in range(3):
        layers.append(
            keras.layers.Conv2D(
                node["filters"][i],
                node["kernels"][i],
                strides=node["strides"][i],
                padding="same",
                activation="relu",
            )
        )
        if node["batch_norm"][i]:
            layers.append(keras.layers.BatchNormalization())
        layers.append(
            keras.layers.MaxPooling2D(node["pool_size"], node["pool_stride"], padding="same")
        )
    layers.append(keras.layers.Flatten())
    layers += [keras.layers.Dense(units, activation="relu") for units in node["dense"]]
    layers.append(keras.layers.Dense(1 if classes == 2 else classes, dtype="float32"))
    return keras.Sequential(layers)


def watch(keras: Any, valid: Any, labels: np.ndarray, classes: int) -> Any:
    """The callback that validates after each epoch and notes the times."""
    several = {} if classes == 2 else {"multi_label": True, "num_labels": classes}

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        async_safe = True  # else Keras would wait for every step's loss, for the callback's sake

        def __init__(self) -> None:
            super().__init__()
            self.first_step: float | None = None
            self.epochs: list[float] = []
            self.training: list[float] = []
            self.scores: list[float] = []
            self.auc = keras.metrics.AUC(from_logits=classes == 2, **several)

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if self.first_step is None:
                self.first_step = time.time()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.training.append(time.perf_counter() - self.began)
            logits = self.model.predict(valid, verbose=0)
            self.auc.reset_state()
            if classes == 2:
                self.auc.update_state(labels, logits[:, 0])
            else:
                self.auc.update_state(np.eye(classes)[labels], keras.ops.softmax(logits))
            self.scores.append(float(self.auc.result()))
            self.epochs.append(time.perf_counter() - self.began)

    return Watch()


def read(folder: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """One part of PCam's files: images as stored, labels (N,)."""
    stem = Path(folder) / f"camelyonpatch_level_2_split_{part}"
    with h5py.File(f"{stem}_x.h5") as x, h5py.File(f"{stem}_y.h5") as y:
        return x["x"][:], y["y"][:].ravel()


def of_tensorflow(job: Mapping[str, Any]) -> dict[str, Any]:
    """Shuffle, augment image by image in parallel, batch, convert, prefetch.

    Augmenting whole batches, which has to compute every variant of every image, is five times
    slower. No cache(): the images lie in memory as arrays, and it would only hold them twice.
    """
    tf: Any = importlib.import_module("tensorflow")
    augment, trainer, auto = job["augment"], job["settings"]["trainer"], tf.data.AUTOTUNE

    def augmented(image: Any, label: Any) -> Any:
        if augment.get("horizontal"):
            image = tf.image.random_flip_left_right(image)
        if augment.get("vertical"):
            image = tf.image.random_flip_up_down(image)
        if augment.get("turns"):
            image = tf.image.rot90(image, tf.random.uniform([], 0, 4, tf.int32))
        return image, label

    def converted(images: Any, labels: Any) -> Any:
        scale = 255.0 if images.dtype == tf.uint8 else 1.0
        return tf.cast(images, tf.float32) / scale, labels

    x, y = read(job["data"], "train")
    train = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y))
    if augment:
        train = train.map(augmented, num_parallel_calls=auto)
    train = train.batch(trainer["batch_size"]).map(converted, num_parallel_calls=auto)
    x_valid, y_valid = read(job["data"], "valid")
    valid = tf.data.Dataset.from_tensor_slices((x_valid, y_valid))
    valid = valid.batch(trainer["eval_batch_size"]).map(converted, num_parallel_calls=auto)
    return {
        "train": train.prefetch(auto),
        "valid": valid.prefetch(auto),
        "labels": y_valid,
        "images": len(y),
        "package": "tensorflow" if installed("tensorflow") else "tensorflow-cpu",
    }


def of_torch(job: Mapping[str, Any]) -> dict[str, Any]:
    """The loaders of the plain loop, channels last as Keras has them."""
    peers: Any = importlib.import_module("benchmarks.speed.torch_peers")
    train, valid = peers.loaders(job, last=channels_last)
    return {
        "train": train,
        "valid": valid,
        "labels": np.array(valid.dataset.labels),
        "images": len(train.dataset),
        "package": "torch",
    }


def channels_last(image: Any) -> Any:
    return image.movedim(0, -1)


def installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def device_memory(backend: str) -> int | None:
    """Peak bytes on the first GPU, as the framework counts them."""
    if backend == "tensorflow":
        tf: Any = importlib.import_module("tensorflow")
        if not tf.config.list_physical_devices("GPU"):
            return None
        return int(tf.config.experimental.get_memory_info("GPU:0")["peak"])
    torch: Any = importlib.import_module("torch")
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None


if __name__ == "__main__":
    main()
