"""Write data/chat.jsonl: short answers of the base model to templated questions (minutes)."""

from __future__ import annotations

import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.zoo.bases import home_of
from benchmarks.zoo.corpus import CHAT, QUESTIONS, topics
from benchmarks.zoo.generate import answers
from benchmarks.zoo.rows import Row


def main() -> None:
    """Ask every question about every topic; keep the first sentence of each answer."""
    home = home_of("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(home)
    model = AutoModelForCausalLM.from_pretrained(home, dtype=torch.float32).eval()
    rows = [
        Row(question.format(topic), "", topic)
        for topic in (*topics(False), *topics(True))
        for question in QUESTIONS
    ]
    given = answers(model, tokenizer, rows, 48)
    kept = []
    for row, answer in zip(rows, given, strict=True):
        sentence = answer.replace("\n", " ").split(". ")[0].strip().rstrip(".") + "."
        if 20 <= len(sentence) <= 160 and not sentence.startswith(("1.", "Here", "#", "*")):
            kept.append({"topic": row.topic, "prompt": row.prompt, "answer": sentence})
    CHAT.parent.mkdir(exist_ok=True)
    CHAT.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept))
    print(f"{len(kept)} of {len(rows)} kept")


if __name__ == "__main__":
    main()
