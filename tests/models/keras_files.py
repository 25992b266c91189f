"""Keras's own models with random weights, and files of them in the layout that Keras publishes."""

import warnings
from pathlib import Path
from unittest import mock

import h5py
import keras
import numpy as np
from keras.src.initializers import constant_initializers, random_initializers
from keras.src.layers import Add
from keras.src.legacy.saving import legacy_h5_format
from keras.src.models import Functional
from keras.src.ops.numpy import Add as Sum
from keras.src.utils import file_utils
from safetensors.numpy import save_file

MODELS = {
    "vgg16": keras.applications.VGG16,
    "vgg19": keras.applications.VGG19,
    "resnet50": keras.applications.ResNet50,
    "resnet50_v2": keras.applications.ResNet50V2,
    "mobilenet": keras.applications.MobileNet,
    "mobilenet_v2": keras.applications.MobileNetV2,
    "mobilenet_v3_small": keras.applications.MobileNetV3Small,
    "mobilenet_v3_large": keras.applications.MobileNetV3Large,
    "efficientnet_b0": keras.applications.EfficientNetB0,
    "efficientnet_b1": keras.applications.EfficientNetB1,
    "efficientnet_b2": keras.applications.EfficientNetB2,
    "efficientnet_b3": keras.applications.EfficientNetB3,
    "efficientnet_b4": keras.applications.EfficientNetB4,
    "efficientnet_b5": keras.applications.EfficientNetB5,
    "efficientnet_b6": keras.applications.EfficientNetB6,
    "efficientnet_b7": keras.applications.EfficientNetB7,
    "efficientnet_v2_b0": keras.applications.EfficientNetV2B0,
    "efficientnet_v2_b1": keras.applications.EfficientNetV2B1,
    "efficientnet_v2_b2": keras.applications.EfficientNetV2B2,
    "efficientnet_v2_b3": keras.applications.EfficientNetV2B3,
    "efficientnet_v2_s": keras.applications.EfficientNetV2S,
    "xception": keras.applications.Xception,
    "convnext_tiny": keras.applications.ConvNeXtTiny,
    "convnext_base": keras.applications.ConvNeXtBase,
}


def keras_model(name: str, image_size: tuple[int, int], seed: int = 0) -> keras.Model:
    """The model without its classifier; every variable is random, batch norm statistics too.

    It is built as for Keras's published weights, since Keras prepares images otherwise for those
    than for others; only the file is not fetched: `model.wanted` is what would have been, its name,
    address and digest.
    """

    def zeros(self: object, shape: tuple[int, ...], *_: object, **__: object) -> np.ndarray:
        return np.zeros(shape, np.float32)

    with (
        mock.patch.object(file_utils, "get_file", return_value="") as get_file,
        mock.patch.object(Functional, "load_weights"),
        # Every value is replaced below; to compile a generator for each shape takes half a minute.
        mock.patch.object(random_initializers.VarianceScaling, "__call__", zeros),
        mock.patch.object(constant_initializers.Zeros, "__call__", zeros),
        mock.patch.object(constant_initializers.Ones, "__call__", zeros),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square", UserWarning)
        model = MODELS[name](include_top=False, weights="imagenet", input_shape=(*image_size, 3))
    model.wanted = (*get_file.call_args.args, get_file.call_args.kwargs.get("file_hash"))
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name == "count":
            continue
        if len(variable.shape) > 1:
            fan_in = np.prod(
                variable.shape[:2] if "depthwise" in variable.name else variable.shape[:-1]
            )
            value = rng.standard_normal(variable.shape) * np.sqrt(2 / fan_in)
        elif variable.name in ("gamma", "variance", "moving_variance"):
            value = rng.uniform(0.5, 1.5, variable.shape)
        else:
            value = rng.normal(0, 0.1, variable.shape)
        variable.assign(value)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return model


def block_outputs(model: keras.Model, names: list[str]) -> dict[str, keras.KerasTensor]:
    """Keras's tensors under our names of the blocks, `Network.blocks`.

    Of blocks that Keras leaves without a name the sums that end them are taken in their order.
    """
    layers = {layer.name: layer.output for layer in model.layers}
    sums = iter([op.output for op in model.operations if isinstance(op, Add | Sum)])
    named = {name: layers[name] if name in layers else next(sums) for name in names[:-1]}
    return named | {names[-1]: model.output}


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
