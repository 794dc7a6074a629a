"""The example's own script on a tiny random BERT and real text, killed once; transformers loads what comes out."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import transformers
from builders.huggingface import make_folder
from builders.training import ROOT, make_bert_vocabulary

from entropy_mask_plugin.corpus.docstrings import Docstrings

pytestmark = pytest.mark.slow  # all of them start processes

EXAMPLE = ROOT / "examples" / "domain_adaptation"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adaptation")
    make_folder(folder / "bert", tokens=make_bert_vocabulary(), num_hidden_layers=2, hidden_size=32,
                intermediate_size=64, num_attention_heads=2, max_position_embeddings=40)
    documents = [document.lines for _, document in zip(range(150), Docstrings().documents())]
    (folder / "text.txt").write_text("\n\n".join("\n".join(lines) for lines in documents), encoding="utf-8")
    return folder


def adapt(place, out, bert="bert"):
    environment = {**os.environ, "OMP_NUM_THREADS": "1",
                   "PATH": os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]}
    flags = ["--tokens-per-sample", "32", "--max-epoch", "2", "--cpu", "--log-format", "simple", "--num-workers", "0",
             "--save-interval-updates", "3", "--lr", "0.001"]
    return subprocess.Popen(["bash", EXAMPLE / "adapt.sh", place / bert, place / "text.txt", place / out, *flags],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
                            start_new_session=True)


def test_a_bert_without_head_is_refused_before_the_work(place):
    shutil.copytree(place / "bert", place / "bare")
    transformers.AutoModel.from_pretrained(place / "bert").save_pretrained(place / "bare")
    refused = adapt(place, "headless", bert="bare")
    output, _ = refused.communicate(timeout=100)
    assert refused.returncode == 1 and "has no trained masked-LM head" in output
    assert not (place / "headless" / "corpus").exists()


def test_a_bert_is_adapted_and_a_killed_run_ends_like_a_straight_one(place):
    straight = adapt(place, "straight")
    output, _ = straight.communicate(timeout=300)
    assert straight.returncode == 0, output[-3000:]

    killed = adapt(place, "killed")
    while killed.poll() is None and not list((place / "killed").glob("run/checkpoint_*_3.pt")):
        time.sleep(0.05)
    assert killed.poll() is None, killed.communicate()[0][-3000:]  # still at work
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    again = adapt(place, "killed")
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and "num_updates" in output, output[-3000:]

    original, one, other = (transformers.AutoModelForMaskedLM.from_pretrained(place / name)
                            for name in ("bert", "straight/adapted", "killed/adapted"))
    tokens = transformers.AutoTokenizer.from_pretrained(place / "straight" / "adapted")
    assert tokens.mask_token == "[MASK]" and len(tokens) == original.config.vocab_size
    assert not any(torch.equal(weight, one.get_parameter(name)) for name, weight in original.named_parameters()
                   if "token_type" not in name)
    assert all(torch.equal(weight, other.get_parameter(name)) for name, weight in one.named_parameters())
