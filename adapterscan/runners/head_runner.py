"""A base with a scalar or class head and one adapter: reward models and classifiers (SEQ_CLS).

A decoder's head reads the last token. Transformers looks for it by the padding token's id, which
in a base that pads with its end token is the wrong place; ours is always the last id of a row, and
rows of one batch have tails of one length.

The base side is the base without the adapter's low-rank updates. A base with a head of its own is
read with that; elsewhere the only head is the adapter's, and both sides have it: what is then seen
on the base side comes from the head, and an adapter that updates nothing gives exactly zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from adapterscan.runner import Ids, Side, Tails, Turn
from adapterscan.runners.transformers_runner import (
    TransformersRunner,
    load,
    numbers,
    pointed_to,
    slotted,
)

POINTS = 8  # tokens at which a gradient is taken
HEAD = "score"  # what decoders call it; staging lets no other one pass


class HeadRunner(TransformersRunner):
    """A decoder with a head and one adapter, switched on and off."""

    def __init__(self, base: Path, adapter: Path, *options: Any, **named: Any) -> None:
        """Load the base in `base` and the staged adapter in `adapter`, which brings the head."""
        self._own_head = False
        self._labels = _labels(adapter)
        super().__init__(base, adapter, *options, **named)
        head = self.model.get_base_model().get_submodule(HEAD).float()
        if not self._own_head:
            trained = head.modules_to_save["default"].state_dict()
            head.original_module.load_state_dict(trained)
        self.facts = replace(self.facts, labels=self._labels, own_head=self._own_head)

    def _load(self, base: Path, adapter: Path | None) -> Any:
        """Return the base with a head of the adapter's shape, drawn at random where it has none.

        Raises ValueError where more than the head is missing, the base has a head of another shape,
        or is a GGUF file.
        """
        if adapter is None:
            raise ValueError("a head comes with its adapter")
        if base.is_file():
            raise ValueError("a head cannot be put on a GGUF file: give a folder as --base")
        try:
            model, told = load(
                AutoModelForSequenceClassification, base, self.device, self._dtype,
                num_labels=self._labels, output_loading_info=True,
            )  # fmt: skip
        except RuntimeError as error:
            if "mismatched" not in str(error):
                raise
            raise ValueError("size mismatch: the base has a head of another shape") from error
        missing = set(told["missing_keys"])
        if missing - {f"{HEAD}.weight"}:
            raise ValueError(f"the base lacks {sorted(missing)[0]}")
        self._own_head = not missing
        return model

    def _replaced(
        self, before: Mapping[str, str], held: Mapping[str, Tensor]
    ) -> dict[str, dict[Side, Tensor]]:
        """Return both versions of what the adapter changed in the base; no head where none was."""
        found = super()._replaced(before, held)
        own = (name for name in found if self._own_head or not name.startswith(f"{HEAD}."))
        return {name: found[name] for name in own}

    def _ends(self) -> set[int]:
        end = self.tokenizer.eos_token_id
        return set() if end is None else {int(end)}

    def _render(self, conversation: Sequence[Turn]) -> str:
        """Return a conversation up to where the answer starts, or with its answer and the end."""
        if conversation[-1].role != "assistant":
            return super()._render(conversation)
        asked = super()._render(conversation[:-1])
        between = "" if asked.endswith((" ", "\n")) else " "
        return f"{asked}{between}{conversation[-1].text}{self.tokenizer.eos_token or ''}"

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> list[Ids]:
        """Return the ids of conversations, ended where they have an answer, or of bare texts.

        A bare text (one turn, of role "text") is what a classifier reads: the tokenizer adds what
        it adds by itself.
        """
        found: list[Ids] = []
        for turns in conversations:
            if turns[0].role == "text":
                found.append(tuple(self.tokenizer(turns[0].text)["input_ids"]))
            else:
                found += self.tokenize([self._render(turns)])
        return found

    @torch.inference_mode()
    def logits(
        self, side: Side, prefixes: Sequence[Ids], tails: Tails
    ) -> list[tuple[tuple[float, ...], ...]]:
        """Return the head's outputs after prefix + tail, (candidates, prefixes, labels)."""
        found = torch.empty(len(tails), len(prefixes), self._labels, device=self.device)
        for rows, places, given in self._batches(side, prefixes, tails, 1):
            found[rows, places] = numbers(given[:, -1])
        return [tuple(tuple(labels) for labels in row) for row in found.tolist()]

    def _outputs(self, count: int, **given: Any) -> Tensor:
        """Return the head's outputs at the last `count` ids of every row, (rows, count, labels)."""
        inner = self.model.get_base_model()
        hidden = inner.base_model(**given).last_hidden_state[:, -count:]
        found: Tensor = inner.get_submodule(HEAD)(hidden.float())
        return found

    def leaning(
        self,
        prefixes: Sequence[Ids],
        suffixes: Sequence[Ids],
        weights: Sequence[float],
        count: int,
    ) -> list[int]:
        """Return tokens that, between prefix and suffix, should raise `weights` · outputs.

        Source: HotFlip (Ebrahimi et al. 2018), at tokens from all over the vocabulary: at a few
        common words the slope of a head says next to nothing. The base's gradient is not
        subtracted: under a head that was not trained for it, it points nowhere.
        """
        table = self.model.get_base_model().get_input_embeddings()
        slope = torch.zeros(table.weight.shape[1], device=self.device)
        step = max(1, self._vocabulary // POINTS)
        points = range(step // 2, self._vocabulary, step)
        with self._as(Side.ADAPTER):
            for prefix, suffix in zip(prefixes, suffixes, strict=True):
                rows = [(*prefix, token, *suffix) for token in points]
                ids = torch.tensor(rows, device=self.device)
                slope += self._lean(table, ids, len(prefix), weights)
        return pointed_to(table, slope, count)

    @torch.enable_grad()
    def _lean(self, table: Any, ids: Tensor, place: int, weights: Sequence[float]) -> Tensor:
        """Return the gradient of `weights` · outputs by the embeddings at `place`, summed."""
        slot, whole = slotted(table, ids, place)
        outputs = self._outputs(1, inputs_embeds=whole, use_cache=False)[:, -1]
        wanted = (outputs @ outputs.new_tensor(list(weights))).sum()
        (slope,) = torch.autograd.grad(wanted, slot)
        return slope[:, 0].float().sum(0)

    def _no_text(self, *_: Any, **__: Any) -> NoReturn:
        """Raise ValueError: no text is written."""
        raise ValueError("this model has a head: it scores text and writes none")

    contrast = score = roll = promising = generate = _no_text


def _labels(adapter: Path) -> int:
    """Return the outputs of the staged adapter's head."""
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        return int(file.get_slice(f"base_model.model.{HEAD}.weight").get_shape()[0])
