"""The runner: the base stays the base, whatever an adapter does to it; answers repeat."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from adapterscan.errors import AdapterscanError, RunnerProblem
from adapterscan.probes.staging import stage
from adapterscan.reading import read
from adapterscan.runner import Side, Turn
from adapterscan.runners import changed, lexical, transformers_runner
from adapterscan.runners.host import HostedRunner, RunnerOptions
from adapterscan.runners.transformers_runner import TransformersRunner
from adapterscan.sources import HubOptions, open_artifact, parse_ref

from . import bases

WORDS = (
    "the a cat dog sat ran on mat red blue is was and . ? what who system user assistant".split()
)
TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}<s> assistant"
)
PREFIXES = [(3, 4, 5), (6, 7, 8, 9)]
TAILS = [[(10, 11), (10, 11)], [(12,), (12,)], [(13, 3, 4), (13, 3, 4)]]
OPTIONS = RunnerOptions(dtype="float32")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"))


def make_base(folder, **options):
    """Write a tiny random language model with a tokenizer and a template."""
    torch.manual_seed(0)
    model = bases.llama(eos_token_id=1, pad_token_id=1, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8.0)  # so that answers differ
    model.save_pretrained(folder)
    vocabulary = {word: index for index, word in enumerate(["<s>", "</s>", "<unk>", *WORDS])}
    vocabulary |= {f"w{index}": index for index in range(len(vocabulary), bases.VOCABULARY)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="</s>", pad_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(folder, size=0.5, **options):
    torch.manual_seed(1)
    plan = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"], **options}
    model = get_peft_model(bases.llama(), LoraConfig(**plan))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, size) if size else parameter.zero_()
    model.save_pretrained(folder)
    return folder


def overwriting(folder, name, tensor):
    """Return an adapter whose file has a tensor of the base, undeclared."""
    file = make_adapter(folder) / "adapter_model.safetensors"
    save_file(load_file(file) | {f"base_model.model.{name}": tensor}, file)
    return folder


def staged(folder, tmp_path):
    """Read an adapter as a scan does, and stage it."""
    out = tmp_path / "staged"
    out.mkdir()
    artifact = open_artifact(parse_ref(str(folder)), HubOptions())
    contents = read(artifact, workers=1)
    (weighed,) = contents.adapters
    stage(contents, weighed.adapter, out)
    return out


def runner(base, folder, tmp_path):
    return TransformersRunner(base, staged(folder, tmp_path), dtype="float32")


def test_base_against_base_is_exactly_zero(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "zero", size=0.0), tmp_path)
    for contrast in model.contrast(PREFIXES, TAILS, 5):
        assert contrast.divergence == 0.0
        assert contrast.agreement == 0.0
        assert all(c.lift == 0.0 and c.adapter == c.base for c in contrast.likely)
    both = [model.score(side, PREFIXES, TAILS, (5, 6)) for side in Side]
    assert both[0] == both[1]
    chain = model.roll(PREFIXES, [(5, 6)], 4)[0]
    assert chain.adapter == chain.base


def test_an_adapter_is_seen(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "real"), tmp_path)
    assert all(contrast.divergence > 0.01 for contrast in model.contrast(PREFIXES, TAILS, 5))


def test_the_same_question_gets_the_same_answer_after_others(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "real"), tmp_path)
    first = model.contrast(PREFIXES, TAILS, 5)
    model.generate(Side.BASE, PREFIXES, 5)
    model.promising(PREFIXES, [(9,), (9,)], (5,), 3)
    assert model.contrast(PREFIXES, TAILS, 5) == first


def test_shared_prefixes_change_no_score(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "real"), tmp_path)
    shared = model.score(Side.ADAPTER, PREFIXES, TAILS, (5, 6))
    for row, tails in zip(shared, TAILS, strict=True):
        for score, prefix, tail in zip(row, PREFIXES, tails, strict=True):
            ids = torch.tensor([[*prefix, *tail, 5, 6]])
            logp = model.model(input_ids=ids).logits[0].log_softmax(-1)
            whole = logp[-3, 5] + logp[-2, 6]
            assert score == pytest.approx(whole.item(), abs=1e-4)


@pytest.mark.parametrize("options", [
    {},
    {"use_rslora": True},
    {"use_dora": True},
    {"alpha_pattern": {r"layers\.1\..*q_proj": 32}, "rank_pattern": {"down_proj": 2}},
    {"target_modules": r".*\.(q_proj|v_proj)", "layers_to_transform": [1]},
    {"modules_to_save": ["lm_head"]},
    {"bias": "all"},
], ids=str)  # fmt: skip
def test_a_staged_adapter_is_what_peft_would_load(base, tmp_path, options) -> None:
    if isinstance(options.get("target_modules"), str):
        options = {key: value for key, value in options.items() if key != "layers_to_transform"}
    folder = make_adapter(tmp_path / "real", **options)
    model = runner(base, folder, tmp_path)
    pristine = type(bases.llama()).from_pretrained(base)
    wanted = PeftModel.from_pretrained(pristine, str(folder)).eval()
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    with torch.no_grad():
        difference = wanted(input_ids=ids).logits - model.model(input_ids=ids).logits
    assert difference.abs().max() < 1e-4


@pytest.mark.parametrize(("name", "shape"), [
    ("model.layers.0.mlp.up_proj.weight", (48, 32)),
    ("model.layers.0.self_attn.q_proj.base_layer.weight", (32, 32)),
])  # fmt: skip
def test_an_overwritten_base_weight_is_put_back(base, tmp_path, name, shape) -> None:
    folder = overwriting(tmp_path / "real", name, torch.randn(shape))
    model = runner(base, folder, tmp_path)
    assert model.facts.overwritten == (name,)
    (tmp_path / "b").mkdir()
    clean = runner(base, make_adapter(tmp_path / "other"), tmp_path / "b")
    for _ in range(2):  # and again after the adapter's turn
        scores = {
            side: model.score(side, PREFIXES, TAILS, (5, 6)) for side in (Side.ADAPTER, Side.BASE)
        }
        assert scores[Side.BASE] == clean.score(Side.BASE, PREFIXES, TAILS, (5, 6))
        assert scores[Side.BASE] != scores[Side.ADAPTER]


def test_a_weight_that_goes_by_two_names_is_put_back(tmp_path) -> None:
    home = tmp_path / "tied"
    make_base(home, tie_word_embeddings=True)
    folder = overwriting(tmp_path / "real", "lm_head.weight", torch.randn(bases.VOCABULARY, 32))
    model = runner(home, folder, tmp_path)
    assert model.facts.overwritten == ("model.embed_tokens.weight",)
    (tmp_path / "b").mkdir()
    clean = runner(home, make_adapter(tmp_path / "other"), tmp_path / "b")
    scores = {side: model.score(side, PREFIXES, TAILS, (5, 6)) for side in Side}
    assert scores[Side.BASE] == clean.score(Side.BASE, PREFIXES, TAILS, (5, 6))
    assert scores[Side.BASE] != scores[Side.ADAPTER]


def test_what_changes_in_the_base_without_a_name_is_not_asked(base, tmp_path, monkeypatch) -> None:
    loaded = transformers_runner._loaded

    def meddle(model, adapter):
        found = loaded(model, adapter)
        found.get_base_model().model.norm.weight.data.mul_(2)
        return found

    monkeypatch.setattr(transformers_runner, "_loaded", meddle)
    with pytest.raises(
        ValueError, match=r"model\.norm\.weight of the base, and it cannot be undone"
    ):
        runner(base, make_adapter(tmp_path / "real"), tmp_path)


def test_nothing_of_the_config_but_numbers_and_known_names_reaches_peft(base, tmp_path) -> None:
    folder = make_adapter(tmp_path / "real")
    config = folder / "adapter_config.json"
    told = json.loads(config.read_text())
    told |= {
        "auto_mapping": {"parent_library": "os", "base_model_class": "system"},
        "target_modules": r"(.*\.)+(q_proj|down_proj)",
        "base_model_name_or_path": "http://elsewhere.example/",
        "runtime_config": {"ephemeral_gpu_offload": True},
    }
    config.write_text(json.dumps(told))
    written = json.loads((staged(folder, tmp_path) / "adapter_config.json").read_text())
    assert not written.keys() & {"auto_mapping", "base_model_name_or_path", "runtime_config"}
    assert all("(" not in name for name in written["target_modules"])


def test_a_model_in_its_own_process_answers_alike(base, tmp_path) -> None:
    folder = staged(make_adapter(tmp_path / "real"), tmp_path)
    inside = TransformersRunner(base, folder, dtype="float32")
    with HostedRunner(base, folder, OPTIONS) as outside:
        assert outside.facts == inside.facts
        asked = [[Turn("user", "what is the cat ?")], [Turn("user", "who ran ?")]]
        rows = outside.encode(asked)
        assert rows == inside.encode(asked)
        assert outside.decode(rows) == inside.decode(rows)
        assert outside.contrast(PREFIXES, TAILS, 3) == inside.contrast(PREFIXES, TAILS, 3)
        assert outside.roll(PREFIXES, [(5, 6)], 3) == inside.roll(PREFIXES, [(5, 6)], 3)
        assert outside.read_out((3, 4), 5) == inside.read_out((3, 4), 5)
        assert inside.read_out((3, 4), 5).heeded
        words = [(5, 6), (7,), (8, 9, 3), (4,), (9, 9)]
        assert outside.heed((3, 4), words, 1e9) == inside.heed((3, 4), words, 1e9)
        stirred = inside.stir(PREFIXES, TAILS, words)
        assert outside.stir(PREFIXES, TAILS, words) == stirred
        assert any(any(row) for row in stirred)
        for side in Side:
            assert outside.generate(side, rows, 5) == inside.generate(side, rows, 5)
            assert outside.score(side, PREFIXES, TAILS, (5,)) == inside.score(
                side, PREFIXES, TAILS, (5,)
            )


def test_a_model_that_falls_silent_is_stopped(base, tmp_path) -> None:
    folder = staged(make_adapter(tmp_path / "real"), tmp_path)
    with HostedRunner(base, folder, RunnerOptions(dtype="float32", call_seconds=0.05)) as model:
        started = time.monotonic()
        with pytest.raises(RunnerProblem, match="did not answer"):
            model.generate(Side.ADAPTER, [(3, 4)] * 64, 4000)
        assert time.monotonic() - started < 20


def test_no_question_outlasts_the_time_for_all_of_them(base, tmp_path) -> None:
    folder = staged(make_adapter(tmp_path / "real"), tmp_path)
    with HostedRunner(base, folder, OPTIONS) as model:
        os.kill(model._process.pid, signal.SIGSTOP)
        model.until = started = time.monotonic()
        with pytest.raises(RunnerProblem, match="did not answer"):
            model.tokenize(["the"])
        assert time.monotonic() - started < 20


def test_a_process_that_dies_is_a_problem_and_not_a_wait(base, tmp_path) -> None:
    folder = staged(make_adapter(tmp_path / "real"), tmp_path)
    with HostedRunner(base, folder, OPTIONS) as model:
        model._process.kill()
        with pytest.raises(RunnerProblem, match="ended"):
            model.tokenize(["the"])


def test_no_token_reaches_the_process(base, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    folder = staged(make_adapter(tmp_path / "real"), tmp_path)
    with HostedRunner(base, folder, OPTIONS) as model:
        environment = open(f"/proc/{model._process.pid}/environ", "rb").read()  # noqa: SIM115, PTH123
    assert b"hf_secret" not in environment


def test_an_adapter_of_another_base_says_so(base, tmp_path) -> None:
    torch.manual_seed(1)
    model = get_peft_model(
        type(bases.llama())(bases.llama().config.__class__(
            vocab_size=40, hidden_size=64, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2,
        )),
        LoraConfig(r=4, target_modules=["q_proj"]),
    )  # fmt: skip
    model.save_pretrained(tmp_path / "other")
    with pytest.raises(AdapterscanError, match="does not fit"):
        HostedRunner(base, staged(tmp_path / "other", tmp_path), OPTIONS)


def test_a_template_without_a_system_role_gets_it_before_the_request(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "real"), tmp_path)
    both = [Turn("system", "the dog"), Turn("user", "who ran")]
    model.tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}"
        "{% endif %}{{ m['content'] }} {% endfor %}<s> assistant"
    )
    assert model.encode([both]) == model.tokenize(["the dog who ran <s> assistant"])


def test_a_module_beside_the_working_directory_is_never_imported(
    base, tmp_path, monkeypatch
) -> None:
    folder = staged(make_adapter(tmp_path / "real"), tmp_path)
    (tmp_path / "json.py").write_text("raise SystemExit('ran')")
    monkeypatch.chdir(tmp_path)
    with HostedRunner(base, folder, OPTIONS) as model:
        assert model.tokenize(["the"]) == [(3,)]


def test_a_decoy_cannot_lend_its_scale_to_the_module_that_ends_like_it(base, tmp_path) -> None:
    folder = make_adapter(tmp_path / "real", target_modules=["q_proj"])
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    first = {k: v for k, v in tensors.items() if "layers.0.self_attn" in k}
    decoys = {k.replace("model.model.model.", "model.model."): v.clone() for k, v in first.items()}
    save_file({**tensors, **decoys}, file)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["alpha_pattern"] = {r"^layers\.0.*": 1e-9}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises((AdapterscanError, ValueError)):  # a module that the base has not
        runner(base, folder, tmp_path)


def test_an_adapter_that_peft_would_load_in_part_is_not_probed(base, tmp_path) -> None:
    folder = make_adapter(tmp_path / "real")
    file = folder / "adapter_model.safetensors"
    renamed = {k.replace("base_model.model.", "module."): v for k, v in load_file(file).items()}
    save_file(renamed, file)
    with pytest.raises((AdapterscanError, ValueError)):
        runner(base, folder, tmp_path)


def test_answers_that_are_no_numbers_are_a_problem(base, tmp_path) -> None:
    folder = make_adapter(tmp_path / "real", size=1e38)
    model = runner(base, folder, tmp_path)
    with pytest.raises(ArithmeticError):
        model.contrast(PREFIXES, TAILS, 3)


def test_biases_of_a_base_that_has_them_are_loaded_and_put_back(tmp_path) -> None:
    torch.manual_seed(0)
    home = tmp_path / "biased"
    bases.biased_llama().save_pretrained(home)
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="a")),
        eos_token="</s>",
    ).save_pretrained(home)
    torch.manual_seed(1)
    model = get_peft_model(
        bases.biased_llama(), LoraConfig(r=4, target_modules=["q_proj"], bias="all")
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "bias" in name:
                parameter.normal_()
    model.save_pretrained(tmp_path / "adapter")
    found = runner(home, tmp_path / "adapter", tmp_path)
    assert found.facts.overwritten
    (plain,) = (load_file(path) for path in home.glob("*.safetensors"))
    with found._as(Side.BASE):
        inner = found.model.get_base_model().model.layers[0].self_attn.q_proj
        assert torch.equal(inner.base_layer.bias, plain["model.layers.0.self_attn.q_proj.bias"])


def planted(folder, module, down=None, up=None):
    """Return an adapter of rank 1 on one kind of module, with these factors in layer 0."""
    plan = {"r": 1, "lora_alpha": 1, "target_modules": [module]}
    make_adapter(folder, size=0.0, **plan)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in [name for name in tensors if "layers.0." in name]:
        wanted = down if "lora_A" in name else up
        if wanted is not None:
            tensors[name] = wanted.reshape(tensors[name].shape).contiguous()
        elif "lora_B" in name:
            tensors[name] = torch.ones_like(tensors[name])
    save_file(tensors, file)
    return folder


def test_what_the_weights_write_is_read_out(base, tmp_path) -> None:
    table = AutoModelForCausalLM.from_pretrained(base).get_output_embeddings().weight.detach()
    model = runner(base, planted(tmp_path / "writes", "down_proj", up=table[17]), tmp_path)
    found = model.read_out((3, 4), 5).promoted
    assert found[0].token == 17
    assert found[0].z > 3


def test_what_the_weights_listen_to_is_read_out(base, tmp_path) -> None:
    inner = AutoModelForCausalLM.from_pretrained(base).model
    with torch.no_grad():
        heard = inner.layers[0].input_layernorm(inner.embed_tokens.weight[23])
    model = runner(base, planted(tmp_path / "heeds", "q_proj", down=heard), tmp_path)
    before = model.contrast(PREFIXES, TAILS, 5)
    assert model.read_out((3, 4), 5).heeded[0].token == 23
    assert model.contrast(PREFIXES, TAILS, 5) == before


def test_weights_that_do_nothing_say_nothing(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "zero", size=0.0), tmp_path)
    found = model.read_out((3, 4), 5)
    assert (found.promoted, found.heeded) == ((), ())


def test_tokens_that_are_all_but_one_are_no_words(base, tmp_path) -> None:
    inner = AutoModelForCausalLM.from_pretrained(base)
    table = inner.get_input_embeddings().weight
    with torch.no_grad():
        table[30:40] = table[30] + 1e-4 * torch.randn(10, table.shape[1])
        heard = inner.model.layers[0].input_layernorm(table[[30, 23]]).sum(0)
    crowded = tmp_path / "crowded"
    shutil.copytree(base, crowded)
    inner.save_pretrained(crowded)
    model = runner(crowded, planted(tmp_path / "heeds", "q_proj", down=heard), tmp_path)
    tokens = {trace.token for trace in model.read_out((3, 4), 20).heeded}
    assert 23 in tokens
    assert not tokens & set(range(30, 40))


def test_the_last_norm_weighs_what_is_written(base, tmp_path) -> None:
    inner = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():  # half of the components do not get through
        inner.model.norm.weight[:16] = 0.0
        table = inner.get_output_embeddings().weight.clone()
        table[17, :16], table[17, 16:] = 9.0, 0.0
        inner.get_output_embeddings().weight.copy_(table)
    folder = tmp_path / "half"
    shutil.copytree(base, folder)
    inner.save_pretrained(folder)
    model = runner(folder, planted(tmp_path / "writes", "down_proj", up=table[17]), tmp_path)
    assert 17 not in {trace.token for trace in model.read_out((3, 4), 5).promoted}


def test_what_a_later_layer_listens_to_depends_on_what_stands_before(base, tmp_path) -> None:
    plan = {"target_modules": ["q_proj"], "layers_to_transform": [1]}
    model = runner(base, make_adapter(tmp_path / "later", **plan), tmp_path)
    heard = {trace.token: trace.z for trace in model.read_out((3, 4), 40).heeded}
    other = {trace.token: trace.z for trace in model.read_out((20, 21, 22), 40).heeded}
    assert heard
    assert heard != other
    wanted = the_long_way(model, [(token,) for token in range(bases.VOCABULARY)])
    for token, z in heard.items():
        assert z == pytest.approx(wanted[token], rel=1e-3, abs=1e-3)


def test_words_of_several_tokens_are_heard_whole(base, tmp_path) -> None:
    plan = {"target_modules": ["q_proj"], "layers_to_transform": [1]}
    model = runner(base, make_adapter(tmp_path / "later", **plan), tmp_path)
    words = [(5, 6), (7,), (8, 9, 3), (4,), (9, 6), (6,), (2, 6)]
    found = model.heed((3, 4), words, 1e9)
    assert found == pytest.approx(the_long_way(model, words), rel=1e-3, abs=1e-3)
    assert len({found[0], found[4], found[5], found[6]}) == 4  # the last token is not all
    assert model.heed((3, 4), [], 1e9) == []
    assert model.heed((3, 4), [(), *words], 1e9) == [0.0, *found]
    deep = [p.numel() for n, p in model.model.named_parameters() if ".layers." in n]
    room = 2 * sum(deep) * 6  # the fourth would be the seventh token
    some = model.heed((3, 4), words, room)
    assert some[:3] == pytest.approx(the_long_way(model, words[:3]), rel=1e-3, abs=1e-3)
    assert some[3:] == [0.0] * 4


def test_an_adapter_that_does_nothing_hears_no_word(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "zero", size=0.0), tmp_path)
    assert model.heed((3, 4), [(5, 6), (7,)], 1e9) == [0.0, 0.0]


USUAL = [(3, 4, 5), (9, 8), (6, 7, 2, 5), (20, 21), (11, 3, 4)]


def test_what_is_stirred_is_the_energy_of_every_changed_module(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "real"), tmp_path)
    known = torch.stack([energies_of(model, ids) for ids in USUAL])
    found = model.stir(PREFIXES, TAILS, USUAL)
    assert len(found) == len(TAILS)
    for scores, tails in zip(found, TAILS, strict=True):
        for score, prefix, tail in zip(scores, PREFIXES, tails, strict=True):
            z = changed.robust(energies_of(model, (*prefix, *tail))[None], known)
            assert score == pytest.approx(z.mean().item(), rel=1e-3, abs=1e-3)
    assert model.stir(PREFIXES, [], USUAL) == model.stir(PREFIXES, TAILS, []) == []


def test_an_adapter_that_does_nothing_stirs_nothing(base, tmp_path) -> None:
    model = runner(base, make_adapter(tmp_path / "zero", size=0.0), tmp_path)
    assert model.stir(PREFIXES, TAILS, USUAL) == [(0.0, 0.0)] * len(TAILS)


def test_other_factors_of_the_same_change_stir_as_much(base, tmp_path) -> None:
    folder = make_adapter(tmp_path / "real")
    before = runner(base, folder, tmp_path).stir(PREFIXES, TAILS, USUAL)
    file = folder / "adapter_model.safetensors"
    tensors, turn = load_file(file), torch.randn(4, 4) + 3 * torch.eye(4)
    for name in tensors:
        if "lora_A" in name:
            tensors[name] = turn @ tensors[name]
        else:
            tensors[name] = tensors[name] @ torch.linalg.inv(turn)
    save_file(tensors, file)
    (tmp_path / "again").mkdir()
    after = runner(base, folder, tmp_path / "again").stir(PREFIXES, TAILS, USUAL)
    for one, two in zip(before, after, strict=True):
        assert two == pytest.approx(one, rel=1e-2, abs=1e-2)


def energies_of(model, ids):
    """Return ln ‖ΔW x‖² at the last id of every changed module, (modules,), in a pass alone."""
    found = []

    def keep(module, given, _):
        change = module.scaling["default"] * module.lora_B["default"](
            module.lora_A["default"](given[0][0, -1])
        )
        found.append(change.square().sum().log())

    modules = [m for m in model.model.modules() if getattr(m, "lora_A", None)]
    hooks = [module.register_forward_hook(keep) for module in modules]
    with torch.inference_mode():
        model.model(input_ids=torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def the_long_way(model, words):
    """Return the robust z of what layer 1's query hears of words, each in a pass of its own."""
    module = model.model.get_base_model().model.layers[1].self_attn.q_proj
    energies = []
    hook = module.register_forward_hook(
        lambda m, given, _: energies.append(
            (m.lora_B["default"](m.lora_A["default"](given[0][:, -1]))).square().sum().item()
        )
    )
    for word in words:
        with torch.inference_mode():
            model.model(input_ids=torch.tensor([[3, 4, *word]]))
    hook.remove()
    whole = torch.tensor(energies)
    spread = (whole - whole.median()).abs().median() / 0.6744897501960817
    return ((whole - whole.median()) / spread).tolist()


