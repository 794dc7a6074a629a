"""Writes files/, small ones of every kind that the code leaves behind, and files.json, what they must give ever after.

    python tests/golden/record_files.py

It records the code that Python imports, as record.py does; what is on record was written by commit 7911eb4. A run, a
cache of entropies, an imported and a fine-tuned model are kept; tests/test_golden_files.py resumes the run, trains from
the cache, asks the models, and has wrong ones refused.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from fairseq import checkpoint_utils, options
from fairseq_cli import preprocess

try:
    from . import record
except ImportError:  # as a script
    import record

FILES = record.HERE / "files"
RUN, CACHE, IMPORTED, TUNED = FILES / "run.pt", FILES / "cache", FILES / "imported", FILES / "tuned.pt"
SMALL = ["--encoder-layers", "1", "--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32"]
RESUMABLE = [*SMALL, "--mask-strategy", "high", *record.BY_TEACHER, "--self-mask-from-epoch", "2", "--kd-weight", "0.5"]
CACHED = [*SMALL, "--mask-strategy", "marginal", *record.BY_TEACHER, "--max-epoch", "1"]
HEAD = "sentence_classification_head"
SENTENCES = ["return the value of the name", "a list of strings and numbers", "the name of a file"]


def train(folder, *flags, common=record.COMMON):
    """As `record.train`, with a checkpoint after each epoch."""
    return record.train(folder, "--save-interval", "1", *flags, common=common)


def keep(state, path, *left_out):
    """Without folders of this machine, and without parts that are large and not needed."""
    for part in state["cfg"].values():
        for name, value in part.items() if isinstance(part, dict) else ():
            if isinstance(value, str) and os.path.isabs(value):
                part[name] = None if name == "user_dir" else os.path.basename(value)
    state["args"] = None
    torch.save({key: value for key, value in state.items() if key not in left_out}, path)


# ---- the files


def make_run(folder):
    keep(train(folder, *RESUMABLE, "--max-epoch", "1"), RUN)


def make_cache(folder):
    train(folder, *CACHED, "--entropy-cache", CACHE)


def make_imported(folder):
    """A Hugging Face BERT with random weights, whose tokens are the data's."""
    import transformers

    symbols = [line.rsplit(" ", 1)[0] for line in (record.DATA / "dict.txt").read_text(encoding="utf-8").splitlines()]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *symbols]
    torch.manual_seed(5)
    sizes = dict(num_hidden_layers=1, hidden_size=16, intermediate_size=32, num_attention_heads=2,
                 max_position_embeddings=16)
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(tokens), **sizes))
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    Path(folder, "vocab.txt").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    script = Path(record.PLUGIN).parent / "scripts" / "import_hf_bert.py"
    subprocess.run([sys.executable, script, "--hf", folder, "--out", IMPORTED], check=True)
    for path in IMPORTED.iterdir():
        if path.name not in ("model.pt", "dict.txt"):
            path.unlink()


def make_tuned(folder):
    task = binarised_task(folder)
    sizes = record.COMMON[record.COMMON.index("--arch"):]
    common = [task, "--user-dir", record.PLUGIN, "--task", "sentence_prediction", "--criterion", "sentence_prediction",
              "--num-classes", "2", "--init-token", "0", *sizes, "--finetune-from-model", record.TEACHER,
              "--valid-subset", "train"]
    state = train(os.path.join(folder, "run"), "--max-epoch", "2", common=common)
    keep(state, TUNED, "last_optimizer_state")


def binarised_task(folder):
    """Two classes: sentences with an odd and an even number of words."""
    text = {"input0": SENTENCES * 8, "label": [str(len(line.split()) % 2) for line in SENTENCES] * 8}
    for part, lines in text.items():
        Path(folder, part).write_text("\n".join(lines) + "\n")
        dictionary = ["--srcdict", record.DATA / "dict.txt"] if part == "input0" else []
        flags = ["--only-source", "--trainpref", Path(folder, part), "--destdir", Path(folder, "task", part),
                 *dictionary]
        preprocess.main(options.get_preprocessing_parser().parse_args([str(flag) for flag in flags]))
    return os.path.join(folder, "task")


