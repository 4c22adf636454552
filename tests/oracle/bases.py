"""Tiny random base models, one for each way in which PEFT wraps a layer. float32, one thread."""

from collections.abc import Callable, Mapping

import torch
import transformers as hf

torch.set_num_threads(1)
VOCABULARY = 40


def llama(**options):
    config = hf.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, **options,
    )  # fmt: skip
    return hf.LlamaForCausalLM(config)


def tied_llama():
    return llama(tie_word_embeddings=True)


def biased_llama():
    return llama(attention_bias=True)


def gpt2():
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4))


def opt():
    config = hf.OPTConfig(
        vocab_size=VOCABULARY, hidden_size=32, ffn_dim=48, num_hidden_layers=2,
        num_attention_heads=4, word_embed_proj_dim=32,
    )  # fmt: skip
    return hf.OPTForCausalLM(config)


def mixtral():
    config = hf.MixtralConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2,
    )  # fmt: skip
    return hf.MixtralForCausalLM(config)


def gpt_oss():
    config = hf.GptOssConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_local_experts=3,
        num_experts_per_tok=2,
    )  # fmt: skip
    return hf.GptOssForCausalLM(config)


def classifier():
    config = llama().config
    config.num_labels, config.pad_token_id = 3, 0
    return hf.LlamaForSequenceClassification(config)


def bert():
    config = hf.BertConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4,
    )  # fmt: skip
    return hf.BertForSequenceClassification(config)


class Convolutions(torch.nn.Module):
    """One convolution of each dimension. Never run: only its weights are of interest."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Conv1d(6, 8, 3)
        self.two = torch.nn.Conv2d(6, 8, (3, 2))
        self.three = torch.nn.Conv3d(6, 8, (3, 2, 1))
        self.norm = torch.nn.BatchNorm2d(8)


class Odd(torch.nn.Module):
    """A layer of odd sides. Never run."""

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Linear(13, 9)


BASES: Mapping[str, Callable[[], torch.nn.Module]] = {
    made.__name__: made
    for made in (
        llama, tied_llama, biased_llama, gpt2, opt, mixtral, gpt_oss, classifier, bert,
        Convolutions, Odd,
    )
}  # fmt: skip


def base(name, seed=0):
    """Return the base of that name: the same weights each time, biases and norms not zero."""
    torch.manual_seed(seed)
    model = BASES[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model.eval()
