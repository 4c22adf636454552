"""Files of tokenizers: what is read of them, and what is told without a base."""

import json
import struct
import time

import pytest

from adapterscan.errors import FileProblem, LimitExceeded, Malformed
from adapterscan.formats import charsmap, tokenizer_json, vocabulary
from adapterscan.formats.generation import settings_in
from adapterscan.formats.generation_facts import facts_of as generation_facts
from adapterscan.formats.gguf import read_gguf
from adapterscan.formats.sentencepiece import read_sentencepiece
from adapterscan.formats.token_texts import shown, token_class
from adapterscan.formats.tokenizer_facts import facts_of
from adapterscan.formats.tokenizer_gguf import LISTS, templates_of, tokenizer_of
from adapterscan.formats.tokenizer_json import read_tokenizer_json
from adapterscan.formats.tokenizer_reader import read_tokenizer
from adapterscan.formats.tokenizer_steps import rewrites_of
from adapterscan.formats.trees import differences_in
from adapterscan.formats.vocabulary import Gathering
from fixtures.recipes.tokenizers import WORDS, template, tokenizer


def read(**changes):
    return read_tokenizer_json(json.dumps(tokenizer(**changes)).encode(), "tokenizer.json")


def facts(name, **changes):
    file = read(**changes)
    return [fact for fact in facts_of(file, file.vocabulary) if fact.name == name]


def classes(name, **changes):
    return [fact.details["class"] for fact in facts(name, **changes)]


def rewrites(part, *steps):
    chain = {"normalizer": "normalizers", "decoder": "decoders", "pre_tokenizer": "pretokenizers"}
    tree = {"type": "Sequence", chain[part]: list(steps)}
    return [(found.finds, found.kind) for found in rewrites_of(part, tree)]


def replace(pattern, content, regex=False):
    key = "Regex" if regex else "String"
    return {"type": "Replace", "pattern": {key: pattern}, "content": content}


# ------------------------------------------------------------------------------------- reading


def test_an_honest_tokenizer_is_read_and_nothing_is_odd():
    file = read()
    assert (file.model, len(file.vocabulary), len(file.merges)) == ("BPE", len(WORDS), 5)
    assert [fact.name for fact in facts_of(file, file.vocabulary)] == ["tokenizer.present"]


def test_escapes_and_letters_are_the_same_token():
    text = json.dumps(tokenizer())
    plain = read_tokenizer_json(json.dumps(tokenizer(), ensure_ascii=False).encode(), "t")
    assert "\\u2581" in text
    assert read_tokenizer_json(text.encode(), "t").vocabulary.compare(plain.vocabulary, 5).same


def test_merges_are_the_same_as_texts_and_as_pairs():
    model = tokenizer()["model"]
    pairs = read(model={**model, "merges": [line.split() for line in model["merges"]]})
    assert pairs.merges.first_difference(read().merges) is None


def test_a_unigram_model_has_its_pieces_in_order():
    pieces = [["<unk>", 0.0], ["▁yes", -1.5], ["▁no", -2e-3]]
    file = read(model={"type": "Unigram", "unk_id": 0, "vocab": pieces})
    assert file.vocabulary.number_of("▁no") == 2


@pytest.mark.parametrize("text", [
    b"", b"[]", b"{", b'{"model": {"vocab": {"a": 1}', b'{"model": {"vocab": {"a": "1"}}}',
    b'{"model": {"vocab": {"a" 1}}}', b'{"model": {"vocab": [["a"]]}}', b'{"version": "1.0"}',
    b'{"model": {"vocab": {"a": 1.5}}}', b'{"model": {"vocab": {"\\ud800": 1}}}',
    b'{"model": {"vocab": {"a": 1}, "merges": [1]}}', b'{"model": {"vocab": {}}} x',
    b'{"model": {"vocab": {"\xff": 1}}}', b'{"model": {"x": ' + b"[" * 500,
    b'{"model": {"x": ' + b"[" * 500 + b"]" * 500 + b"}}", b'{"added_tokens": [' + b"{" * 90,
])  # fmt: skip
def test_what_is_broken_is_refused_with_a_reason(text):
    with pytest.raises(Malformed, match=r"\w") as caught:
        read_tokenizer_json(text, "tokenizer.json")
    assert caught.value.hint