# ---- what they give


def resumed(folder):
    """A summary of the weights at the end of the second epoch."""
    shutil.copy(RUN, os.path.join(folder, "checkpoint_last.pt"))
    return record.summary_of_weights(train(folder, *RESUMABLE, "--max-epoch", "2"))


def cached(folder):
    """The weights of a training from the cache, and the files of the cache afterwards with their digests."""
    cache = shutil.copytree(CACHE, os.path.join(folder, "cache"))
    state = train(os.path.join(folder, "run"), *CACHED, "--entropy-cache", cache)
    return {"sha256": record.summary_of_weights(state)["sha256"],
            "files": {os.path.relpath(path, cache): hashlib.sha256(path.read_bytes()).hexdigest()
                      for path in sorted(Path(cache).rglob("*")) if path.is_file()}}


def imported(folder):
    """The sum of the squared logits of each position."""
    return {"logits": model_of(IMPORTED / "model.pt", IMPORTED)(tokens())[0].double().square().sum(-1).tolist()}


def tuned(folder):
    task = binarised_task(folder)
    logits, _ = model_of(TUNED, task)(tokens(), features_only=True, classification_head_name=HEAD)
    return {"logits": logits.double().tolist()}


def tokens():
    return torch.arange(3 * 16).view(3, 16) * 7 % 200 + 10


@torch.no_grad()
def model_of(path, data):
    (model,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(path)], {"data": str(data)})
    return model.eval()


def refused(folder):
    """{case: what the user is told, or "trained"}."""
    other = Path(shutil.copytree(record.DATA, os.path.join(folder, "other-data")))
    first, second, *rest = (other / "dict.txt").read_text(encoding="utf-8").splitlines()
    (other / "dict.txt").write_text("\n".join([second, first, *rest]) + "\n", encoding="utf-8")
    on_other = [other, *record.COMMON[1:]]
    cases = {
        "run of another size": (["--restore-file", RUN, "--mask-strategy", "random"], record.COMMON),
        "run with another dictionary": ([*SMALL, "--restore-file", RUN, "--mask-strategy", "random"], on_other),
        "teacher with another dictionary": (["--mask-strategy", "high", *record.BY_TEACHER], on_other),
        "imported model as a teacher": (["--mask-strategy", "high", "--teacher", IMPORTED / "model.pt"], record.COMMON),
        "cached with another dictionary": ([*CACHED, "--entropy-cache", CACHE], on_other),
        "begun with what is no checkpoint": (["--init-from", CACHE, "--mask-strategy", "random"], record.COMMON),
    }
    return {case: message(os.path.join(folder, case.replace(" ", "-")), *flags, common=common)
            for case, (flags, common) in cases.items()}


def message(save_dir, *flags, common):
    """Of the error that the training ends with; files without their folders."""
    try:
        train(save_dir, *flags, "--max-update", "1", common=common)
    except Exception as error:
        return re.sub(r"(/[\w.-]+)+/", "", str(error))
    return "trained"


def main():
    record.logging.disable(record.logging.INFO)
    torch.set_num_threads(1)
    print("recording", record.PLUGIN)
    if not FILES.exists():
        FILES.mkdir()
        for make in (make_run, make_cache, make_imported, make_tuned):
            with tempfile.TemporaryDirectory() as folder:
                make(folder)
    found = {"machine": record.machine()}
    for give in GIVEN:
        with tempfile.TemporaryDirectory() as folder:
            found[give.__name__] = give(folder)
    (record.HERE / "files.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


GIVEN = (resumed, cached, imported, tuned, refused)

if __name__ == "__main__":
    main()
