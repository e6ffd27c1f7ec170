"""Many conversations continued side by side by a frozen model: their beginnings are computed once.

Rows differ in everything: in their beginning, in their number of vectors and in their target. Beginnings are
padded on the left of the cache, what is fed behind them on the right; a row sees no padding and its positions
count its own tokens, so it gets what it would get alone, up to rounding.

Shapes: B rows, T target tokens, S fed positions, D hidden, P vectors of one row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from methods.backbone import Backbone
from methods.prefixes import Prefix, decoder_of, join_prefixes


def target_logits(
    backbone: Backbone, prefixes: Sequence[Prefix], fed: Sequence[Tensor], targets: Sequence[Tensor]
) -> list[Tensor]:
    """(T, V) of each row: the logits for each target token behind the vectors (P, D) and the targets before it."""
    device = backbone.device
    cache = join_prefixes(backbone.model, prefixes)
    width = cache.get_seq_length()
    embed = backbone.model.get_input_embeddings()
    rows = []
    for fed_PD, target_T in zip(fed, targets, strict=True):
        embeds_TD = embed(target_T[:-1])
        rows.append(torch.cat([fed_PD.to(embeds_TD), embeds_TD]))
    embeds_BSD = pad_sequence(rows, batch_first=True)
    num_fed = embeds_BSD.shape[1]
    start_B = torch.tensor([len(prefix) for prefix in prefixes], device=device)
    length_B = torch.tensor([len(row) for row in rows], device=device)
    place_K = torch.arange(width + num_fed, device=device)  # in the cache with what is fed
    mask_BK = (place_K >= width - start_B[:, None]) & (place_K < width + length_B[:, None])
    hidden_BSD = decoder_of(backbone.model)(
        inputs_embeds=embeds_BSD,
        attention_mask=mask_BK.long(),
        position_ids=start_B[:, None] + torch.arange(num_fed, device=device),
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    said = [
        hidden_SD[len(fed_PD) - 1 : len(fed_PD) - 1 + len(target_T)]
        for hidden_SD, fed_PD, target_T in zip(hidden_BSD, fed, targets, strict=True)
    ]
    logits: Tensor = backbone.model.get_output_embeddings()(torch.cat(said)).float()
    return list(logits.split([len(target_T) for target_T in targets]))
