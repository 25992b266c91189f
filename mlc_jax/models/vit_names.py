"""The arrays of vision transformers under the names that files on the Hugging Face Hub have.

Two families of names hold the same numbers: those of `transformers` (which differ from model to
model) and those of `timm`. Both are brought to ours here. A key that is known to neither keeps its
name, so that it is reported as unexpected.
"""

import re

from mlc_jax.models.stored import (
    OIHW_TO_HWIO,
    TRANSPOSED,
    Stored,
    added,
    concatenated,
    rows,
    transposed,
    without_leading_axes,
    zeros,
)
from mlc_jax.models.vit_spec import ViTSpec

# What stands before the whole name where an image tower is part of a larger model.
_TOWERS = ("vision_model.", "vit.", "dinov2.", "dinov2_with_registers.", "deit.")
_BLOCK = re.compile(r"(?:model\.)?(?:encoder\.layers?|layers?|blocks)\.(\d+)\.(.+)\.(\w+)")
_FLAT = re.compile(r"blocks\.(\d+)\.((?:attn\.)?\w+)")
_VARIABLES = {
    "gamma_1": "scale1/gamma",
    "gamma_2": "scale2/gamma",
    "attn.q_bias": "query/bias",
    "attn.v_bias": "value/bias",
}

# Within a block: what a layer is called, and our name. The first names are transformers', then
# timm's.
_LAYERS = {
    "attention.attention.query": "query",
    "attention.attention.key": "key",
    "attention.attention.value": "value",
    "attention.q_proj": "query",
    "attention.k_proj": "key",
    "attention.v_proj": "value",
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "attention.output.dense": "attention/out",
    "attention.o_proj": "attention/out",
    "self_attn.out_proj": "attention/out",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "layer_scale1": "scale1",
    "layer_scale2": "scale2",
    "intermediate.dense": "mlp/fc1",
    "output.dense": "mlp/fc2",
    "mlp.gate_proj": "gate",
    "mlp.down_proj": "mlp/fc2",
    "norm1": "norm1",
    "norm2": "norm2",
    "mlp.fc1": "mlp/fc1",
    "mlp.fc2": "mlp/fc2",
    "attn.qkv": "attention/qkv",
    "attn.proj": "attention/out",
    "ls1": "scale1",
    "ls2": "scale2",
    "mlp.fc1_g": "gate",
    "mlp.fc1_x": "value_of_gate",
}
_OUTSIDE = {
    "embeddings.patch_embeddings.projection": "patch",
    "embeddings.patch_embeddings": "patch",
    "embeddings.patch_embedding": "patch",
    "patch_embed.proj": "patch",
    "layernorm": "norm",
    "post_layernorm": "norm",
    "norm": "norm",
    "pre_layrnorm": "pre_norm",
    "norm_pre": "pre_norm",
    "visual_projection": "projection",
    "head.attention.out_proj": "pool/out",
    "head.layernorm": "pool/norm",
    "head.mlp.fc1": "pool/mlp/fc1",
    "head.mlp.fc2": "pool/mlp/fc2",
    "attn_pool.q": "pool/query",
    "attn_pool.kv": "pool/key_value",
    "attn_pool.proj": "pool/out",
    "attn_pool.norm": "pool/norm",
    "attn_pool.mlp.fc1": "pool/mlp/fc1",
    "attn_pool.mlp.fc2": "pool/mlp/fc2",
}
_TABLES = {
    "embeddings.cls_token": "tokens/class_table",
    "embeddings.class_embedding": "tokens/class_table",
    "cls_token": "tokens/class_table",
    "embeddings.register_tokens": "tokens/register_table",
    "reg_token": "tokens/register_table",
    "embeddings.position_embeddings": "tokens/position_table",
    "embeddings.position_embedding.weight": "tokens/position_table",
    "pos_embed": "tokens/position_table",
    "head.probe": "pool/probe_table",
    "attn_pool.latent": "pool/probe_table",
}
_NORMS = ("norm", "norm1", "norm2", "pre_norm")
_UNREAD = ("position_ids", "mask_token")


