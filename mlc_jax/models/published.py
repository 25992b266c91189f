"""Keras's published ImageNet weights without classifiers: addresses, digests, sizes, licences.

Addresses and digests are those of Keras's sources (keras/src/applications), which say no sizes;
those are from the progress bars of downloads that people published. Licences are those that Keras's
documentation gives for the weights (docs/templates/applications.md of Keras 2, section "License" of
each model). Of later models it gives none: then the licence of the project that the weights come
from is named, and that nobody stated one for the weights.
"""

from dataclasses import dataclass

KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"
EFFICIENTNET = "https://storage.googleapis.com/keras-applications"

VGG = "CC BY 4.0, VGG, University of Oxford"
RESNET = "MIT, Kaiming He"
RESNET_V2 = "BSD, Facebook"
MOBILENET = "Apache-2.0, the TensorFlow authors"
XCEPTION = "MIT, the Keras authors"
# The checkpoints' pages say no licence: research/slim/nets/mobilenet in
# github.com/tensorflow/models, models/official/efficientnet in github.com/tensorflow/tpu,
# efficientnetv2 in github.com/google/automl. A question, tensorflow/models#13579, has no answer.
UNSTATED_GOOGLE = "not stated for the weights; the code they come from is Apache-2.0, Google"
# "This project is released under the MIT license": README of github.com/facebookresearch/ConvNeXt,
# which lists the weights. Meta's own copies on Hugging Face say Apache-2.0, Keras says nothing.
UNSTATED_META = "not stated by Keras; the project they come from is MIT, Meta"


@dataclass(frozen=True)
class Published:
    """A weight file on the network.

    Attributes:
      folder: the address of the folder it is in, https.
      file: its name, in the cache too.
      digest: "md5:..." or "sha256:..." as Keras pins it; None where Keras pins none. Such a file is
        never downloaded, since nothing could tell a wrong byte in it.
      size: bytes.
      licence: of the weights, and who gave it; or that it is not stated.
    """

    folder: str
    file: str
    digest: str | None
    size: int
    licence: str

    @property
    def url(self) -> str:
        """Where it is published."""
        return f"{self.folder}/{self.file}"


PUBLISHED = {
    "vgg16": Published(
        f"{KERAS}/vgg16",
        "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:6d6bbae143d832006294945121d1f1fc",
        58_889_256,
        VGG,
    ),
    "vgg19": Published(
        f"{KERAS}/vgg19",
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:253f8cb515780f3b799900260a226db6",
        80_134_624,
        VGG,
    ),
    "resnet50": Published(
        f"{KERAS}/resnet",
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:4d473c1dd8becc155b73f8504c6f6626",
        94_765_736,
        RESNET,
    ),
    "resnet50_v2": Published(
        f"{KERAS}/resnet",
        "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:fac2f116257151a9d068a22e544a4917",
        94_668_760,
        RESNET_V2,
    ),
    "mobilenet": Published(
        f"{KERAS}/mobilenet",
        "mobilenet_1_0_224_tf_no_top.h5",
        None,
        17_225_924,
        MOBILENET,
    ),
    "mobilenet_v2": Published(
        f"{KERAS}/mobilenet_v2",
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        None,
        9_406_464,
        MOBILENET,
    ),
    "mobilenet_v3_small": Published(
        f"{KERAS}/mobilenet_v3",
        "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
        "md5:d3e8ec802a04aa4fc771ee12a9a9b836",
        4_334_752,
        UNSTATED_GOOGLE,
    ),
    "mobilenet_v3_large": Published(
        f"{KERAS}/mobilenet_v3",
        "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
        "md5:07fb09a5933dd0c8eaafa16978110389",
        12_683_000,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_b0": Published(
        EFFICIENTNET,
        "efficientnetb0_notop.h5",
        "md5:50bc09e76180e00e4465e1a485ddc09d",
        16_705_208,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_b1": Published(
        EFFICIENTNET,
        "efficientnetb1_notop.h5",
        "md5:74c4e6b3e1f6a1eea24c589628592432",
        27_018_416,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_b2": Published(
        EFFICIENTNET,
        "efficientnetb2_notop.h5",
        "md5:111f8e2ac8aa800a7a99e3239f7bfb39",
        31_790_344,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_b3": Published(
        EFFICIENTNET,
        "efficientnetb3_notop.h5",
        "md5:af6d107764bb5b1abb91932881670226",
        43_941_136,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_b4": Published(
        EFFICIENTNET,
        "efficientnetb4_notop.h5",
        "md5:ebc24e6d6c33eaebbd558eafbeedf1ba",
        71_686_520,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_b5": Published(
        EFFICIENTNET,
        "efficientnetb5_notop.h5",
        "md5:38879255a25d3c92d5e44e04ae6cec6f",
        115_263_384,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_b6": Published(
        EFFICIENTNET,
        "efficientnetb6_notop.h5",
        "md5:9ecce42647a20130c1f39a5d4cb75743",
        165_234_480,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_b7": Published(
        EFFICIENTNET,
        "efficientnetb7_notop.h5",
        "md5:cbcfe4450ddf6f3ad90b1b398090fe4a",
        258_076_736,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_v2_b0": Published(
        f"{KERAS}/efficientnet_v2",
        "efficientnetv2-b0_notop.h5",
        "md5:893217f2bb855e2983157299931e43ff",
        24_274_472,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_v2_b1": Published(
        f"{KERAS}/efficientnet_v2",
        "efficientnetv2-b1_notop.h5",
        "md5:0e80663031ca32d657f9caa404b6ec37",
        28_456_008,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_v2_b2": Published(
        f"{KERAS}/efficientnet_v2",
        "efficientnetv2-b2_notop.h5",
        "md5:1dfe2e7a5d45b6632553a8961ea609eb",
        35_839_040,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_v2_b3": Published(
        f"{KERAS}/efficientnet_v2",
        "efficientnetv2-b3_notop.h5",
        "md5:f6abf7b5849ac99a89b50dd3fd532856",
        52_606_240,
        UNSTATED_GOOGLE,
    ),
    "efficientnet_v2_s": Published(
        f"{KERAS}/efficientnet_v2",
        "efficientnetv2-s_notop.h5",
        "md5:af0682fb74e8c54910f2d4393339c070",
        82_420_632,
        UNSTATED_GOOGLE,
    ),
    "xception": Published(
        f"{KERAS}/xception",
        "xception_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "md5:b0042744bf5b25fce3cb969f33bebb97",
        83_683_744,
        XCEPTION,
    ),
    "convnext_tiny": Published(
        f"{KERAS}/convnext",
        "convnext_tiny_notop.h5",
        "sha256:d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
        111_650_432,
        UNSTATED_META,
    ),
    "convnext_base": Published(
        f"{KERAS}/convnext",
        "convnext_base_notop.h5",
        "sha256:40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45",
        350_926_856,
        UNSTATED_META,
    ),
}
