"""The same attack under names that promise something else, or nothing."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.corpora.archives import torch_zip
from benchmarks.corpora.pickles import ATTACK, RUN, STOP, tensors
from benchmarks.corpora.sample import Sample


def samples() -> Iterator[Sample]:
    """Yield a bare pickle for each name, and an adapter for the first ones."""
    names = (
        "weights", "weights.", "adapter_model.safetensors", "adapter_config.json.bin",
        "data.json", "notes.txt", "LICENSE", "guide.md", "logo.png", "table.csv", "vocab.json",
        "tokenizer.model", "merges.txt", "a.yaml", "events.out.tfevents.1", "model.onnx",
        "adapter.gguf", "model.h5", "model.msgpack", "data.parquet", "data.arrow",
        "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin",
        "random_states_0.pkl", "trainer_state.json", "x.distcp", "x.t7", "x.dat", "x.data",
        "x.model", "x.weights", "x.pkl.txt", "x.tar.gz", "x.PKL", "x.Bin", "x.pt2", "x.index",
        "x.faiss", "x.svg", "special_tokens_map.json", "x.bin ",
    )  # fmt: skip
    for name in names:
        yield Sample("suffixes", f"pickle as {name!r}", name, ATTACK)
    slow = b"I1\n0" * 2000 + RUN + STOP  # tells only behind the first kilobytes
    for name in ("weights", "data.json", "notes.txt", "LICENSE"):
        yield Sample("suffixes", f"pickle that begins slowly as {name!r}", name, slow)
    for name in names[:18]:
        yield Sample("suffixes", f"torch zip as {name!r}", name, torch_zip(tensors(before=RUN)))
