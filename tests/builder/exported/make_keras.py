"""Small Keras networks as tf2onnx writes them, with Keras' own outputs: `python make_keras.py`.

Made with tensorflow-cpu 2.15.1, tf2onnx 1.16.1, onnx 1.16.2 and NumPy 1.26 on Python 3.11. The tests need none of
them: they read the files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
import tf2onnx

HERE = Path(__file__).parent
L = tf.keras.layers


def mobile() -> tf.keras.Model:
    """Rescaling in the network, ReLU6, depthwise, a residual, squeeze-excite, linear upsampling, dense head.

    tf2onnx's optimizer gives up on it, so that a Transpose stands on either side of every convolution.
    """
    x = image = L.Input((32, 32, 3))
    x = L.Rescaling(1 / 127.5, offset=-1)(x)
    x = shortcut = unit(L.Conv2D(8, 3, 2, padding="same", use_bias=False), x)
    x = unit(L.Conv2D(24, 1, use_bias=False), x)
    x = unit(L.DepthwiseConv2D(3, padding="same", use_bias=False), x)
    x = L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(x))
    x = L.Add()([x, shortcut])
    x = L.ZeroPadding2D(((0, 1), (0, 1)))(x)
    x = L.BatchNormalization()(L.DepthwiseConv2D(3, 2, use_bias=False)(x))
    x = L.Activation("swish")(x)
    gate = L.GlobalAveragePooling2D(keepdims=True)(x)
    gate = L.Conv2D(4, 1, activation="relu")(gate)
    x = L.Multiply()([x, L.Conv2D(8, 1, activation="hard_sigmoid")(gate)])
    x = L.UpSampling2D(2, interpolation="bilinear")(x)
    x = L.Conv2D(16, 3, 2, padding="same", activation="relu")(x)
    return tf.keras.Model(image, L.Dense(5, activation="softmax")(L.GlobalAveragePooling2D()(x)))


def conv_head() -> tf.keras.Model:
    """MobileNet's head: global mean, dropout, 1x1 convolution, Reshape, Softmax."""
    x = image = L.Input((16, 16, 3))
    x = unit(L.Conv2D(8, 3, 2, padding="same"), x)
    x = unit(L.DepthwiseConv2D(3, padding="same"), x)
    x = L.Conv2D(12, 3, 2, padding="same", activation="relu")(x)
    x = L.Dropout(0.1)(L.GlobalAveragePooling2D(keepdims=True)(x))
    x = L.Reshape((5,))(L.Conv2D(5, 1, padding="same")(x))
    return tf.keras.Model(image, L.Activation("softmax")(x))


def gray() -> tf.keras.Model:
    """One channel (a Reshape for the first Transpose), and Flatten in channels-last order."""
    x = image = L.Input((16, 16, 1))
    x = L.MaxPool2D()(L.Conv2D(8, 3, padding="same", activation="relu")(x))
    x = L.Flatten()(L.Conv2D(6, 3, activation="relu")(x))
    return tf.keras.Model(image, L.Dense(5)(x))


def unit(layer: tf.keras.layers.Layer, x: tf.Tensor) -> tf.Tensor:
    return L.ReLU(6.0)(L.BatchNormalization()(layer(x)))


def main() -> None:
    tf.random.set_seed(0)
    rng = np.random.default_rng(0)
    for name, make, opset in (("mobile", mobile, 13), ("conv-head", conv_head, 17), ("gray", gray, 17)):
        network = make()
        for layer in network.layers:
            if isinstance(layer, L.BatchNormalization):
                shape = layer.gamma.shape
                drawn = (
                    rng.uniform(0.7, 1.4, shape),
                    *rng.normal(0, 0.2, (2, *shape)),
                    rng.uniform(0.6, 1.6, shape),
                )
                layer.set_weights(drawn)
        shape = network.input_shape[1:]
        signature = [tf.TensorSpec((None, *shape), tf.float32, name="x")]
        path = HERE / f"keras-{name}.onnx"
        tf2onnx.convert.from_keras(network, signature, opset=opset, output_path=str(path))
        x = rng.normal(size=(2, *shape)).astype(np.float32)
        np.savez(path.with_suffix(".npz"), x=x, y=network(x, training=False).numpy())


if __name__ == "__main__":
    main()
