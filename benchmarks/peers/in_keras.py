"""Keras on TensorFlow: ``train_on_batch`` and ``fit``; a tf.function over GradientTape, plain and through XLA; images (N, H, W, C)."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
import keras
import numpy as np
import tensorflow as tf

from benchmarks.remote import Session
from benchmarks.sessions import asking, epochs, offered, refuse, stepping
from benchmarks.workloads import Arrays, Case, Layer, channels_last, images_last

tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))
tf.config.threading.set_inter_op_parallelism_threads(1)
L = keras.layers
BUILD = {
    "linear": lambda n, out: L.Dense(out),
    "relu": L.ReLU,
    "conv": lambda n, out, bias: L.Conv2D(out, 3, padding="same", use_bias=bool(bias)),
    "batch_norm": lambda n: L.BatchNormalization(momentum=0.9, epsilon=1e-5),
    "max_pool": L.MaxPooling2D,
    "global_avg_pool": L.GlobalAveragePooling2D,
    "flatten": lambda *shape: L.Flatten(),
    "lstm": lambda n, hidden: L.LSTM(hidden),
    "gru": lambda n, hidden: L.GRU(hidden, reset_after=True),
}


def _as_theirs(layer: Layer, arrays: Arrays) -> list[np.ndarray]:
    """Weights in the order of ``set_weights``; recurrent gates are i f g o, and z r n."""
    if layer.kind == "lstm":
        return [arrays["weight_ih"].T, arrays["weight_hh"].T, arrays["bias_ih"] + arrays["bias_hh"]]
    if layer.kind == "gru":
        swapped = {name: np.concatenate([np.split(a, 3)[i] for i in (1, 0, 2)]) for name, a in arrays.items()}
        return [swapped["weight_ih"].T, swapped["weight_hh"].T, np.stack([swapped["bias_ih"], swapped["bias_hh"]])]
    if layer.kind == "batch_norm":
        return [*arrays.values(), np.zeros(layer.sizes, np.float32), np.ones(layer.sizes, np.float32)]
    return list(arrays.values())


def model_of(case: Case) -> keras.Sequential:
    """The model of a workload with its first weights."""
    workload = case.work
    offered(workload, BUILD)
    layers = [BUILD[layer.kind](*layer.sizes) for layer in workload.layers]
    sample = images_last(np.zeros((1, *workload.shape[1:]), np.float32))
    model = keras.Sequential([keras.Input(sample.shape[1:]), *layers])
    for made, layer, arrays in zip(layers, workload.layers, channels_last(workload), strict=True):
        made.set_weights(_as_theirs(layer, arrays))
    return model


def _trained_by(case: Case):
    """Optimizer and loss."""
    workload = case.work
    sgd = workload.optimizer == "sgd"
    optimizer = keras.optimizers.SGD(workload.lr, momentum=0.9) if sgd else keras.optimizers.Adam(workload.lr, epsilon=1e-8)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if workload.classes else keras.losses.MeanSquaredError()
    return optimizer, loss


def _convert(a: np.ndarray):
    return tf.constant(images_last(a))


def fitted(case: Case) -> Session:
    """``train_on_batch`` and ``fit`` (without XLA, which is slower here)."""
    if case.mode == "infer":
        return refuse("see tf.function")
    model = model_of(case)
    optimizer, loss = _trained_by(case)
    model.compile(optimizer=optimizer, loss=loss, jit_compile=False)
    if case.mode == "step":

        def step(x, t):
            model.reset_metrics()
            return model.train_on_batch(x, t)

        return stepping(case, step, _convert, read=lambda loss: float(np.asarray(loss).reshape(-1)[0]))
    size = case.work.shape[0]

    def prepare(x, t):
        x = images_last(x)

        def epoch(start, stop, shuffle):
            return model.fit(x[start:stop], t[start:stop], batch_size=size, shuffle=shuffle, verbose=0).history["loss"][0]

        return epoch

    return epochs(case, prepare)


def _function(case: Case, xla: bool) -> Session:
    model = model_of(case)
    if case.mode == "infer":
        predict = tf.function(lambda x: model(x, training=False), jit_compile=xla)
        return asking(case, lambda x: predict(x).numpy(), _convert)
    if case.mode == "epoch":
        return refuse("see keras")
    optimizer, loss = _trained_by(case)
    optimizer.build(model.trainable_variables)

    @tf.function(jit_compile=xla)
    def step(x, t):
        with tf.GradientTape() as tape:
            value = loss(t, model(x, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables))
        return value

    return stepping(case, step, _convert)


def function(case: Case) -> Session:
    """A tf.function over the Keras model."""
    return _function(case, False)


def xla(case: Case) -> Session:
    """The same through XLA."""
    return _function(case, True)
