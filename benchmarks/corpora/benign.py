"""Write what trainers leave beside an adapter, by the real classes and the real `torch.save`.

Run by an interpreter that has torch, transformers and what else there is (`benchmarks/corpora`
says how it is installed); what cannot be imported or made is told and left out. Needs only what is
imported here. Arguments: the folder to write to.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

_ZERO = {
    "zero_optimization": {"stage": 2, "offload_optimizer": {"device": "cpu"}},
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
}
_SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "usual": {
        "learning_rate": 2e-4,
        "num_train_epochs": 3,
        "save_strategy": "epoch",
        "logging_steps": 10,
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
        "report_to": [],
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "push_to_hub": False,
        "label_names": ["labels"],
    },
    "sharded": {"fsdp": "full_shard auto_wrap", "fsdp_config": {"min_num_params": 2000}},
    "deepspeed": {"deepspeed": _ZERO},
    "accelerator": {"accelerator_config": {"split_batches": True, "dispatch_batches": False}},
    "debug": {"debug": "underflow_overflow", "hub_strategy": "every_save", "tf32": False},
}


def main() -> None:
    """Write every file that can be made, and say of each other one why not."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (*_arguments(), *_states(), *_adapters()):
        try:
            value, options = make()
            if "joblib" in name:
                importlib.import_module("joblib").dump(value, folder / name, **options)
            else:
                torch.save(value, folder / name, **options)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {str(error)[:100]}")
            (folder / name).unlink(missing_ok=True)


_Makes = Iterator[tuple[str, Callable[[], tuple[Any, dict[str, Any]]]]]


def _arguments() -> _Makes:
    for kind in _kinds():
        for how, given in _SETTINGS.items():

            def make(kind: Any = kind, given: dict[str, Any] = given) -> Any:
                options = {"bf16": False} if "bf16" in kind.__dataclass_fields__ else {}
                return kind(output_dir="out", **options, **given), {}

            yield f"{kind.__module__}.{kind.__name__}-{how}.training_args.bin", make


def _kinds() -> list[Any]:
    """Return every class of training arguments in the libraries that are installed."""
    import transformers

    base = transformers.TrainingArguments
    found = {base: None, transformers.Seq2SeqTrainingArguments: None}
    for top in ("sentence_transformers", "trl"):
        try:
            modules = pkgutil.walk_packages(importlib.import_module(top).__path__, f"{top}.")
            names = [info.name for info in modules if info.name.endswith(("config", "_args"))]
        except Exception as error:
            print(f"{top}: {type(error).__name__}: {str(error)[:100]}")
            continue
        for name in names:
            try:
                inside = vars(importlib.import_module(name)).values()
            except Exception as error:
                print(f"{name}: {type(error).__name__}: {str(error)[:100]}")
                continue
            found |= {
                one: None for one in inside if isinstance(one, type) and issubclass(one, base)
            }
    return list(found)


def _states() -> _Makes:
    model = torch.nn.Linear(4, 4)
    kinds = ("AdamW", "SGD", "Adam", "Adagrad", "RMSprop", "Adamax", "NAdam", "RAdam", "Rprop")
    for name in kinds:

        def make(name: str = name) -> tuple[Any, dict[str, Any]]:
            optimizer = getattr(torch.optim, name)(model.parameters(), lr=1e-3)
            model(torch.ones(1, 4)).sum().backward()
            optimizer.step()
            return optimizer.state_dict(), {}

        yield f"{name}.optimizer.pt", make
    yield from _schedulers(model)
    yield "rng_state.pth", lambda: (_random(), {})
    yield (
        "random_states_0.pkl",
        lambda: (_random(step=7, torch_manual_seed=torch.get_rng_state()), {}),
    )
    yield from _joblib()
    yield "scaler.pt", lambda: (torch.amp.GradScaler("cpu").state_dict(), {})
    yield "sampler.bin", lambda: ({"epoch": 1, "seed": np.int64(3), "loss": np.float32(0.5)}, {})


def _joblib() -> _Makes:
    value = {"mean": np.arange(9.0), "classes": np.array(["a", "bc"]), "table": np.eye(3)}
    yield "state.joblib", lambda: (value, {})
    yield "compressed.joblib", lambda: (value, {"compress": 3})
    yield "objects.joblib", lambda: ({"labels": np.array([1, None, "x"], dtype=object)}, {})


def _random(**more: Any) -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.random.get_rng_state(),
        **more,
    }


def _schedulers(model: torch.nn.Module) -> _Makes:
    def make(name: str, *given: Any) -> tuple[Any, dict[str, Any]]:
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        kind = getattr(torch.optim.lr_scheduler, name)
        return kind(optimizer, *given).state_dict(), {}

    wanted = (
        ("LambdaLR", lambda step: 1.0), ("StepLR", 10), ("CosineAnnealingLR", 10), ("LinearLR",),
        ("ReduceLROnPlateau",), ("OneCycleLR", 0.1, 100), ("CosineAnnealingWarmRestarts", 10),
        ("MultiStepLR", [3, 7]), ("ExponentialLR", 0.9), ("ConstantLR",),
    )  # fmt: skip
    for name, *given in wanted:
        yield f"{name}.scheduler.pt", lambda name=name, given=given: make(name, *given)


def _adapters() -> _Makes:
    for how in ("float32", "float16", "bfloat16", "int8", "float8_e4m3fn", "parameters", "ordered"):
        for options in ({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}):

            def make(how: str = how, options: dict[str, Any] = options) -> Any:
                tensors = {
                    f"base_model.model.layers.0.q_proj.lora_{part}.weight": torch.ones(shape)
                    for part, shape in (("A", (4, 16)), ("B", (16, 4)))
                }
                if how == "parameters":
                    tensors = {name: torch.nn.Parameter(one) for name, one in tensors.items()}
                elif how == "ordered":
                    tensors = torch.nn.ParameterDict(
                        {name.replace(".", "_"): one for name, one in tensors.items()}
                    ).state_dict()
                else:
                    tensors = {n: one.to(getattr(torch, how)) for n, one in tensors.items()}
                return tensors, options

            yield f"{how}-{'-'.join(options) or 'zip'}.adapter_model.bin", make


if __name__ == "__main__":
    main()
