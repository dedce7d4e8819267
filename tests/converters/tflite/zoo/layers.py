"""Keras 3 models, written with the functional interface; the caller has chosen the backend."""

import keras
from keras import layers

from tests.converters.tflite.zoo.case import Case, Feed


def separable():
    x = inputs = keras.Input((48, 48, 3))
    x = layers.Rescaling(1 / 2.0, offset=0.1)(x)
    x = layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    for filters in (24, 32):
        y = layers.SeparableConv2D(filters, 3, padding="same")(x)
        y = layers.BatchNormalization()(y)
        y = layers.Activation("swish")(y)
        y = layers.DepthwiseConv2D(5, padding="same", depth_multiplier=1)(y)
        x = layers.add([y, layers.Conv2D(filters, 1)(x)])
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.SpatialDropout2D(0.2)(x)
    x = layers.concatenate([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def segmenter():
    inputs = keras.Input((40, 40, 1))
    a = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    b = layers.Conv2D(16, 3, padding="same", activation="elu")(layers.AveragePooling2D(2)(a))
    c = layers.Conv2D(16, 3, dilation_rate=2, padding="same")(b)
    c = layers.PReLU(shared_axes=[1, 2])(c)
    y = layers.UpSampling2D(2, interpolation="bilinear")(c)
    y = layers.Concatenate()([y, a])
    y = layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu")(y)
    y = layers.Cropping2D(((3, 5), (4, 4)))(layers.ZeroPadding2D((1, 2))(y))
    return keras.Model(inputs, layers.Softmax(axis=-1)(layers.Conv2D(3, 1)(y)))


def residual():
    def block(x, filters, stride):
        y = layers.ZeroPadding2D(1)(x)
        y = layers.Conv2D(filters, 3, stride)(y)
        y = layers.LeakyReLU(negative_slope=0.1)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(y))
        gate = layers.Dense(filters, activation="sigmoid")(layers.Dense(8, "relu")(layers.GlobalAveragePooling2D()(y)))
        y = layers.multiply([y, layers.Reshape((1, 1, filters))(gate)])
        return layers.Activation("relu")(layers.add([y, layers.Conv2D(filters, 1, stride)(x)]))

    x = inputs = keras.Input((32, 32, 3))
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 0.6, 0.7])(x)
    x = block(block(x, 16, 1), 32, 2)
    x = layers.Flatten()(layers.MaxPooling2D(4)(x))
    return keras.Model(inputs, layers.Dense(7)(layers.Dropout(0.3)(layers.Dense(32, "gelu")(x))))


def lstm_text():
    x = inputs = keras.Input((20,), dtype="int32")
    x = layers.Embedding(50, 16)(x)
    x = layers.Bidirectional(layers.LSTM(12, return_sequences=True))(x)
    x = layers.LSTM(8)(x)
    return keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))


def gru_series():
    x = inputs = keras.Input((24, 5))
    x = layers.GRU(16, return_sequences=True)(x)
    x = layers.LayerNormalization()(x)
    x = layers.TimeDistributed(layers.Dense(8, activation="tanh"))(x)
    x = layers.SimpleRNN(6)(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def frames():
    x = inputs = keras.Input((6, 16, 16, 1))
    x = layers.TimeDistributed(layers.Conv2D(8, 3, strides=2, activation="relu"))(x)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(layers.GRU(10)(x)))


def transformer():
    inputs = keras.Input((16,), dtype="int32")
    x = layers.Embedding(40, 32)(inputs)
    y = layers.MultiHeadAttention(4, 8)(x, x)
    x = layers.LayerNormalization(epsilon=1e-6)(layers.add([x, y]))
    y = layers.Dense(32)(layers.Dense(64, activation="relu")(x))
    x = layers.LayerNormalization(epsilon=1e-6)(layers.add([x, y]))
    x = layers.Attention()([x, x])
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def signals():
    x = inputs = keras.Input((100, 3))
    x = layers.Conv1D(16, 5, padding="causal", dilation_rate=2, activation="relu")(x)
    x = layers.SeparableConv1D(24, 3, padding="same")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling1D(2)(layers.Activation("selu")(x))
    x = layers.Conv1DTranspose(8, 4, strides=2, padding="same")(x)
    x = layers.UpSampling1D(2)(layers.Cropping1D(2)(x))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalMaxPooling1D()(layers.AveragePooling1D(3)(x))))


def many():
    """Two inputs, two outputs, a layer used twice, Lambda-free arithmetic."""
    left, right = keras.Input((16,), name="left"), keras.Input((16,), name="right")
    shared = layers.Dense(12, activation="hard_sigmoid")
    a, b = shared(left), shared(right)
    apart = layers.subtract([a, b])
    both = layers.Concatenate()([layers.dot([a, b], axes=1, normalize=True), layers.maximum([a, b]), apart])
    both = layers.UnitNormalization()(layers.GroupNormalization(5)(layers.Dense(20, activation="mish")(both)))
    return keras.Model(
        [left, right], {"class": layers.Dense(3, "softmax")(both), "value": layers.Dense(1, "softplus")(both)}
    )


def shapes():
    x = inputs = keras.Input((12, 10, 8))
    x = layers.Permute((2, 1, 3))(x)
    x = layers.Conv2D(8, 3, padding="same", groups=2)(x)
    x = layers.Reshape((10, 12 * 8))(x)
    x = layers.RepeatVector(3)(layers.GlobalAveragePooling1D()(x))
    return keras.Model(inputs, layers.Softmax(axis=1)(x))


def volumes():
    x = inputs = keras.Input((8, 16, 16, 1))
    x = layers.Conv3D(8, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling3D(2)(x)
    x = layers.Conv3D(12, 3, activation="relu")(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling3D()(x)))


LAYERS = [
    Case("keras separable", separable, [Feed((48, 48, 3))]),
    Case("keras segmenter", segmenter, [Feed((40, 40, 1))]),
    Case("keras residual", residual, [Feed((32, 32, 3))]),
    Case("keras lstm", lstm_text, [Feed((20,), 50)]),
    Case("keras gru", gru_series, [Feed((24, 5))]),
    Case("keras frames", frames, [Feed((6, 16, 16, 1))]),
    Case("keras transformer", transformer, [Feed((16,), 40)]),
    Case("keras signals", signals, [Feed((100, 3))]),
    Case("keras many", many, [Feed((16,)), Feed((16,))]),
    Case("keras shapes", shapes, [Feed((12, 10, 8))]),
    Case("keras volumes", volumes, [Feed((8, 16, 16, 1))]),
]