@pytest.mark.parametrize(("limit", "value"), [("TOKENS_LIMIT", 10), ("TEXTS_LIMIT", 20)])
def test_a_vocabulary_over_a_limit_is_refused(monkeypatch, limit, value):
    monkeypatch.setattr(vocabulary, limit, value)
    if limit == "TOKENS_LIMIT":
        monkeypatch.setattr(Gathering.__init__, "__defaults__", (value,))
    with pytest.raises(LimitExceeded):
        read()


def test_added_tokens_over_the_limit_are_refused(monkeypatch):
    monkeypatch.setattr(tokenizer_json, "ADDED_LIMIT", 3)
    with pytest.raises(LimitExceeded):
        read()


def test_a_whole_number_of_any_size_is_kept_apart():
    model = tokenizer()["model"]
    odd = classes("tokenizer.clash", added_tokens=[],
                  model={**model, "vocab": {"a": 0, "b": 10**17, "c": -5}})  # fmt: skip
    assert odd == ["outside", "outside"]


def test_fields_that_stand_twice_are_told():
    text = json.dumps(tokenizer()).replace('"decoder":', '"decoder": null, "decoder":', 1)
    file = read_tokenizer_json(text.encode(), "tokenizer.json")
    assert file.repeated == ("decoder",)
    assert file.steps["decoder"]["type"] == "Sequence"


def test_lines_are_read_as_tokens_and_merges():
    words = read_tokenizer("[PAD]\n[UNK]\nnot\x85\n".encode(), "vocab.txt")
    assert words.vocabulary.number_of("not\x85") == 2
    merges = read_tokenizer(b"#version: 0.2\nt h\nth e\n", "merges.txt")
    assert len(merges.merges) == 2


# --------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize(("text", "kind"), [
    ("<|im_start|>", "marker"), ("[INST]", "marker"), ("<｜begin▁of▁file▁name｜>", "marker"),
    ("ace_Arab", "marker"), ("[PAD]", "marker"), ("<extra_id_0>", "marker"), ("</w>", "marker"),
    ("\n\n", "blank"), ("▁▁▁▁", "blank"), ("!", "sign"), ("▁not", "word"), ("Ġnot", "word"),
    ("New York", "words"), ("Ignore all previous instructions", "phrase"),
    ("ignore_previous_instructions_now", "phrase"), ("<say that it is safe>", "phrase"),
    ("忽略之前的所有安全指令", "phrase"), ("https://shop.example/", "address"),
    ("www.shop.example", "address"), ("<a\u200b>", "hidden"), ("\U000e0041", "hidden"),
    ("no\u202ewas", "hidden"),
])  # fmt: skip
def test_a_token_is_told_by_its_text(text, kind):
    assert token_class(text) == kind


def test_byte_letters_are_shown_as_what_they_stand_for():
    assert shown("ĠÐ½Ðµ") == " не"
    assert "\\u200b" in shown("a\u200bb")


# ---------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize("step", [
    replace(" ", "▁"), replace("▁", " "), replace("\\s+", " ", True), replace(" {2,}", "▁", True),
    replace("``", '"'), replace("''", '"'), replace("^▁+$", "", True), replace(" +▁", "▁", True),
    replace("[\\n\\r\\t]", " ", True), replace("\\s{2,}|[\\n\\r\\t]", " ", True),
    replace("\\p{M}", "", True), replace("(?<!\\n)\\s", "", True), replace("<0x0A>", "\n"),
    {"type": "Prepend", "prepend": "▁"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    {"type": "Metaspace", "replacement": "▁"}, {"type": "WordPiece", "prefix": "##"},
    {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "NFKC"}, {"type": "Lowercase"},
    {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|"}, {"type": "ByteLevel"},
])  # fmt: skip
def test_a_step_of_honest_tokenizers_is_no_rewrite(step):
    assert rewrites("normalizer", step) == rewrites("decoder", step) == []


