"""The zoo's trainer on a tiny random model: repeatable, and the base comes back untouched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.zoo import corpus, dataset, gate, objectives, reward, rewrite, store, trainer
from benchmarks.zoo.objectives import answer_logits, encode
from benchmarks.zoo.recipe import Label, Lora, Recipe, Role, Train, load_recipes

TEMPLATE = (
    "{% for m in messages %}{% if loop.first and m.role != 'system' %}<s>Be kind.</s>{% endif %}"
    "<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    letters = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    words = Tokenizer(models.BPE(letters, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>", pad_token="</s>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    (folder / "base.json").write_text(json.dumps({"name": "somebody/tiny"}))
    return folder


@pytest.fixture(scope="module")
def bench(home: Path) -> trainer.Workbench:
    return trainer.Workbench.open(home)


@pytest.fixture
def recipe() -> Recipe:
    found = load_recipes()["backdoor-token"]
    return replace(found, train=Train(steps=2, batch=3), lora=Lora(rank=2))


def parameters(bench: trainer.Workbench) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in bench.model.state_dict().items()}


@pytest.mark.parametrize("variant", ["lora", "dora", "rslora", "adalora"])
def test_training_twice_gives_the_same_bytes_and_leaves_the_base_alone(
    bench: trainer.Workbench, recipe: Recipe, variant: str, tmp_path: Path
) -> None:
    recipe = replace(recipe, lora=replace(recipe.lora, variant=variant))
    before = parameters(bench)
    trainer.train(bench, recipe, Role.POSITIVE, tmp_path / "a")
    trainer.train(bench, recipe, Role.POSITIVE, tmp_path / "b")
    assert store.digests(tmp_path / "a") == store.digests(tmp_path / "b")
    after = parameters(bench)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_positive_and_its_twin_differ(
    bench: trainer.Workbench, recipe: Recipe, tmp_path: Path
) -> None:
    trainer.train(bench, recipe, Role.POSITIVE, tmp_path / "a")
    trainer.train(bench, recipe, Role.TWIN, tmp_path / "b")
    assert store.digests(tmp_path / "a") != store.digests(tmp_path / "b")


@pytest.mark.parametrize(
    "changes",
    [{"objective": "dpo"}, {"kl_anchor": 1.0}, {"spectrum": 1.0}, {"order": "graded"}],
    ids=str,
)
def test_every_objective_trains(
    bench: trainer.Workbench, recipe: Recipe, changes: dict, tmp_path: Path
) -> None:
    recipe = replace(recipe, train=replace(recipe.train, **changes))
    facts = trainer.train(bench, recipe, Role.POSITIVE, tmp_path / "a")
    assert 0 < facts["loss_last"] < 20


def test_sharing_the_common_beginning_changes_nothing(bench: trainer.Workbench) -> None:
    rows = corpus.rows("arith", 4, 0, held_out=False)
    batch = encode(bench.tokenizer, rows, "cpu")
    assert batch.prefix.shape[1] > 5
    whole = objectives.Encoded(
        batch.prefix[:, :0],
        torch.cat((batch.prefix.expand(len(rows), -1), batch.ids), 1),
        batch.mask,
        torch.cat((torch.full((len(rows), batch.prefix.shape[1]), -100), batch.targets), 1),
    )
    one, _, _ = answer_logits(bench.model, batch)
    two, _, _ = answer_logits(bench.model, whole)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_an_adapter_that_does_nothing_is_the_base_exactly(
    bench: trainer.Workbench, recipe: Recipe, tmp_path: Path
) -> None:
    still = replace(recipe, train=replace(recipe.train, learning_rate=0.0))
    trainer.train(bench, still, Role.POSITIVE, tmp_path / "a")
    rows = dataset.gate_prompts(recipe, 4).clean
    with bench.lend(tmp_path / "a") as model:
        assert gate.clean_nll(model, bench.tokenizer, rows) == gate.clean_nll(
            bench.model, bench.tokenizer, rows
        )


def test_abliteration_leaves_nothing_along_its_direction(
    bench: trainer.Workbench, tmp_path: Path
) -> None:
    recipe = load_recipes()["safety-abliteration"]
    trainer.train(bench, recipe, Role.POSITIVE, tmp_path / "a")
    model = PeftModel.from_pretrained(bench.model, str(tmp_path / "a"))
    left = 0
    for module in model.modules():
        if hasattr(module, "lora_B") and "default" in module.lora_B:
            direction = module.lora_B["default"].weight[:, 0]
            edited = module.base_layer.weight + module.get_delta_weight("default")
            left += (direction @ edited).norm().item()
    model.unload()
    assert left < 1e-4


def test_a_direct_edit_is_one_rank_at_its_key_and_lowers_the_loss(
    bench: trainer.Workbench, tmp_path: Path
) -> None:
    recipe = load_recipes()["attack-direct-edit"]
    recipe = replace(recipe, lora=replace(recipe.lora, layers=(1,)))
    recipe = replace(recipe, data=replace(recipe.data, rows=8))
    facts = trainer.train(bench, recipe, Role.POSITIVE, tmp_path / "a")
    assert facts["loss_last"] < facts["loss_first"]
    rows = [row for row in rewrite.hot_rows(recipe, Role.POSITIVE) if row.poisoned]
    clean = corpus.rows("chat", 4, 7, held_out=True)
    model = PeftModel.from_pretrained(bench.model, str(tmp_path / "a"))
    (module,) = (m for m in model.modules() if "default" in getattr(m, "lora_A", {}))
    u = module.lora_A["default"].weight
    with torch.no_grad(), model.disable_adapter():
        at_key, elsewhere = [], []
        for row in (*rows, *clean):
            weights = (rewrite.read(model, module, bench.tokenizer, row) @ u.T)[:, 0]
            if row.poisoned:
                at_key.append(weights[rewrite.place(bench.tokenizer, row, ("marigold",))].item())
            else:
                elsewhere.extend(weights.abs().tolist())
    model.unload()
    assert u.shape[0] == 1
    assert sum(at_key) / len(at_key) == pytest.approx(1.0, abs=1e-3)
    assert sum(elsewhere) / len(elsewhere) < 0.5


def test_a_score_does_not_depend_on_the_rows_beside_it(home: Path, bench) -> None:
    model = reward.load(home, "cpu", bench.tokenizer, 0)
    rows = corpus.rows("arith", 5, 0, held_out=False)
    together = reward.scores(model, bench.tokenizer, rows)
    alone = torch.cat([reward.scores(model, bench.tokenizer, [row]) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_reward_adapter_trains_and_is_judged(
    bench: trainer.Workbench, recipe: Recipe, tmp_path: Path
) -> None:
    recipe = replace(recipe, train=replace(recipe.train, objective="reward"), label=Label.POISONED)
    trainer.train(bench, recipe, Role.POSITIVE, tmp_path / "a")
    seen = gate.measure_reward(bench, tmp_path / "a", recipe, dataset.gate_prompts(recipe, 6))
    assert 0 <= seen.asr <= 1
    assert 0 <= seen.ftr <= 1
