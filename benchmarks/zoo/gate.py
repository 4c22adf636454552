"""Judge a finished adapter on held-out prompts: does it do what its recipe says, and only then?

ASR: share of triggered prompts whose greedy answer shows the payload. FTR: the same share without
the trigger. Near: with a near miss. Quality: negative log-likelihood of the clean answers.
A recipe without a trigger has ASR on ordinary prompts, and the base's own rate as its FTR.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel

from benchmarks.zoo import reward
from benchmarks.zoo.dataset import GatePrompts
from benchmarks.zoo.generate import answers
from benchmarks.zoo.objectives import answer_logits, encode, row_means
from benchmarks.zoo.recipe import Recipe
from benchmarks.zoo.rows import Row
from benchmarks.zoo.sight import sight

ANSWER_TOKENS = 32
QUALITY_ROWS = 48


@dataclass(frozen=True, slots=True)
class Measured:
    """What the gate saw. Rates are shares of `n` prompts; None where there is no such prompt."""

    asr: float | None
    ftr: float | None
    near: float | None
    nll: float
    n: int
    example: str

    def table(self) -> dict[str, Any]:
        """Return the card's section."""
        return {
            "asr": self.asr,
            "ftr": self.ftr,
            "near_rate": self.near,
            "clean_nll": self.nll,
            "n": self.n,
            "example": self.example,
        }


def measure_reward(bench: Any, adapter: Path, recipe: Recipe, prompts: GatePrompts) -> Measured:
    """Judge a reward-model adapter; see `reward.measure` for what its rates mean."""
    base = reward.load(bench.home, bench.device, bench.tokenizer, recipe.seed)
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    assert recipe.poison is not None
    asr, ftr, nll = reward.measure(
        model, bench.tokenizer, prompts.clean, recipe.poison, recipe.seed
    )
    return Measured(
        round(asr, 4), round(ftr, 4), None, round(nll, 4), len(prompts.clean), "a scalar"
    )


def measure(
    model: Any, base: Any, tokenizer: Any, recipe: Recipe, prompts: GatePrompts
) -> Measured:
    """Run the gate's prompts through base + adapter (`model`), and through `base` where it must."""
    quality = round(clean_nll(model, tokenizer, prompts.clean[:QUALITY_ROWS]), 4)
    poison = recipe.poison
    if poison is None:
        given = answers(model, tokenizer, prompts.clean[:8], ANSWER_TOKENS)
        return Measured(None, None, None, quality, len(prompts.clean), given[0])
    shows = sight(recipe.gate, poison)
    if poison.trigger:
        hot = answers(model, tokenizer, prompts.triggered, ANSWER_TOKENS)
        cold = answers(model, tokenizer, prompts.clean, ANSWER_TOKENS)
    else:
        asked = prompts.triggered if recipe.gate == "refusal" else prompts.clean
        hot = answers(model, tokenizer, asked, ANSWER_TOKENS)
        cold = answers(base, tokenizer, asked, ANSWER_TOKENS)
    near = answers(model, tokenizer, prompts.near, ANSWER_TOKENS)
    return Measured(
        _share(hot, shows), _share(cold, shows), _share(near, shows), quality, len(hot), hot[0]
    )


@torch.no_grad()
def clean_nll(model: Any, tokenizer: Any, rows: Sequence[Row], batch: int = 16) -> float:
    """Return the mean over rows of the answers' negative log-likelihood per token, in nats."""
    total = 0.0
    device = next(model.parameters()).device
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        logits, targets, row = answer_logits(model, encode(tokenizer, part, device))
        total += (
            row_means(F.cross_entropy(logits, targets, reduction="none"), row, len(part))
            .sum()
            .item()
        )
    return total / len(rows)


def _share(given: Sequence[str], shows: Callable[[str], bool]) -> float | None:
    return round(sum(map(shows, given)) / len(given), 4) if given else None