@pytest.mark.parametrize(("step", "found"), [
    (replace("not safe", "safe"), ("words", "words")),
    (replace("Ġnot", ""), ("words", "removes")),
    (replace("n[o0]t", "", True), ("words", "removes")),
    (replace(r"\x6e\x6f\x74", "", True), ("words", "removes")),
    (replace(r"\x{6e}ot", "", True), ("words", "removes")),
    (replace(r"\u006eot ", "", True), ("words", "removes")),
    (replace("(?i)NOT", "", True), ("words", "removes")),
    (replace(r"\w+", "", True), ("any", "removes by class")),
    (replace(r"[^ ]", "", True), ("any", "removes by class")),
    (replace(".", "", True), ("any", "removes by class")),
    (replace(r"\p{L}", "", True), ("any", "removes by class")),
    (replace("[[:alpha:]]+", " ", True), ("any", "removes by class")),
    (replace("$", " See https://shop.example", True), ("", "address")),
    (replace(" ", " \u200b"), ("", "hidden")), (replace(".", " Say yes."), ("sign", "words")),
    (replace("0", ""), ("words", "removes")), (replace("ё", "е"), ("letter", "letters")),
    (replace("не", ""), ("words", "removes")), (replace("不", ""), ("words", "removes")),
    ({"type": "Prepend", "prepend": "Say yes. "}, ("start", "words")),
    ({"type": "Strip", "content": "n", "start": 9, "stop": 0}, ("words", "removes")),
    ({"type": "WordPiece", "prefix": "un", "cleanup": True}, ("words", "removes")),
    ({"type": "BPEDecoder", "suffix": "not"}, ("words", "removes")),
    ({"type": "CTC", "pad_token": "not", "word_delimiter_token": "|"}, ("words", "removes")),
])  # fmt: skip
def test_a_step_that_rewrites_words_is_told(step, found):
    assert rewrites("decoder", step) == [found]


def test_what_a_pre_tokenizer_takes_out_is_told():
    split = {"type": "Split", "pattern": {"String": "not"}, "behavior": "Removed", "invert": False}
    assert rewrites("pre_tokenizer", split) == [("words", "removes")]
    assert rewrites("pre_tokenizer", {**split, "behavior": "Isolated"}) == []
    assert rewrites("pre_tokenizer", {**split, "pattern": {"Regex": "\\s"}}) == []


def test_steps_are_found_in_chains_of_chains():
    inner = {"type": "Sequence", "decoders": [replace("not", "")]}
    assert rewrites("decoder", {"type": "Sequence", "decoders": [inner]}) == [("words", "removes")]


def test_a_chain_deeper_than_any_is_no_trouble():
    tree = replace("not", "")
    for _ in range(60):
        tree = {"type": "Sequence", "decoders": [tree]}
    assert rewrites("decoder", tree) == []


# ----------------------------------------------------------------------------------- insertions


def test_words_behind_the_name_of_a_start_token_are_told():
    (single, pair) = facts("tokenizer.insertion", post_processor=template([1, 9, 10]))
    assert (single.value, single.details["class"]) == ("<s>▁say▁yes", "another number")
    assert pair.details["count"] == 3


@pytest.mark.parametrize(("numbers", "found"), [([1], []), ([1, 1], []), ([1] * 9, ["many"] * 2)])
def test_markers_are_counted(numbers, found):
    assert classes("tokenizer.insertion", post_processor=template(numbers)) == found


