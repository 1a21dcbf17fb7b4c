"""Run by test_weights.py in an environment with transformers and torch: FOLDER holds hf_ours, hf_best and inputs.npz;
writes the outputs of both, and checkpoints of its own (ernie, bert) with theirs."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    ErnieConfig,
    ErnieForMaskedLM,
)

folder = Path(sys.argv[1])
found = np.load(folder / "inputs.npz")
ids, sentences = torch.tensor(found["ids"]), torch.tensor(found["sentences"])
real = torch.arange(ids.shape[1]) < torch.tensor(found["lengths"])[:, None]
batch = {"input_ids": ids, "token_type_ids": sentences, "attention_mask": real.long()}
outputs = {}
with torch.no_grad():
    model, report = AutoModelForMaskedLM.from_pretrained(folder / "hf_ours", output_loading_info=True)
    assert not report["missing_keys"], report
    outputs["ours_logits"] = model.eval()(**batch).logits[real]
    model = AutoModelForSequenceClassification.from_pretrained(folder / "hf_best").eval()
    assert model.config.id2label == {0: "差", 1: "中", 2: "好"}
    outputs["best_logits"] = model(**batch).logits
    assert type(AutoModel.from_pretrained(folder / "hf_best")).__name__ == "ErnieModel"
    assert AutoTokenizer.from_pretrained(folder / "hf_best").tokenize("好书") == ["好", "书"]
    sizes = {
        "vocab_size": model.config.vocab_size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    torch.manual_seed(1)
    ernie = ErnieForMaskedLM(ErnieConfig(**sizes, use_task_id=True, hidden_act="relu", type_vocab_size=4))
    for name, model in (("ernie", ernie), ("bert", BertForMaskedLM(BertConfig(**sizes)))):
        model.eval().save_pretrained(folder / name)
        result = model(**batch, output_hidden_states=True)
        outputs[f"{name}_sequence"] = result.hidden_states[-1][real]
        outputs[f"{name}_logits"] = result.logits[real]
np.savez(folder / "outputs.npz", **{name: value.numpy() for name, value in outputs.items()})
