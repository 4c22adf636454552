"""Base and adapter in one process, by transformers and peft.

Tails of one length form a batch; the keys and values of their prefixes are computed once and kept.

Loading an adapter can write into the base (undeclared full tensors; PEFT loads with strict=False),
and `disable_adapter()` does not undo that. So every parameter of the base is hashed before and
after. What the adapter's file names is copied before; what changed is kept in both versions and
exchanged whenever the side is.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from adapterscan.runner import (
    FLOOR,
    Chain,
    Choice,
    Contrast,
    Facts,
    Ids,
    ReadOut,
    Removal,
    Runner,
    Side,
    Split,
    Tails,
    Told,
    Turn,
    before_end,
    messages,
    plain_layout,
    without_system,
)
from adapterscan.runners import changed, lexical, removal, stirred

#: Keys, values and logits of one batch, bytes: what is needed beside base and adapter.
BATCH_BYTES = 384 << 20
BLOCK = 8192  # rows of the embedding table that are looked at in float32 at once
LOGIT_BYTES = 192 << 20  # of a part of the candidates, for each side
ATTENTION = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
_SAVED = "base_model.model."  # how peft begins names in a file
OPENED = 6  # prefixes that are kept open, for each side's half


class TransformersRunner(Runner):
    """A causal language model and one adapter, switched on and off."""

    def __init__(
        self, base: Path, adapter: Path | None, device: str = "cpu", threads: int = 1,
        dtype: str = "auto",
    ) -> None:  # fmt: skip
        """Load the base in `base` (a folder or a GGUF file) and the staged adapter in `adapter`.

        Without an adapter both sides are the base.

        `adapter` must come from `staging`: nothing of the adapter's own config reaches peft.
        `dtype`: "float32", "bfloat16", or "auto", see `precision`.
        """
        self._dtype = precision(device) if dtype == "auto" else getattr(torch, dtype)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(**_where(base))
        model = self._load(base, adapter)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        before, held = _digests(model), _held(model, adapter)
        self.model: Any = _loaded(model, adapter)
        self.model.requires_grad_(False)
        # peft keeps factors in float32, which is slow beside a bfloat16 base
        for parameter in self.model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(model.dtype)
        # Of a slice, a bfloat16 product would first copy the vocabulary's weights for every row.
        if head := self.model.get_base_model().get_output_embeddings():
            head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
        self._exchanged = self._replaced(before, held)
        self._side = Side.ADAPTER
        self._opened: dict[tuple[Side, tuple[Ids, ...]], _Opened] = {}
        config = model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ()) - ATTENTION
        if kinds:
            raise ValueError(f"layers of kind {', '.join(sorted(kinds))} are not supported yet")
        self._cache_bytes = _cache_bytes(config)
        table = model.get_output_embeddings() or model.get_input_embeddings()
        self._vocabulary = int(table.weight.shape[0])
        self.facts = Facts(
            runner="transformers",
            device=device,
            dtype=str(model.dtype).removeprefix("torch."),
            layers=int(config.num_hidden_layers),
            parameters=parameters,
            vocabulary=self._vocabulary,
            ends=tuple(sorted(self._ends())),
            modules=sum(hasattr(module, "base_layer") for module in model.modules()),
            overwritten=tuple(sorted(self._exchanged)),
            template=bool(self.tokenizer.chat_template),
        )  # fmt: skip

    def _load(self, base: Path, _: Path | None) -> Any:
        """Return the base alone."""
        return load(AutoModelForCausalLM, base, self.device, self._dtype)

    def encode(self, conversations: Sequence[Sequence[Turn]]) -> list[Ids]:
        """Return the ids of each conversation up to where the answer starts."""
        texts = [self._render(conversation) for conversation in conversations]
        return self.tokenize(texts)

    def _render(self, conversation: Sequence[Turn]) -> str:
        if self.tokenizer.chat_template:
            try:
                return self._templated(conversation)
            except TemplateError:  # some templates know no system role
                return self._templated(without_system(conversation))
        return f"{self.tokenizer.bos_token or ''}{plain_layout(conversation)}"

    def _templated(self, conversation: Sequence[Turn]) -> str:
        text: str = self.tokenizer.apply_chat_template(
            messages(conversation), tokenize=False, add_generation_prompt=True
        )
        return text

    def tokenize(self, texts: Sequence[str]) -> list[Ids]:
        """Return the ids of plain texts, without special tokens added."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [tuple(ids) for ids in found]

    def decode(self, rows: Sequence[Ids]) -> list[str]:
        """Return the texts of rows of ids, special tokens left out."""
        if not rows:
            return []
        found: list[str] = self.tokenizer.batch_decode(
            [list(row) for row in rows], skip_special_tokens=True
        )
        return found

    @torch.inference_mode()
    def contrast(self, prefixes: Sequence[Ids], tails: Tails, top: int) -> list[Contrast]:
        """Compare the next-token distributions after prefix + tail, one result a candidate."""
        found: list[Contrast] = []
        step = max(1, LOGIT_BYTES // (self._vocabulary * 4 * len(prefixes)))
        for start in range(0, len(tails), step):
            part = tails[start : start + step]
            adapter = self._next(Side.ADAPTER, prefixes, part)
            base = self._next(Side.BASE, prefixes, part)
            found += [_contrast(a, b, top) for a, b in zip(adapter, base, strict=True)]
        return found

    def _next(self, side: Side, prefixes: Sequence[Ids], tails: Tails) -> Tensor:
        """Return log-probabilities (candidates, prefixes, vocabulary)."""
        logits = torch.empty(len(tails), len(prefixes), self._vocabulary, device=self.device)
        for rows, places, given in self._batches(side, prefixes, tails, 1):
            logits[rows, places] = given[:, -1].float()
        return numbers(logits).log_softmax(-1)

    @torch.inference_mode()
    def score(
        self, side: Side, prefixes: Sequence[Ids], tails: Tails, target: Ids
    ) -> list[tuple[float, ...]]:
        """Return ln p(target | prefix + tail), (candidates, prefixes), nats."""
        scores = torch.empty(len(tails), len(prefixes), device=self.device)
        wanted = torch.tensor(target, device=self.device)
        longer = [[(*tail, *target[:-1]) for tail in row] for row in tails]
        for rows, places, given in self._batches(side, prefixes, longer, len(target)):
            logits = numbers(given.float())
            chosen = logits.gather(2, wanted.expand(len(logits), -1)[:, :, None])[:, :, 0]
            scores[rows, places] = (chosen - logits.logsumexp(-1)).sum(1)
        return [tuple(row) for row in scores.tolist()]

    @torch.inference_mode()
    def roll(self, prefixes: Sequence[Ids], chains: Sequence[Ids], length: int) -> list[Chain]:
        """Extend each chain by the adapter's most probable token on average, `length` times.

        Chains must be of one length.
        """
        if not chains:
            return []
        width = max(map(len, prefixes)) + len(chains[0]) + length
        row_bytes = 2 * self._cache_bytes * width + 12 * self._vocabulary
        at_once = max(1, BATCH_BYTES // (row_bytes * len(prefixes)))
        parts = (chains[i : i + at_once] for i in range(0, len(chains), at_once))
        return [chain for part in parts for chain in self._roll(prefixes, part, length)]

    def _roll(self, prefixes: Sequence[Ids], chains: Sequence[Ids], length: int) -> list[Chain]:
        n, p = len(chains), len(prefixes)
        fed = torch.tensor(chains, device=self.device)
        heads, last = [prefix[:-1] for prefix in prefixes], [prefix[-1] for prefix in prefixes]
        everywhere = torch.arange(p, device=self.device).repeat_interleave(n)
        states = {side: self._open(side, heads).rows(everywhere) for side in Side}
        given = torch.tensor(last, device=self.device).repeat_interleave(n)
        found = fed[:, :0]
        seen: dict[Side, list[Tensor]] = {side: [] for side in Side}
        for step in range(fed.shape[1] + length):
            mean = {}
            for side in Side:
                logits = self._forward(side, given[:, None], states[side], 1)[:, -1].float()
                logits = numbers(logits)
                mean[side] = logits.softmax(-1).view(p, n, -1).mean(0)
            likely = mean[Side.ADAPTER].argmax(-1)
            chosen = fed[:, step] if step < fed.shape[1] else likely
            for side in Side:
                seen[side].append(mean[side].gather(1, chosen[:, None])[:, 0])
            found = torch.cat([found, chosen[:, None]], 1)
            given = chosen.repeat(p)
        adapter, base = (torch.stack(seen[side], 1).tolist() for side in Side)
        return [
            Chain(tuple(ids), tuple(given_a), tuple(given_b))
            for ids, given_a, given_b in zip(found.tolist(), adapter, base, strict=True)
        ]

    def promising(
        self, prefixes: Sequence[Ids], suffixes: Sequence[Ids], target: Ids, count: int
    ) -> list[int]:
        """Return tokens that, between prefix and suffix, should make `target` likelier next.

        By the gradient at a few neutral tokens, against embeddings of unit length.
        Source: HotFlip (Ebrahimi et al. 2018), with the base's gradient subtracted.
        """
        table = self.model.get_base_model().get_input_embeddings()
        slope = torch.zeros(table.weight.shape[1], device=self.device)
        neutral = [ids[0] for ids in self.tokenize([" it", " please", " x"]) if ids]
        for side, sign in ((Side.ADAPTER, 1.0), (Side.BASE, -1.0)):
            with self._as(side):
                for prefix, suffix in zip(prefixes, suffixes, strict=True):
                    for token in neutral:
                        ids = torch.tensor([(*prefix, token, *suffix, *target)], device=self.device)
                        slope += sign * self._slope(table, ids, len(prefix), target)
        return pointed_to(table, slope, count)

    @torch.enable_grad()
    def _slope(self, table: Any, ids: Tensor, place: int, target: Ids) -> Tensor:
        """Return the gradient of ln p(target at the end) by the embedding at `place`."""
        slot, whole = slotted(table, ids, place)
        out = self.model(inputs_embeds=whole, use_cache=False, logits_to_keep=len(target) + 1)
        logp = out.logits[0, :-1].float().log_softmax(-1)
        wanted = logp.gather(1, ids[0, -len(target) :, None]).sum()
        (slope,) = torch.autograd.grad(wanted, slot)
        return slope[0, 0].float()

    @torch.inference_mode()
    def read_out(self, prefix: Ids, count: int) -> ReadOut:
        """Return the tokens that the weights point to, `count` of each kind, behind `prefix`."""
        return ReadOut(
            tuple(lexical.promoted(self.model, min(count, lexical.PROMOTED))),
            tuple(lexical.heeded(self.model, self._feed(prefix, 1), self._vocabulary, count)),
        )

    @torch.inference_mode()
    def heed(self, prefix: Ids, rows: Sequence[Ids], operations: float) -> list[float]:
        """Return how much the first changed layers answer to each row behind `prefix`."""
        feed = self._feed(prefix, max(map(len, rows), default=1))
        return lexical.heard(self.model, feed, rows, operations)

    @torch.inference_mode()
    def stir(
        self, prefixes: Sequence[Ids], tails: Tails, usual: Sequence[Ids]
    ) -> list[tuple[float, ...]]:
        """Return how much more than usual the changed modules do, (candidates, prefixes)."""

        def seen(before: Sequence[Ids], rows: Tails) -> Tensor:
            passes = self._batches(Side.ADAPTER, before, rows, 1)
            return stirred.energies(self.model, passes, (len(rows), len(before)))

        if not (tails and usual):
            return []
        known = seen([()], [[row] for row in usual])[:, 0]
        found = seen(prefixes, tails)
        scores = changed.robust(found.flatten(0, 1), known).mean(1).view(found.shape[:2])
        return [tuple(row) for row in scores.tolist()]

    def _feed(self, prefix: Ids, longest: int) -> lexical.Feed:
        """Return what runs base + adapter on rows of ids, at most so long, behind `prefix`."""
        opened = self._open(Side.ADAPTER, [prefix])

        def run(ids: Tensor, layers: int | None) -> None:
            places = torch.zeros(len(ids), dtype=torch.long, device=self.device)
            state = opened.rows(places, layers)
            self._forward(Side.ADAPTER, ids.to(self.device), state, 1)

        room = BATCH_BYTES // (self._cache_bytes * (opened.width + longest))
        return lexical.Feed(run, max(1, room))

    @torch.inference_mode()
    def removals(self, rows: Sequence[Ids], splits: Sequence[Split]) -> list[Removal]:
        """Return how much of the direction between the sets of each split is removed."""
        states = self._states(rows)
        with self._as(Side.BASE):
            return removal.removals(self.model, states, splits)

    @torch.inference_mode()
    def directions(self, rows: Sequence[Ids], splits: Sequence[Split]) -> Told:
        """Return the base's direction between the sets of each split, behind some layers."""
        return removal.told(self._states(rows), splits)

    def _states(self, rows: Sequence[Ids]) -> Tensor:
        """Return what the base's layers leave at the last id, (rows, layers − 1, hidden)."""
        found: list[Tensor] = []
        step = max(1, min(32, BATCH_BYTES // (self._cache_bytes * max(map(len, rows)))))
        for start in range(0, len(rows), step):
            ids, mask = self._padded(rows[start : start + step])
            with self._as(Side.BASE):
                out = self.model(
                    input_ids=ids, attention_mask=mask, output_hidden_states=True,
                    use_cache=False, logits_to_keep=1,
                    position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                )  # fmt: skip
            found.append(
                torch.stack([s[:, -1].float() for s in out.hidden_states[1:-1]], 1)
            )  # the last is normed
        return torch.cat(found)

    @torch.inference_mode()
    def generate(
        self, side: Side, rows: Sequence[Ids], length: int, temperature: float = 0.0, seed: int = 0
    ) -> list[Ids]:
        """Return at most `length` new ids for each row; greedy at temperature 0."""
        torch.manual_seed(seed)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        width = len(rows[order[-1]]) + length if rows else 1
        step = max(1, min(128, BATCH_BYTES // (self._cache_bytes * width)))
        ends = self._ends()
        found: dict[int, Ids] = {}
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        with self._as(side):
            for start in range(0, len(order), step):
                chosen = order[start : start + step]
                ids, mask = self._padded([rows[index] for index in chosen])
                out = self.model.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=length,
                    pad_token_id=self._pad(), eos_token_id=sorted(ends),
                    **(sampling if temperature else {"do_sample": False}),
                )  # fmt: skip
                for line, index in enumerate(chosen):
                    found[index] = before_end(out[line, ids.shape[1] :].tolist(), ends)
        return [found[index] for index in range(len(rows))]

    def _ends(self) -> set[int]:
        given = self.model.get_base_model().generation_config.eos_token_id
        ends = set(given if isinstance(given, list) else [given])
        return {end for end in (*ends, self.tokenizer.eos_token_id) if end is not None}

    def _pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else min(self._ends(), default=0))

    def _padded(self, rows: Sequence[Ids]) -> tuple[Tensor, Tensor]:
        """Return ids and mask, (rows, width), padded on the left."""
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self._pad(), device=self.device)
        mask = torch.zeros((len(rows), width), dtype=torch.long, device=self.device)
        for line, row in enumerate(rows):
            ids[line, width - len(row) :] = torch.tensor(row)
            mask[line, width - len(row) :] = 1
        return ids, mask

    def _batches(
        self, side: Side, prefixes: Sequence[Ids], tails: Tails, count: int
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield candidates, prefixes, (rows,), and the last `count` logits of their rows.

        Rows of a batch have tails of one length and fill the memory that a batch may take.
        """
        lengths: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for candidate, row in enumerate(tails):
            for place, tail in enumerate(row):
                lengths[len(tail)].append((candidate, place))
        opened = self._open(side, prefixes)
        for length, members in sorted(lengths.items()):
            row_bytes = self._cache_bytes * (opened.width + length) + self._vocabulary * 4 * count
            step = max(1, BATCH_BYTES // row_bytes)
            for start in range(0, len(members), step):
                part = members[start : start + step]
                ids = torch.tensor([tails[c][p] for c, p in part], device=self.device)
                rows, places = torch.tensor(part, device=self.device).unbind(1)
                yield rows, places, self._forward(side, ids, opened.rows(places), count)

    def _forward(self, side: Side, ids: Tensor, state: _State, count: int) -> Tensor:
        """Feed ids, (rows, n), after a state, which grows by them; return the last logits."""
        state.feed(ids.shape[1])
        with self._as(side):
            return self._outputs(
                count, input_ids=ids, attention_mask=state.mask, past_key_values=state.cache,
                position_ids=state.positions(ids.shape[1]), use_cache=True,
            )  # fmt: skip

    def _outputs(self, count: int, **given: Any) -> Tensor:
        """Return the last `count` outputs of every row, (rows, count, vocabulary)."""
        logits: Tensor = self.model(**given, logits_to_keep=count).logits
        return logits

    def _open(self, side: Side, prefixes: Sequence[Ids]) -> _Opened:
        """Return the keys and values of prefixes, computed once for the last few asked."""
        key = (side, tuple(prefixes))
        if key not in self._opened:
            while len(self._opened) >= OPENED:
                del self._opened[next(iter(self._opened))]
            ids, mask = self._padded(prefixes)
            state = _State(DynamicCache(), mask)
            if ids.shape[1]:  # or they share nothing
                with self._as(side):
                    self._outputs(
                        1, input_ids=ids, attention_mask=mask, past_key_values=state.cache,
                        position_ids=state.positions(ids.shape[1]), use_cache=True,
                    )  # fmt: skip
            self._opened[key] = _Opened(state.cache, mask)
        return self._opened[key]

    @contextmanager
    def _as(self, side: Side) -> Iterator[None]:
        """Answer as base + adapter or as the pristine base."""
        if side is not self._side:
            for name, versions in self._exchanged.items():
                self.model.get_base_model().get_parameter(name).data = versions[side]
            self._side = side
        if side is Side.BASE:
            with self.model.disable_adapter():
                yield
        else:
            yield

    def _replaced(
        self, before: Mapping[str, str], held: Mapping[str, Tensor]
    ) -> dict[str, dict[Side, Tensor]]:
        """Return both versions of every base parameter that loading the adapter changed.

        Raises ValueError where something changed that the adapter's file does not name.
        """
        inner = self.model.get_base_model()
        names = {_plain(name): name for name, _ in _tensors(inner) if _plain(name) in before}
        after = _digests(inner)
        changed = {plain: name for plain, name in names.items() if before[plain] != after[name]}
        if unnamed := sorted(changed.keys() - held.keys()):
            raise ValueError(
                f"the adapter changes {unnamed[0]} of the base, and it cannot be undone"
            )
        return {
            name: {Side.ADAPTER: inner.get_parameter(name).data, Side.BASE: held[plain]}
            for plain, name in changed.items()
        }


class _State:
    """Keys and values of some rows, and which of their positions are real."""

    def __init__(self, cache: Any, mask: Tensor) -> None:
        self.cache, self.mask = cache, mask

    def feed(self, count: int) -> None:
        """Make room for `count` more ids."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), count)], 1)

    def positions(self, count: int) -> Tensor:
        """Return the positions of the last `count` ids, (rows, count)."""
        return (self.mask.cumsum(1) - 1).clamp(min=0)[:, -count:]


class _Opened:
    """Prefixes that were read once, padded on the left to one width."""

    def __init__(self, cache: Any, mask: Tensor) -> None:
        self._cache, self._mask = cache, mask
        self.width = mask.shape[1]

    def rows(self, places: Tensor, layers: int | None = None) -> _State:
        """Return a state with a row for each of `places`, (rows,), an index of a prefix.

        `layers`: how many will run, from the first on; None: all.
        """
        cache = DynamicCache()
        for index, layer in enumerate(self._cache.layers[:layers]):
            cache.update(layer.keys[places], layer.values[places], index)
        return _State(cache, self._mask[places])


def numbers(logits: Tensor) -> Tensor:
    """Return logits as they are. Raises ArithmeticError where a model overflowed."""
    if bool(torch.isnan(logits).any()) or bool(torch.isposinf(logits).any()):
        raise ArithmeticError("the model's answers are not numbers")
    return logits


def _contrast(adapter: Tensor, base: Tensor, top: int) -> Contrast:
    """Compare log-probabilities (prefixes, vocabulary)."""
    p, q = adapter.exp(), base.exp()
    mean, base_mean = p.mean(0), q.mean(0)
    lift = ((p + FLOOR).log() - (q + FLOOR).log()).median(0).values
    divergence = (p * (adapter - base)).sum(-1).mean()

    def choices(tokens: Tensor) -> tuple[Choice, ...]:
        return tuple(
            Choice(token, mean[token].item(), base_mean[token].item(), lift[token].item())
            for token in tokens.tolist()
        )

    return Contrast(
        choices(mean.topk(top).indices),
        choices(lift.topk(top).indices),
        max(0.0, divergence.item()),
        base_mean.max().item(),
    )


def precision(device: str) -> torch.dtype:
    """Return bfloat16 where it is native, which is 3.5 times as fast, else float32.

    Measured on a processor with AVX512-BF16; without such instructions it is several times slower.
    """
    native = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def load(kind: Any, base: Path, device: str, dtype: torch.dtype, **more: Any) -> Any:
    """Return a base model of one of transformers' auto classes, in evaluation mode."""
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa", **more}
    if base.is_file():
        from transformers import GgufConfig

        options["quantization_config"] = GgufConfig(dequantize=True)
    found = kind.from_pretrained(**_where(base), **options)
    model, *told = found if isinstance(found, tuple) else (found,)
    model = model.to(device).eval().requires_grad_(False)
    return (model, *told) if told else model


def _where(base: Path) -> dict[str, Any]:
    """Return how transformers is told of a folder or a GGUF file; code is never run."""
    told: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if base.is_file():
        return {**told, "pretrained_model_name_or_path": str(base.parent), "gguf_file": base.name}
    return {**told, "pretrained_model_name_or_path": str(base)}


def _loaded(model: Any, adapter: Path | None) -> Any:
    """Return the base with the staged adapter on it, all of it; without one, with one of zeros.

    Raises ValueError where peft left something out: it loads without strictness and only warns.
    """
    if adapter is None:
        first = next(
            n for n, module in model.named_modules() if isinstance(module, torch.nn.Linear)
        )
        return get_peft_model(model, LoraConfig(r=1, target_modules=[first])).eval()  # B is zero
    told = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = PeftModel.from_pretrained(model, str(adapter)).eval()
    if any("missing adapter keys" in str(warning.message) for warning in said):
        raise ValueError("not found in the base model: some of the adapter's tensors were not used")
    inner = found.get_base_model()
    adapted = {name for name, module in inner.named_modules() if hasattr(module, "lora_A")}
    wanted = set(told["target_modules"])
    saved = {name for name, module in inner.named_modules() if hasattr(module, "modules_to_save")}
    left = sorted((wanted ^ adapted) | (set(told["modules_to_save"] or ()) - saved))
    if left:
        raise ValueError(f"not found in the base model: {len(left)} modules, such as {left[0]}")
    return found


def _tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _digests(model: Any) -> dict[str, str]:
    """Return the SHA-256 of every parameter and buffer by name."""
    return {
        name: hashlib.sha256(
            tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        ).hexdigest()
        for name, tensor in _tensors(model)
    }


def _held(model: Any, adapter: Path | None) -> dict[str, Tensor]:
    """Return copies of the base's parameters that the staged adapter's file has by name."""
    if adapter is None:
        return {}
    with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
        named = {_plain(name).removeprefix(_SAVED) for name in file.keys()}  # noqa: SIM118
    tied: dict[int, list[str]] = defaultdict(list)  # parameters have several names
    for name, parameter in model.named_parameters(remove_duplicate=False):
        tied[id(parameter)].append(name)
    return {
        names[0]: model.get_parameter(names[0]).detach().clone()
        for names in tied.values()
        if not named.isdisjoint(names)
    }


def _plain(name: str) -> str:
    """Return a parameter's name as it was before peft wrapped its module."""
    return name.replace(".base_layer", "").replace(".original_module", "")


def _cache_bytes(config: Any) -> int:
    """Return the bytes of keys and values of one token, at most: in float32."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_hidden_layers * heads * size * 2 * 4)


def slotted(table: Any, ids: Tensor, place: int) -> tuple[Tensor, Tensor]:
    """Return the embedding at `place`, which a gradient can be taken by, and the row with it."""
    slot = table(ids[:, place : place + 1]).detach().requires_grad_(True)
    parts = [table(ids[:, :place]).detach(), slot, table(ids[:, place + 1 :]).detach()]
    return slot, torch.cat(parts, 1)


def pointed_to(table: Any, slope: Tensor, count: int) -> list[int]:
    """Return the tokens whose embeddings, made of unit length, a gradient points to, best first."""
    blocks = (block.float() for block in table.weight.detach().split(BLOCK))
    scores = torch.cat([(b @ slope) / b.norm(dim=1).clamp(min=1e-6) for b in blocks])
    return [int(token) for token in scores.topk(min(count, len(scores))).indices.tolist()]
