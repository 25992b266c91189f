"""The weights that are published on the Hugging Face Hub: repositories, licences, revisions.

A revision is pinned, and a digest, where several public projects that pin the same file agree on
it. Where none is given here, the commit and the digest that the Hub names at the first download are
recorded in the cache, and everything later is checked against that record (`mlc_jax.models.hub`).
Sizes are of the published files as those projects give them; None where the Hub is asked.
"""

from dataclasses import dataclass

APACHE = "Apache-2.0"
MIT = "MIT"
DINOV3 = "DINOv3 License (Meta), https://ai.meta.com/resources/models-and-libraries/dinov3-license/"


@dataclass(frozen=True)
class HubFile:
    """A weight file on the Hub.

    Attributes:
      repo: "owner/name".
      licence: of the weights, by the repository's card.
      revision: the commit that is fetched; None to record it at the first download.
      digest: SHA-256 of the file; None likewise.
      size: bytes, or None.
      gated: whether the licence must be accepted on the repository's page first.
      file: its name in the repository.
    """

    repo: str
    licence: str
    revision: str | None = None
    digest: str | None = None
    size: int | None = None
    gated: bool = False
    file: str = "model.safetensors"

    @property
    def page(self) -> str:
        """Where people read about it, and accept its licence."""
        return f"https://huggingface.co/{self.repo}"

    @property
    def url(self) -> str:
        """Where it is published."""
        return f"{self.page}/resolve/{self.revision or 'main'}/{self.file}"


def _dinov3(model: str, revision: str | None = None) -> HubFile:
    return HubFile(f"facebook/dinov3-{model}-pretrain-lvd1689m", DINOV3, revision, gated=True)


HUB_FILES = {
    "dinov2_s14": HubFile(
        "facebook/dinov2-small",
        APACHE,
        "ed25f3a31f01632728cabb09d1542f84ab7b0056",
        "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
        88_249_960,
    ),
    "dinov2_b14": HubFile(
        "facebook/dinov2-base",
        APACHE,
        "f9e44c814b77203eaa57a6bdbbd535f21ede1415",
        "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
        346_345_912,
    ),
    "dinov2_l14": HubFile(
        "facebook/dinov2-large",
        APACHE,
        "47b73eefe95e8d44ec3623f8890bd894b6ea2d6c",
        "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
        1_217_522_888,
    ),
    "dinov2_s14_registers": HubFile(
        "facebook/dinov2-with-registers-small",
        APACHE,
        "0d9846e56b43a21fa46d7f3f5070f0506a5795a9",
    ),
    "dinov2_b14_registers": HubFile(
        "facebook/dinov2-with-registers-base",
        APACHE,
        "a1d738ccfa7ae170945f210395d99dde8adb1805",
    ),
    "dinov2_l14_registers": HubFile("facebook/dinov2-with-registers-large", APACHE),
    "dinov3_s16": HubFile(
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        DINOV3,
        "114c1379950215c8b35dfcd4e90a5c251dde0d32",
        "4610ad75edef83e75afdebf162d148dc628045ea6cbb83d67d4708c709c4f91d",
        86_406_384,
        gated=True,
    ),
    "dinov3_s16_plus": _dinov3("vits16plus"),
    "dinov3_b16": _dinov3("vitb16", "5931719e67bbdb9737e363e781fb0c67687896bc"),
    "dinov3_l16": _dinov3("vitl16", "ea8dc2863c51be0a264bab82070e3e8836b02d51"),
    "dinov3_convnext_tiny": _dinov3("convnext-tiny"),
    "dinov3_convnext_small": _dinov3("convnext-small"),
    "dinov3_convnext_base": _dinov3("convnext-base"),
    "dinov3_convnext_large": _dinov3("convnext-large"),
    "siglip2_b16": HubFile(
        "google/siglip2-base-patch16-224",
        APACHE,
        "75de2d55ec2d0b4efc50b3e9ad70dba96a7b2fa2",
    ),
    "siglip2_so400m14": HubFile("google/siglip2-so400m-patch14-224", APACHE),
    # OpenAI's own repositories of these two have no safetensors; timm's hold the image towers.
    "clip_b32": HubFile("timm/vit_base_patch32_clip_224.openai", MIT),
    "clip_b16": HubFile("timm/vit_base_patch16_clip_224.openai", MIT),
    "clip_l14": HubFile(
        "openai/clip-vit-large-patch14", MIT, "32bd64288804d66eefd0ccbe215aa642df71cc41"
    ),
    "clip_b32_laion": HubFile("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", MIT),
    "clip_b16_laion": HubFile("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", MIT),
    "clip_l14_laion": HubFile("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", MIT),
    "deit3_s16": HubFile("timm/deit3_small_patch16_224.fb_in22k_ft_in1k", APACHE),
    "deit3_b16": HubFile("timm/deit3_base_patch16_224.fb_in22k_ft_in1k", APACHE),
    "deit3_l16": HubFile("timm/deit3_large_patch16_224.fb_in22k_ft_in1k", APACHE),
    "vit_s16_augreg": HubFile("timm/vit_small_patch16_224.augreg_in21k", APACHE),
    "vit_b16_augreg": HubFile("timm/vit_base_patch16_224.augreg_in21k", APACHE),
    "vit_l16_augreg": HubFile("timm/vit_large_patch16_224.augreg_in21k", APACHE),
}
