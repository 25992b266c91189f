"""What a practitioner writes for the same task: the peer of `from_nothing.py`. Not part of mlc_jax.

    python scripts/practitioner.py DATA WEIGHTS [--image-size 224]

PyTorch's MobileNetV2 (channels last, a DataLoader with a worker per core) over each photograph and
its mirror image, then for each label scikit-learn's `LogisticRegressionCV` and out-of-fold
probabilities by `cross_val_predict`, five folds each. WEIGHTS is Keras's file without the top.
Prints the macro AUC and the seconds. Needs torch, scikit-learn, pandas, h5py and Pillow.
"""

import argparse
import os
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

STAGES = (  # factor, channels, blocks, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class Convolution(nn.Module):
    """Convolution, batch norm and ReLU6; padded as TensorFlow does."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int = 1,
        groups: int = 1,
        *,
        active: bool = True,
    ) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if stride == 2 else nn.Identity()
        padding = size // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=1e-3)
        self.active = nn.ReLU6(inplace=True) if active else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same of the next layer."""
        return self.active(self.norm(self.conv(self.pad(x))))


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, inputs: int, outputs: int, factor: int, stride: int) -> None:
        super().__init__()
        wide = inputs * factor
        parts = [Convolution(inputs, wide, 1)] if factor > 1 else []
        parts += [Convolution(wide, wide, 3, stride, wide)]
        parts += [Convolution(wide, outputs, 1, active=False)]
        self.parts = nn.Sequential(*parts)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] to the same of the next block."""
        return x + self.parts(x) if self.residual else self.parts(x)


def network(weights: Path) -> nn.Module:
    """MobileNetV2 without its top, with Keras's weights."""
    layers: list[nn.Module] = [Convolution(3, 32, 3, 2)]
    inputs = 32
    for factor, outputs, count, stride in STAGES:
        for number in range(count):
            layers.append(Block(inputs, outputs, factor, stride if number == 0 else 1))
            inputs = outputs
    layers.append(Convolution(inputs, 1280, 1))
    model = nn.Sequential(*layers).eval()
    with h5py.File(weights) as file:
        arrays: dict[tuple[str, str], np.ndarray] = {}

        def note(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                arrays[name.split("/")[0], name.split("/")[-1].split(":")[0]] = item[()]

        file.visititems(note)
    names = ["Conv1"]
    for number in range(17):
        prefix = f"block_{number}" if number else "expanded_conv"
        names += [f"{prefix}_{part}" for part in ("expand", "depthwise", "project")][number == 0 :]
    names.append("Conv_1")
    modules = [module for module in model.modules() if isinstance(module, Convolution)]
    for name, module in zip(names, modules, strict=True):
        kernels = [arrays[key] for key in arrays if key[0] == name and key[1].endswith("kernel")]
        order = (2, 3, 0, 1) if module.conv.groups > 1 else (3, 2, 0, 1)
        norm = "bn_Conv1" if name == "Conv1" else f"{name}_BN" if name != "Conv_1" else "Conv_1_bn"
        module.conv.weight.data = torch.from_numpy(kernels[0].transpose(order).copy())
        for ours, theirs in (
            ("weight", "gamma"),
            ("bias", "beta"),
            ("running_mean", "moving_mean"),
            ("running_var", "moving_variance"),
        ):
            getattr(module.norm, ours).data = torch.from_numpy(arrays[norm, theirs])
    return model.to(memory_format=torch.channels_last)


class Photographs(torch.utils.data.Dataset):
    """Files as float tensors [3, size, size], -1 to 1."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            small = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(small).transpose(2, 0, 1).copy()) / 127.5 - 1


def main() -> None:
    """Extracts, fits, prints."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--image-size", type=int, default=224)
    given = parser.parse_args()
    labels = pd.read_csv(given.data / "labels.csv", index_col=0)
    paths = [given.data / "images" / name for name in labels.index]
    loader = torch.utils.data.DataLoader(
        Photographs(paths, given.image_size), batch_size=32, num_workers=os.cpu_count() or 1
    )
    model, features = network(given.weights), []
    with torch.inference_mode():
        for batch in loader:
            batch = batch.to(memory_format=torch.channels_last)
            both = [model(x).mean((2, 3)) for x in (batch, batch.flip(3))]
            features.append((both[0] + both[1]) / 2)
    matrix = torch.cat(features).numpy()
    extracted = time.perf_counter() - started
    folds, areas = StratifiedKFold(5, shuffle=True, random_state=0), []
    for name in labels:
        column = labels[name]
        x, y = matrix[column.notna().to_numpy()], column.dropna().to_numpy(int)
        scaled = StandardScaler().fit_transform(x)
        search = LogisticRegressionCV(
            Cs=np.logspace(-4, 0, 5), cv=5, scoring="neg_log_loss", max_iter=1000, n_jobs=-1
        ).fit(scaled, y)
        chosen = make_pipeline(StandardScaler(), LogisticRegression(C=search.C_[0], max_iter=1000))
        p = cross_val_predict(chosen, x, y, cv=folds, method="predict_proba", n_jobs=-1)
        areas.append(roc_auc_score(y, p[:, 1]))
    seconds = time.perf_counter() - started
    print(f"macro AUC {np.mean(areas):.4f}, {extracted:.1f} s to features, {seconds:.1f} s in all")


if __name__ == "__main__":
    main()
