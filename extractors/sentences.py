"""Sentences through the text tower of a network of transformers: one row for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ..manifests.errors import ConfigError
from .hub_snapshot import PREFIX, CheckpointFolder
from .transformers_checkpoints import one_line

MAX_SENTENCES = 256
"""Their rows are in the manifest of a store, which every reader parses."""


def sentence_rows(network: Any, checkpoint: CheckpointFolder, sentences: Sequence[str]) -> Tensor:
    """Return the embeddings of sentences, as the network's own ``get_text_features`` gives them.

    Args:
        network: The network with its text tower, on the CPU in float32.
        checkpoint: The folder with the tokenizer.
        sentences: At least one.

    Returns:
        ``float32 [sentences, dim]``, not scaled to unit length.

    Raises:
        ConfigError: The tokenizer cannot be read, or a sentence is longer than the text tower takes.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = cast(
            "Callable[..., Any]",
            AutoTokenizer.from_pretrained(checkpoint.path, trust_remote_code=False, local_files_only=True),  # pyright: ignore[reportUnknownMemberType]
        )
        longest = int(network.config.text_config.max_position_embeddings)
        for sentence in sentences:
            if (length := len(tokenizer(sentence)["input_ids"])) > longest:
                raise ConfigError(
                    f"{PREFIX}{checkpoint.name}: the sentence {sentence!r} has {length} tokens, the text tower takes "
                    f"{longest}; shorten it"
                )
        # SigLIP reads the last position, so that every sentence has the full length, as in training; CLIP's result does
        # not depend on it
        tokens = tokenizer(list(sentences), padding="max_length", max_length=longest, return_tensors="pt")
    except ConfigError:
        raise
    except Exception as error:  # a tokenizer of others may raise any error
        raise ConfigError(f"{PREFIX}{checkpoint.name}: its tokenizer cannot be used ({one_line(error)})") from error
    names = ("input_ids",) if network.config.model_type.startswith("siglip") else ("input_ids", "attention_mask")
    with torch.inference_mode():  # SigLIP was trained without a mask
        found: Any = network.get_text_features(**{name: tokens[name] for name in names if name in tokens})
    rows = found if isinstance(found, Tensor) else found.pooler_output
    return rows.float().clone()