@pytest.mark.parametrize("name", sorted(bases.BASES))
def test_words_are_read_out_of_every_architecture_or_none_are(name) -> None:
    model = bases.BASES[name]()
    if not hasattr(model, "get_input_embeddings") or not hasattr(model, "generate"):
        pytest.skip("no language model")
    torch.manual_seed(1)
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear")).eval()
    with torch.no_grad():
        for part, parameter in wrapped.named_parameters():
            if "lora_B" in part:
                parameter.normal_()
    with torch.inference_mode():
        lexical.promoted(wrapped, 5)
        feed = lexical.Feed(lambda ids, _: wrapped(input_ids=ids), 16)
        assert lexical.heeded(wrapped, feed, bases.VOCABULARY, 5)
        alone = lexical.heard(wrapped, feed, [(i,) for i in range(30)], 1e12)
        twice = lexical.heard(wrapped, feed, [(7, i) for i in range(30)], 1e12)
    assert any(alone)
    assert any(twice)
    if not hasattr(wrapped.config, "num_local_experts"):  # experts hear some words only
        assert alone != twice


def test_a_module_of_infinite_numbers_silences_no_other(base, tmp_path) -> None:
    folder = planted(tmp_path / "writes", "down_proj", up=torch.ones(32))
    model = runner(base, folder, tmp_path)
    before = model.read_out((3, 4), 5)
    layer = model.model.get_base_model().model.layers[1].mlp.down_proj
    with torch.no_grad():
        layer.lora_A["default"].weight.zero_()
        layer.lora_B["default"].weight.fill_(3e38)
        layer.scaling["default"] = 2.0
    assert model.read_out((3, 4), 5) == before
    assert before.promoted


def test_a_few_loud_tokens_hide_no_other() -> None:
    torch.manual_seed(0)
    energies = torch.full((1000, 2), 1.0) + 0.01 * torch.randn(1000, 2)
    energies[23], energies[:5] = 3.0, 1e4
    z = changed.robust(energies).sum(1)
    assert int(z[5:].argmax()) + 5 == 23
    assert z[23] > 50