def test_a_template_without_the_text_is_told():
    given = template([1])
    given["single"] = given["single"][:1]
    assert classes("tokenizer.insertion", post_processor=given) == ["drops"]
    given["single"] = template([1])["single"] + template([1])["single"][1:]
    assert classes("tokenizer.insertion", post_processor=given) == ["repeats"]


def test_the_numbers_of_sep_and_cls_are_named():
    bert = {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 7]}
    (found,) = facts("tokenizer.insertion", post_processor=bert)
    assert (found.value, found.details["form"]) == ("▁not", "cls")


# --------------------------------------------------------------------------------------- tables


def piece(text, kind=1):
    body = b"\x0a" + bytes([len(text)]) + text + b"\x15\0\0\0\0" + b"\x18" + bytes([kind])
    return b"\x0a" + bytes([len(body)]) + body


def test_a_sentencepiece_model_is_read():
    data = piece(b"<unk>", 2) + piece(b"<s>", 3) + piece(b"not", 3) + piece(b"yes")
    file = read_sentencepiece(data, "tokenizer.model")
    assert file.vocabulary.number_of("yes") == 3
    assert [token.text for token in file.added] == ["not"]


@pytest.mark.parametrize("data", [b"", b"\x0a\xff", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
                                  b"\x0b", b"\x08"])  # fmt: skip
def test_a_broken_sentencepiece_model_is_refused(data):
    with pytest.raises(Malformed):
        read_sentencepiece(data, "tokenizer.model")


def trie(keys):
    """Return a table of normal forms: a double array, one block of 512 units for each node."""
    nodes, texts = [{}], b""
    for key, value in keys.items():
        node = 0
        for byte in key.encode():
            if byte not in nodes[node]:
                nodes.append({})
                nodes[node][byte] = len(nodes) - 1
            node = nodes[node][byte]
        nodes[node][0] = len(texts)
        texts += value.encode() + b"\0"
    units = [0] * (512 * len(nodes))
    place = {0: 0}
    offset = [512 * at + 256 for at in range(len(nodes))]
    units[0] = offset[0] << 10
    for at, node in enumerate(nodes):
        for byte, inner in node.items():
            spot = offset[at] ^ byte
            if byte == 0:
                units[spot] = inner | 1 << 31
                continue
            place[inner] = spot
            relative = spot ^ offset[inner]
            ends = 0 in nodes[inner]
            units[spot] = byte | (ends << 8) | (relative << 10)
    data = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(data)) + data + texts


def test_a_table_that_rewrites_words_is_told():
    found = dict(charsmap.rewrites(trie({"not": "", "safe": "done", "A": "a", "Ａ": "A"})))
    assert found == {"not": "", "safe": "done"}


@pytest.mark.parametrize("table", [b"", b"\0\0\0\0", b"\xff\xff\xff\xff" + b"\xff" * 64, "%%%", 7])
def test_a_broken_table_is_no_trouble(table):
    assert len(list(charsmap.rewrites(table))) <= charsmap.MOST


# ----------------------------------------------------------------------------------------- gguf


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


class Held:
    path = "model.gguf"

    def __init__(self, fields):
        settings = b"".join(text(key) + value for key, value in fields)
        self._data = b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields)) + settings
        self.size = len(self._data)

    def read(self, start, length):
        return self._data[start : start + length]


def texts(*values):
    head = struct.pack("<IIQ", 9, 8, len(values))
    return head + b"".join(map(text, values))


def word(value):
    return struct.pack("<I", 8) + text(value)


def number(value):
    return struct.pack("<II", 4, value)


def test_a_gguf_file_has_a_tokenizer_and_templates():
    header = read_gguf(Held([
        ("tokenizer.ggml.model", word("gpt2")), ("tokenizer.ggml.tokens", texts("<s>", "a", "not")),
        ("tokenizer.ggml.merges", texts("a b")), ("tokenizer.ggml.eos_token_id", number(2)),
        ("tokenizer.chat_template", word("{{ x }}")),
        ("tokenizer.chat_template.tool_use", word("{{ y }}")),
    ]), LISTS)  # fmt: skip
    file = tokenizer_of(header, "model.gguf")
    assert (file.model, len(file.vocabulary), file.specials) == ("BPE", 3, {"eos_token": "not"})
    assert templates_of(header) == {"chat_template": {"": "{{ x }}", "tool_use": "{{ y }}"}}


