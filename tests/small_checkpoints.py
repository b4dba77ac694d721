"""Folders of transformers checkpoints with tiny networks, as `save_pretrained` and the hub write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TINY = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
PICTURES = {**TINY, "image_size": 32, "patch_size": 16}
END = 50
"""Token at the end of a sentence, whose output CLIP uses."""
TEXT = {
    **TINY,
    "vocab_size": 100,
    "max_position_embeddings": 16,
    "projection_size": 32,
    "bos_token_id": 0,
    "eos_token_id": END,
}
CONVOLUTIONS = {"hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}


def two_towers(**vision: Any) -> dict[str, Any]:
    return {"vision_config": {**PICTURES, **vision}, "text_config": TEXT, "projection_dim": 32}


def processor(kind: str, **changes: Any) -> dict[str, Any]:
    """Return a processor: short side 40, center crop 32 × 32, bicubic, CLIP-like statistics."""
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": 32, "width": 32},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
    } | changes


def video_processor(kind: str, **changes: Any) -> dict[str, Any]:
    made = processor("", **changes) | {"video_processor_type": kind}
    del made["image_processor_type"]
    return made


SQUARE = {"size": {"height": 32, "width": 32}, "do_center_crop": False}


@dataclass(frozen=True)
class Family:
    """One model type of transformers: a tiny configuration, a processor, and the expected row."""

    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    expected: str
    """Expected row: ``cls``, ``mean``, an attribute of the output, or a method that returns features."""
    frames: int = 1


FAMILIES: dict[str, Family] = {
    "dinov2": Family(PICTURES, processor("BitImageProcessor"), "pooler_output"),
    "dinov2_with_registers": Family(
        {**PICTURES, "num_register_tokens": 2}, processor("BitImageProcessor"), "pooler_output"
    ),
    "dinov3_vit": Family(
        {**PICTURES, "num_register_tokens": 2},
        processor("DINOv3ViTImageProcessor", resample=2, **SQUARE),
        "pooler_output",
    ),
    "dinov3_convnext": Family(
        CONVOLUTIONS, processor("DINOv3ViTImageProcessor", resample=2, **SQUARE), "pooler_output"
    ),
    "clip": Family(two_towers(), processor("CLIPImageProcessor"), "get_image_features"),
    "siglip": Family(two_towers(), processor("SiglipImageProcessor", **SQUARE), "get_image_features"),
    "siglip2": Family(
        two_towers(num_patches=16),
        {
            "image_processor_type": "Siglip2ImageProcessor",
            "patch_size": 16,
            "max_num_patches": 16,
            "resample": 2,
            "image_mean": [0.5] * 3,
            "image_std": [0.5] * 3,
            "rescale_factor": 1 / 255,
        },
        "get_image_features",
    ),
    "metaclip_2": Family(two_towers(), processor("CLIPImageProcessor"), "get_image_features"),
    "aimv2": Family(two_towers(), processor("CLIPImageProcessor"), "get_image_features"),
    "tipsv2": Family(two_towers(), processor("Tipsv2ImageProcessor", **SQUARE), "get_image_features"),
    "xclip": Family(
        two_towers(num_frames=4, mit_hidden_size=32, mit_intermediate_size=32, mit_num_attention_heads=2),
        processor("VideoMAEImageProcessor", size={"shortest_edge": 32}),
        "get_video_features",
        frames=4,
    ),
    "videomae": Family(
        {
            **PICTURES,
            "num_frames": 4,
            "tubelet_size": 2,
            "decoder_hidden_size": 16,
            "decoder_num_attention_heads": 2,
            "decoder_num_hidden_layers": 1,
            "decoder_intermediate_size": 16,
        },
        processor("VideoMAEImageProcessor", size={"shortest_edge": 32}),
        "mean",
        frames=4,
    ),
    "vjepa2": Family(
        {
            **TINY,
            "crop_size": 32,
            "patch_size": 16,
            "frames_per_clip": 4,
            "tubelet_size": 2,
            "pred_hidden_size": 32,
            "pred_num_attention_heads": 2,
            "pred_num_hidden_layers": 1,
        },
        video_processor("VJEPA2VideoProcessor", resample=2),
        "mean",
        frames=4,
    ),
    "timesformer": Family(
        {**PICTURES, "num_frames": 4},
        processor("VideoMAEImageProcessor", size={"shortest_edge": 32}, resample=2),
        "cls",
        frames=4,
    ),
    "vivit": Family(
        {**PICTURES, "num_frames": 4, "tubelet_size": [2, 16, 16]},
        processor(
            "VivitImageProcessor", rescale_factor=1 / 127.5, offset=True, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        "pooler_output",
        frames=4,
    ),
    "videoprism": Family(
        {
            "vision_config": {
                **PICTURES,
                "num_frames": 4,
                "num_spatial_layers": 1,
                "num_temporal_layers": 1,
                "num_auxiliary_layers": 1,
                "tubelet_size": [1, 16, 16],
            },
            "text_config": TEXT,
        },
        video_processor("VideoMAEVideoProcessor"),
        "get_video_features",
        frames=4,
    ),
    "hiera": Family(
        {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "image_size": [64, 64]},
        processor("BitImageProcessor", size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}),
        "pooler_output",
    ),
    "pixio": Family(PICTURES, processor("BitImageProcessor"), "pooler_output"),
    "vit": Family(PICTURES, processor("ViTImageProcessor", **SQUARE), "pooler_output"),
    "ijepa": Family(PICTURES, processor("ViTImageProcessor", **SQUARE), "mean"),
    "beit": Family(PICTURES, processor("BeitImageProcessor"), "pooler_output"),
    "convnextv2": Family(
        CONVOLUTIONS,
        processor("ConvNextImageProcessor", size={"shortest_edge": 32}, crop_pct=0.875, do_center_crop=False),
        "pooler_output",
    ),
    "swinv2": Family(
        {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "image_size": 32, "window_size": 4, "patch_size": 4},
        processor("ViTImageProcessor", **SQUARE),
        "pooler_output",
    ),
}

AUDIO: dict[str, Family] = {
    "clap": Family(
        {
            "audio_config": {
                "patch_embeds_hidden_size": 8,
                "hidden_size": 64,
                "depths": [1, 1, 1, 1],
                "num_attention_heads": [1, 1, 1, 1],
            },
            "text_config": {**TINY, "vocab_size": 100},
            "projection_dim": 24,
        },
        {
            "feature_extractor_type": "ClapFeatureExtractor",
            "sampling_rate": 48000,
            "truncation": "rand_trunc",
            "padding": "repeatpad",
        },
        "get_audio_features",
    ),
    "pe_audio": Family(
        {
            "audio_config": {
                **TINY,
                "num_key_value_heads": 2,
                "head_dim": 16,
                "initializer_range": 0.5,
                "dac_config": {
                    "model_type": "dac",
                    "encoder_hidden_size": 4,
                    "downsampling_ratios": [2, 4],
                    "decoder_hidden_size": 16,
                    "n_codebooks": 2,
                    "codebook_size": 16,
                    "codebook_dim": 4,
                },
            },
            "text_config": {
                "model_type": "modernbert",
                **TINY,
                "vocab_size": 100,
                **{f"{name}_token_id": place for place, name in enumerate(("pad", "eos", "bos", "cls", "sep"))},
            },
        },
        {
            "feature_extractor_type": "PeAudioFeatureExtractor",
            "sampling_rate": 16000,
            "feature_size": 1,
            "padding_value": 0.0,
            "hop_length": 8,
        },
        "get_audio_embeds",
    ),
    "wav2vec2-bert": Family(
        {**TINY, "output_hidden_size": 32},
        {
            "feature_extractor_type": "SeamlessM4TFeatureExtractor",
            "sampling_rate": 16000,
            "feature_size": 80,
            "num_mel_bins": 80,
            "stride": 2,
            "padding_value": 0.0,
        },
        "mean",
    ),
    "wav2vec2": Family(
        {
            **TINY,
            "conv_dim": [16, 16],
            "conv_stride": [5, 4],
            "conv_kernel": [10, 8],
            "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 2,
        },
        {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "sampling_rate": 16000,
            "feature_size": 1,
            "padding_value": 0.0,
            "do_normalize": True,
        },
        "mean",
    ),
}


def write_checkpoint(folder: Path, model_type: str, seed: int | None = None) -> Path:
    """Write configuration and processor, and with a seed also the tensors; return the folder."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModel

    family = (FAMILIES | AUDIO)[model_type]
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG_MAPPING[model_type](**family.config)
    config.save_pretrained(folder)
    name = (
        "video_preprocessor_config.json" if "video_processor_type" in family.processor else "preprocessor_config.json"
    )
    (folder / name).write_text(json.dumps(family.processor))
    if seed is not None:
        torch.manual_seed(seed)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


WORDS = ("a", "skater", "jumps", "spins", "falls", "gymnast", "throws", "the", "ball", "ribbon")


def write_tokenizer(folder: Path) -> Path:
    """Write a tokenizer with the vocabulary `WORDS`, split at spaces, with an end token; return the folder."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing

    known = {"<unk>": 0, "<pad>": 1, "<end>": END} | {word: 2 + place for place, word in enumerate(WORDS)}
    tokenizer = Tokenizer(WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    ending = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", END)])
    tokenizer.post_processor = ending  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.save(str(folder / "tokenizer.json"))
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts | {"eos_token": "<end>"}))
    return folder
