"""Embeddings of sentences by the text tower of a network of transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from ..manifests.errors import ConfigError
from .hub_snapshot import PREFIX, CheckpointFolder
from .transformers_checkpoints import one_line

MAX_SENTENCES = 256
"""Limit, because the embeddings are in the manifest of a store, which every reader parses."""


def sentence_rows(network: Any, checkpoint: CheckpointFolder, sentences: Sequence[str]) -> Tensor:
    """Return the embeddings of sentences by the network's ``get_text_features``.

    Args:
        network: The network with its text tower, on the CPU in float32.
        checkpoint: The folder with the tokenizer.
        sentences: One or more sentences.

    Returns:
        ``float32 [sentences, dim]``, not scaled to unit length.

    Raises:
        ConfigError: The tokenizer cannot be read, or a sentence is too long for the text tower.
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
                    f"{PREFIX}{checkpoint.name}: the sentence {sentence!r} has {length} tokens, but the text tower "
                    f"accepts {longest}; shorten it"
                )
        # all sentences are padded to the full length, as in SigLIP's training, because SigLIP uses the last position;
        # CLIP's result does not depend on the padding
        tokens = tokenizer(list(sentences), padding="max_length", max_length=longest, return_tensors="pt")
    except ConfigError:
        raise
    except Exception as error:  # tokenizers raise errors of any type
        raise ConfigError(f"{PREFIX}{checkpoint.name}: its tokenizer cannot be used ({one_line(error)})") from error
    names = ("input_ids",) if network.config.model_type.startswith("siglip") else ("input_ids", "attention_mask")
    with torch.inference_mode():  # SigLIP was trained without a mask
        found: Any = network.get_text_features(**{name: tokens[name] for name in names if name in tokens})
    rows = found if isinstance(found, Tensor) else found.pooler_output
    return rows.float().clone()