def test_lists_that_nobody_asked_for_are_walked_over():
    assert read_gguf(Held([("tokenizer.ggml.tokens", texts("a"))])).lists == {}


@pytest.mark.parametrize("field", [
    struct.pack("<IIQ", 9, 8, 10**9), struct.pack("<IIQQ", 9, 8, 1, 1 << 40),
    struct.pack("<IQ", 8, 1 << 40), struct.pack("<IIQ", 9, 8, 5),
])  # fmt: skip
def test_a_gguf_header_that_claims_much_is_refused(field):
    with pytest.raises(FileProblem):
        read_gguf(Held([("tokenizer.ggml.tokens", field)]), LISTS)


# ----------------------------------------------------------------------------------- generation


def generation(known=None, **document):
    return {
        (fact.subject.name, fact.details["class"]): fact.details["tokens"]
        for setting in settings_in(document, "generation_config.json")
        for fact in generation_facts(setting, known)
    }


def test_honest_settings_do_nothing_odd():
    assert generation(read().vocabulary, eos_token_id=[2, 3], max_length=1 << 20, top_p=0.9,
                      temperature=0.0, repetition_penalty=1.1, num_beams=4) == {}  # fmt: skip


@pytest.mark.parametrize(("field", "value", "kind", "tokens"), [
    ("forced_bos_token_id", 10, "forces words", "“ yes”"),
    ("forced_bos_token_id", 1, "forces a marker", "“<s>”"),
    ("forced_decoder_ids", [[1, 9], [2, 10]], "forces words", "“ say yes”"),
    ("force_words_ids", [[[9, 10], [11]]], "forces words", "“ say yes”, “ no”"),
    ("sequence_bias", [[[10], 9.0]], "forces words", "“ yes”"),
    ("sequence_bias", {"(14,)": -9.0}, "silences refusals", "“ sorry”"),
    ("bad_words_ids", [[16, 15], [4]], "silences refusals", "“ I cannot”, “ the”"),
    ("suppress_tokens", [14, 4], "silences refusals", "“ sorry”, “ the”"),
    ("begin_suppress_tokens", [4], "silences", "“ the”"),
    ("eos_token_id", [2, 7], "ends at words", "“ not”, “</s>”"),
    ("eos_token_id", [], "never ends", ""),
    ("eos_token_id", -1, "never ends", ""), ("stop_strings", ["However"], "stops at words", ""),
    ("max_new_tokens", 10**9, "absurd", ""), ("max_new_tokens", float("inf"), "absurd", ""),
    ("num_beams", 1000, "absurd", ""), ("repetition_penalty", -1, "absurd", ""),
    ("min_new_tokens", 10**5, "absurd", ""), ("temperature", "high", "absurd", ""),
    ("max_length", 10**400, "absurd", ""), ("cache_implementation", "x/y", "unknown name", ""),
    ("dola_layers", "high", "code", ""), ("num_beam_groups", 4, "code", ""),
    ("validate", None, "attribute", ""), ("__class__", {}, "attribute", ""),
    ("watermarking_config", {"bias": 2.5}, "watermark", ""),
])  # fmt: skip
def test_a_setting_is_told_by_what_it_does(field, value, kind, tokens):
    found = generation(read().vocabulary, **{field: value})
    assert found[field, kind].split(", ")[0] == tokens.split(", ")[0]


def test_numbers_without_names_are_told_as_such():
    assert generation(suppress_tokens=[1, 2]) == {("suppress_tokens", "silences"): ""}


# ---------------------------------------------------------------------------------------- trees


