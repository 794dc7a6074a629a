"""Hugging Face folders: a tiny BERT with its tokenizer, as transformers writes them."""

import torch
import transformers
from builders.training import make_bert_vocabulary

SIZES = {
    "bert_base": {},
    "bertlet": dict(num_hidden_layers=4, hidden_size=512, num_attention_heads=8, intermediate_size=2048),
    "tiny": dict(num_hidden_layers=3, hidden_size=36, num_attention_heads=3, intermediate_size=50,
                 max_position_embeddings=70, layer_norm_eps=1e-5, type_vocab_size=3),
}


def make_folder(folder, kind="BertForMaskedLM", tokens=None, **sizes):
    """A Hugging Face BERT as save_pretrained leaves it, all its weights random (LayerNorms and biases too)."""
    tokens = tokens or make_bert_vocabulary()
    torch.manual_seed(5)
    model = getattr(transformers, kind)(transformers.BertConfig(vocab_size=len(tokens), **sizes))
    for weight in model.parameters():
        weight.data += 0.01 * torch.randn_like(weight)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return model.eval()
