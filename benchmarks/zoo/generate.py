"""Text in, text out: encode conversations, decode greedily in batches sorted by length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.zoo.rows import Row

BATCH = 64


def prompt_ids(tokenizer: Any, row: Row) -> list[int]:
    """Return the token ids of a conversation up to where the answer starts."""
    text = tokenizer.apply_chat_template(row.messages(), tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@torch.no_grad()
def answers(model: Any, tokenizer: Any, rows: Sequence[Row], length: int) -> list[str]:
    """Return the greedy answer of at most `length` tokens to each row, in the rows' order."""
    encoded = [prompt_ids(tokenizer, row) for row in rows]
    order = sorted(range(len(rows)), key=lambda index: len(encoded[index]))
    found: dict[int, str] = {}
    device = next(model.parameters()).device
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        width = max(len(encoded[index]) for index in chosen)
        ids = torch.full((len(chosen), width), tokenizer.pad_token_id)
        mask = torch.zeros((len(chosen), width), dtype=torch.long)
        for line, index in enumerate(chosen):
            ids[line, width - len(encoded[index]) :] = torch.tensor(encoded[index])
            mask[line, width - len(encoded[index]) :] = 1
        out = model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=length,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        for line, index in enumerate(chosen):
            found[index] = tokenizer.decode(out[line, width:], skip_special_tokens=True).strip()
    return [found[index] for index in range(len(rows))]
