"""Keras's own models with random weights, and files of them in the layout that Keras publishes."""

import warnings
from pathlib import Path

import h5py
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format
from safetensors.numpy import save_file

MODELS = {"vgg19": keras.applications.VGG19, "mobilenet_v2": keras.applications.MobileNetV2}


def keras_model(name: str, image_size: tuple[int, int], seed: int = 0) -> keras.Model:
    """The model without its classifier; every variable is random, batch norm statistics too."""
    model = MODELS[name](include_top=False, weights=None, input_shape=(*image_size, 3))
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if len(variable.shape) == 4:
            fan_in = np.prod(variable.shape[: 2 if "depthwise" in variable.path else 3])
            value = rng.standard_normal(variable.shape) * np.sqrt(2 / fan_in)
        elif variable.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, variable.shape)
        else:
            value = rng.normal(0, 0.1, variable.shape)
        variable.assign(value)
    return model


def save_legacy(model: keras.Model, path: Path) -> Path:
    """Writes `model` as the files in Keras's `applications` are: `layer_names`, `weight_names`."""
    with h5py.File(path, "w") as file, warnings.catch_warnings():
        # Keras's variables do not know NumPy 2's `copy` keyword.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return path


def save_torchvision(model: keras.Model, path: Path) -> Path:
    """Writes VGG19 as safetensors in torchvision's names, counted from its published sequence."""
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    indices = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    arrays = {}
    for index, layer in zip(indices, convolutions, strict=True):
        kernel, bias = (np.asarray(variable.value) for variable in layer.weights)
        arrays[f"features.{index}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        arrays[f"features.{index}.bias"] = bias
    arrays["classifier.6.bias"] = np.zeros(1000, np.float32)
    save_file(arrays, path)
    return path