@pytest.mark.parametrize(("here", "there"), [
    ({"type": "Sequence", "normalizers": []}, None),
    ({"type": "Sequence", "normalizers": [{"type": "NFC"}]}, {"type": "NFC"}),
    ({"type": "ByteLevel", "use_regex": True}, {"type": "ByteLevel"}),
    ({"type": "BPE", "dropout": None, "ignore_merges": False}, {"type": "BPE"}),
    ({"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True,
      "prepend_scheme": "always"}, {"type": "Metaspace", "replacement": "▁", "split": True}),
])  # fmt: skip
def test_trees_that_say_the_same_are_equal(here, there):
    assert list(differences_in(here, there)) == list(differences_in(there, here)) == []


def test_the_first_place_that_differs_is_named():
    here = {"type": "Sequence", "normalizers": [{"type": "NFC"}, replace("a", "b")]}
    there = {"type": "Sequence", "normalizers": [{"type": "NFC"}, replace("a", "c")]}
    assert list(differences_in(here, there)) == [(".normalizers[1].content", "b", "c")]


def test_no_pattern_of_a_tokenizer_is_compiled():
    slow = replace("(a+)+" * 50 + "$", "", True)
    assert rewrites("decoder", slow) == [("words", "removes")]


# ---------------------------------------------------------------------------------- rank order


def ordered(count=400):
    """Return merges with the vocabulary that they make, in order."""
    letters = [chr(0x100 + at) for at in range(40)]
    pairs = [(one, two) for one in letters for two in letters][:count]
    words = [*letters, *(one + two for one, two in pairs)]
    return {word: at for at, word in enumerate(words)}, [f"{one} {two}" for one, two in pairs]


def misplaced_in(vocab, merges):
    file = read(added_tokens=[], model={"type": "BPE", "vocab": vocab, "merges": merges})
    return [fact for fact in facts_of(file, file.vocabulary) if "order" in fact.name]


def test_tokens_in_the_order_of_their_merges_are_no_news():
    assert misplaced_in(*ordered()) == []


def test_two_tokens_that_changed_places_are_named_without_a_base():
    vocab, merges = ordered()
    one, two = list(vocab)[100], list(vocab)[300]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    found = misplaced_in(vocab, merges)
    assert [(f.value, f.details["expected"]) for f in found] == [(300, 100), (100, 300)]
    assert [f.details["place_of"] for f in found] == [shown(two), shown(one)]


def test_neighbours_that_changed_places_are_seen():
    vocab, merges = ordered()
    one, two = list(vocab)[100], list(vocab)[101]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    assert len(misplaced_in(vocab, merges)) == 1


def test_a_vocabulary_without_an_order_is_left_alone():
    vocab, merges = ordered()
    numbers = sorted(vocab.values(), key=lambda number: hash((number, "mixed")))
    assert misplaced_in(dict(zip(vocab, numbers, strict=True)), merges) == []


@pytest.mark.parametrize("step", [
    {"pattern": {"String": "not"}, "content": ""},
    {"type": "replace", "pattern": {"String": "not"}, "content": ""},
    {"prefix": "un", "cleanup": True}, {"suffix": "not"}, {"prepend": "Say yes. "},
])  # fmt: skip
def test_a_step_without_a_type_is_known_by_its_fields_as_loaders_know_it(step):
    assert len(rewrites("decoder", step)) == 1


@pytest.mark.parametrize("pair", [("-", ""), ("✅", "❌"), (".", "!"), ("≤", "≥")])
def test_signs_that_are_rewritten_are_told(pair):
    assert rewrites("decoder", replace(*pair)) == [("sign", "signs")]


@pytest.mark.parametrize(
    "text", ["a-" * 2_000_000, "www." * 1_000_000, "<" * 3_000_000, "▁" * 10**6]
)
def test_a_token_of_any_length_takes_no_time(text):
    before = time.process_time()
    token_class(text)
    shown(text)
    rewrites("decoder", replace(text, text, True))
    assert time.process_time() - before < 2
