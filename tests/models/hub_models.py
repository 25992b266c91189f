"""Small models of `transformers` and `timm` with random weights, and what their parts give.

They are saved as the Hub's files are: `save_pretrained` writes the names of the published files.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from hub_small import HIDDEN, NATIVE, PATCH, PROJECTION, STAGES, WIDTH, small
from safetensors.torch import save_file

SIDE = NATIVE[0]

Outputs = dict[str, np.ndarray]


def hub_model(name: str, seed: int = 0) -> torch.nn.Module:
    """The model of `transformers` that is `small(name)`, every value random."""
    sizes = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    hidden = {"intermediate_size": HIDDEN}
    text = {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 50,
        "max_position_embeddings": 9,
        **hidden,
    }
    model: torch.nn.Module
    if name.startswith("dinov2") and name.endswith("registers"):
        model = transformers.Dinov2WithRegistersModel(
            transformers.Dinov2WithRegistersConfig(**sizes)
        )
    elif name.startswith("dinov2"):
        model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes))
    elif name.startswith("dinov3_convnext"):
        widths = [width for _, width in STAGES]
        depths = [depth for depth, _ in STAGES]
        model = transformers.DINOv3ConvNextModel(
            transformers.DINOv3ConvNextConfig(hidden_sizes=widths, depths=depths)
        )
    elif name.startswith("dinov3"):
        gated = {"use_gated_mlp": True, "hidden_act": "silu"} if name.endswith("plus") else {}
        model = transformers.DINOv3ViTModel(
            transformers.DINOv3ViTConfig(**sizes, **hidden, **gated, num_register_tokens=4)
        )
    elif name.startswith("siglip2"):
        vision = {**sizes, **hidden}
        model = transformers.SiglipModel(
            transformers.SiglipConfig(vision_config=vision, text_config=text)
        )
    elif name.startswith("clip"):
        act = {"hidden_act": "gelu" if name.endswith("laion") else "quick_gelu"}
        vision = {**sizes, **hidden, **act}
        ends = {"eos_token_id": 49, "bos_token_id": 48, "pad_token_id": 49}
        model = transformers.CLIPModel(
            transformers.CLIPConfig(
                vision_config=vision,
                text_config={**text, **act, **ends},
                projection_dim=PROJECTION,
            )
        )
    else:
        model = transformers.ViTModel(
            transformers.ViTConfig(**sizes, **hidden, layer_norm_eps=1e-6)
        )
    return randomised(model, seed)


def timm_model(name: str, seed: int = 0) -> torch.nn.Module:
    """The model of `timm` that is `small(name)`; those that it has in a size of their own."""
    from timm.models.convnext import ConvNeXt
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer as TimmViT

    spec: Any = None if "convnext" in name else small(name)
    if spec is None:
        return randomised(
            ConvNeXt(
                depths=tuple(depth for depth, _ in STAGES),
                dims=tuple(width for _, width in STAGES),
                num_classes=0,
            ),
            seed,
        )
    common = {
        "img_size": SIDE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": spec.hidden / WIDTH,
    }
    if name.startswith("dinov3"):
        model: torch.nn.Module = Eva(
            **common,
            num_classes=0,
            qkv_bias=name.endswith("plus"),
            init_values=1.0,
            rope_type="dinov3",
            rope_temperature=100,
            use_rot_pos_emb=True,
            use_abs_pos_emb=False,
            rope_rotate_half=True,
            swiglu_mlp=spec.gated,
            swiglu_align_to=8 if spec.gated else 0,
            num_reg_tokens=4,
            use_fc_norm=False,
            norm_layer=lambda width, **_: torch.nn.LayerNorm(width, eps=1e-5),
        )
        return randomised(model, seed)
    acts: dict[str, Any] = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_tanh": "gelu_tanh"}
    model = TimmViT(
        **common,
        num_classes={"projection": PROJECTION, "attention": 0, "tokens": 5}[spec.output],
        global_pool="map" if spec.output == "attention" else "token",
        class_token=spec.has_class_token,
        reg_tokens=spec.registers,
        no_embed_class=name.startswith("deit3") or spec.registers > 0,
        init_values=1e-5 if spec.layer_scale else None,
        pre_norm=spec.pre_norm,
        act_layer=acts[spec.activation],
        norm_layer=lambda width, **_: torch.nn.LayerNorm(width, eps=spec.epsilon),
    )
    return randomised(model, seed)


def randomised(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Draws every parameter anew, those that start as zeros or ones too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan_in = parameter[0].numel()
                parameter.normal_(0, fan_in**-0.5, generator=generator)
            elif name.endswith(("weight", "gamma", "lambda1", "gamma_1", "gamma_2")):
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                parameter.normal_(0, 0.1, generator=generator)
        for name, parameter in model.named_parameters():
            if name == "head.bias":
                parameter.zero_()  # of timm's CLIP, which has none
    return model.eval()


def save_hub(model: torch.nn.Module, folder: Path) -> Path:
    """Writes the file that the Hub would have of a model."""
    if isinstance(model, transformers.PreTrainedModel):
        model.save_pretrained(folder)
        return folder / "model.safetensors"
    path = folder / "model.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    return path


def hub_outputs(model: torch.nn.Module, prepared: np.ndarray) -> Outputs:
    """What each block of a model of `transformers` gives, by our names; and the final features.

    Args:
      model: of `hub_model`.
      prepared: float32 [B, H, W, 3].

    Returns:
      Tokens [B, T, C] of "embeddings", each "blockN" and "norm"; "feature" [B, C], what the
      network is used by; "patches" [B, n, C], the same of each patch.
    """
    pixels = torch.from_numpy(np.moveaxis(prepared, -1, 1).copy())
    if type(model).__name__ == "DINOv3ConvNextModel":
        return _convnext_outputs(model, pixels)
    tower: Any = getattr(model, "vision_model", model)
    layers = next(
        part for part in tower.modules() if isinstance(part, torch.nn.ModuleList) and len(part) == 2
    )
    taken: Outputs = {}
    hooks = [layers[0].register_forward_pre_hook(_take_input(taken, "embeddings"))]
    hooks += [
        layer.register_forward_hook(_take(taken, f"block{number}"))
        for number, layer in enumerate(layers)
    ]
    any_size = {} if "ino" in type(tower).__name__.lower() else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        out = tower(pixels, **any_size)
        last = out.last_hidden_state
        kind = type(model).__name__
        if kind == "SiglipModel":
            feature = out.pooler_output
            patches = torch.stack(
                [tower.head(last[:, place : place + 1]) for place in range(last.shape[1])], 1
            )
        elif kind == "CLIPModel":
            last = tower.post_layernorm(last)
            feature = model.visual_projection(out.pooler_output)
            patches = model.visual_projection(last[:, 1:])
        else:
            special = 1 + getattr(model.config, "num_register_tokens", 0)
            patches = last[:, special:]
            feature = torch.cat([last[:, 0], patches.mean(1)], dim=1)
    for hook in hooks:
        hook.remove()
    return taken | {
        "norm": last.numpy(),
        "feature": feature.numpy(),
        "patches": patches.numpy(),
    }


def timm_outputs(model: torch.nn.Module, prepared: np.ndarray) -> Outputs:
    """The same of a model of `timm`."""
    pixels = torch.from_numpy(np.moveaxis(prepared, -1, 1).copy())
    typed: Any = model
    taken: Outputs = {}
    with torch.no_grad():
        if type(model).__name__ == "ConvNeXt":
            return {"feature": typed.forward_head(typed.forward_features(pixels)).numpy()}
        hooks = [typed.blocks[0].register_forward_pre_hook(_take_input(taken, "embeddings"))]
        hooks += [
            layer.register_forward_hook(_take(taken, f"block{number}"))
            for number, layer in enumerate(typed.blocks)
        ]
        last = typed.forward_features(pixels)
        for hook in hooks:
            hook.remove()
        if getattr(typed, "attn_pool", None) is not None or typed.num_classes == PROJECTION:
            feature = typed.forward_head(last)
        else:
            patches = last[:, typed.num_prefix_tokens :]
            feature = torch.cat([last[:, 0], patches.mean(1)], dim=1)
    return taken | {"norm": last.numpy(), "feature": feature.numpy()}


def text_outputs(model: torch.nn.Module, ids: np.ndarray) -> Outputs:
    """What the text tower gives: tokens of each block, and the text's place beside the images'."""
    typed: Any = model
    taken: Outputs = {}
    hooks = [
        layer.register_forward_hook(_take(taken, f"block{number}"))
        for number, layer in enumerate(typed.text_model.encoder.layers)
    ]
    with torch.no_grad():
        out = typed.get_text_features(input_ids=torch.from_numpy(ids))
    for hook in hooks:
        hook.remove()
    return taken | {"feature": out.pooler_output.numpy()}


def _convnext_outputs(model: torch.nn.Module, pixels: torch.Tensor) -> Outputs:
    typed: Any = model
    taken: Outputs = {}
    hooks = [
        stage.register_forward_hook(_take(taken, f"stage{number}"))
        for number, stage in enumerate(typed.model.stages)
    ]
    with torch.no_grad():
        out = typed(pixels)
    for hook in hooks:
        hook.remove()
    maps = {name: np.moveaxis(value, 1, -1) for name, value in taken.items()}
    return maps | {
        "feature": out.pooler_output.numpy(),
        "patches": out.last_hidden_state[:, 1:].numpy(),
    }


def _take(taken: Outputs, name: str) -> Callable[..., None]:
    def hook(module: Any, inputs: Any, output: Any) -> None:
        del module, inputs
        taken[name] = (output[0] if isinstance(output, tuple) else output).detach().numpy().copy()

    return hook


def _take_input(taken: Outputs, name: str) -> Callable[..., None]:
    def hook(module: Any, inputs: Any) -> None:
        del module
        taken[name] = inputs[0].detach().numpy().copy()

    return hook