def vit_arrays(found: dict[str, Stored], spec: ViTSpec) -> dict[str, Stored]:
    """The arrays of an image tower under our names.

    The position of the class token is added to the class token, which is what the network does; so
    a table with and one without it give the same.

    Args:
      found: arrays by their names in the file.
      spec: the architecture that is wanted.

    Returns:
      Arrays by our names; what is known by none of them keeps its name.
    """
    arrays = {our_name(key, spec): value for key, value in image_tower(found, spec).items()}
    for name in _TABLES.values():
        if name in arrays:
            arrays[name] = without_leading_axes(arrays[name])
    _fuse(arrays, spec)
    positions, token = (arrays.get(f"tokens/{name}_table") for name in ("position", "class"))
    if positions and token and positions.shape[0] == spec.grid**2 + 1:
        first = without_leading_axes(rows(positions, 0, 1))
        arrays["tokens/class_table"] = added(token, first)
        arrays["tokens/position_table"] = rows(positions, 1)
    for name, stored in arrays.items():
        if name.endswith("/kernel"):
            axes = TRANSPOSED if len(stored.shape) == 2 else OIHW_TO_HWIO
            arrays[name] = transposed(stored, axes)
    return arrays


def _fuse(arrays: dict[str, Stored], spec: ViTSpec) -> None:
    """Puts together what our layers hold in one, while kernels are [out, in] still."""
    for number in range(spec.depth):
        block = f"block{number}"
        attention = [f"{block}/{part}" for part in ("query", "key", "value")]
        biases = {f"{block}/key/bias", f"{block}/attention/qkv/bias"} & set(arrays)
        if spec.grid == 0 and not biases:
            # DINOv3's keys have no bias, and timm leaves out those of queries and values where they
            # are zero.
            for part in attention:
                arrays.setdefault(f"{part}/bias", zeros((spec.width,)))
        gate = [f"{block}/{part}" for part in ("gate", "value_of_gate")]
        fused = {f"{block}/attention/qkv": attention, f"{block}/mlp/gate_value": gate}
        for target, parts in fused.items():
            for variable in ("kernel", "bias"):
                own = [f"{part}/{variable}" for part in parts]
                if all(name in arrays for name in own) and f"{target}/{variable}" not in arrays:
                    arrays[f"{target}/{variable}"] = concatenated([arrays.pop(n) for n in own])
    for variable in ("kernel", "bias"):
        if whole := arrays.pop(f"pool/in/{variable}", None):
            arrays[f"pool/query/{variable}"] = rows(whole, 0, spec.width)
            arrays[f"pool/key_value/{variable}"] = rows(whole, spec.width)


def image_tower(found: dict[str, Stored], spec: ViTSpec) -> dict[str, Stored]:
    """What of a file is of the image tower, without the name of the tower before it."""
    tower = next((t for t in _TOWERS if any(key.startswith(t) for key in found)), "")
    # A file of one tower names it or not; one of a whole model names both.
    own = {key.removeprefix(tower): value for key, value in found.items() if key.startswith(tower)}
    if "visual_projection.weight" in found and tower == "vision_model.":
        own["visual_projection.weight"] = found["visual_projection.weight"]
    if spec.output == "projection" and "head.weight" in own:  # timm's name for the projection
        own["visual_projection.weight"] = own.pop("head.weight")
    elsewhere = ("classifier", "pooler", "text_model", "text_projection", "logit")
    unread = elsewhere if spec.output == "attention" else (*elsewhere, "head")
    return {
        key: value
        for key, value in own.items()
        if key.split(".")[-1] not in _UNREAD and not key.startswith(unread)
    }


def our_name(key: str, spec: ViTSpec) -> str:
    """Our name of an array of an image tower, with query, key and value apart; else the same."""
    if key in _TABLES:
        return _TABLES[key]
    if (match := _FLAT.fullmatch(key)) and match[2] in _VARIABLES:
        number, kind = match.groups()
        return f"block{number}/{_VARIABLES[kind]}"
    if match := _BLOCK.fullmatch(key):
        number, layer, variable = match.groups()
        name = _LAYERS.get(layer)
        if layer == "mlp.up_proj":
            name = "value_of_gate" if spec.gated else "mlp/fc1"
        return key if name is None else f"block{number}/{name}/{_variable(name, variable)}"
    layer, _, variable = key.rpartition(".")
    name = _OUTSIDE.get(layer)
    if name is not None:
        return f"{name}/{_variable(name, variable)}"
    if key in ("head.attention.in_proj_weight", "head.attention.in_proj_bias"):
        return "pool/in/kernel" if key.endswith("weight") else "pool/in/bias"
    return key


def _variable(layer: str, variable: str) -> str:
    if layer.rpartition("/")[2] in _NORMS:
        return {"weight": "gamma", "bias": "beta"}.get(variable, variable)
    return {"weight": "kernel", "lambda1": "gamma"}.get(variable, variable)
