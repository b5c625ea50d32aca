"""Which namespaces and fields do the built-in kinds have?"""

from __future__ import annotations

# By category, in the order of the contract's `HumanCategory`, which counts from 1.
HUMAN_NAMESPACES = {
    "upper_body": "human_upper_body",
    "lower_body": "human_lower_body",
    "dresses": "human_dresses",
}
GARMENT_NAMESPACE = "garment"
TEXT_NAMESPACE = "text"
CLOTHING_NAMESPACES = (GARMENT_NAMESPACE, TEXT_NAMESPACE)

HUMAN_IMAGES = ("human_img", "mask", "mask_gray")
HUMAN_TENSOR = "pose_tensor"
GARMENT_IMAGE = "garm_img"
GARMENT_TENSOR = "garm_tensor"
TEXT_TENSORS = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
    "prompt_embeds_c",
)
FIELDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(HUMAN_NAMESPACES.values(), (*HUMAN_IMAGES, HUMAN_TENSOR)),
    GARMENT_NAMESPACE: (GARMENT_IMAGE, GARMENT_TENSOR),
    TEXT_NAMESPACE: TEXT_TENSORS,
}
