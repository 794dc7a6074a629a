"""A small file of every kind that the plug-in reads, and a function that reads it as a command does."""

import functools
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import torch
from builders import mutations
from builders.glue import planted, write_glue, write_settings, write_trial
from builders.training import OURS, TINY, TRAINING, docstrings, parse, train
from fairseq import checkpoint_utils, models, tasks
from fairseq.trainer import Trainer

from entropy_mask_plugin.checkpoints.reading import read_checkpoint
from entropy_mask_plugin.checkpoints.vocabulary import read_dictionary
from entropy_mask_plugin.corpus.folder import CorpusFolder
from entropy_mask_plugin.corpus.tokenizer_training import train_tokenizer
from entropy_mask_plugin.corpus.wordpiece import WordPieceTokenizer
from entropy_mask_plugin.evaluation.models import read_model
from entropy_mask_plugin.evaluation.reading import read_pairs
from entropy_mask_plugin.glue.cells import read_fine_tuning_runs
from entropy_mask_plugin.glue.protocols import arch_args, model_settings
from entropy_mask_plugin.glue.reading import read_task
from entropy_mask_plugin.glue.table import glue_table, remarks_on, score_records
from entropy_mask_plugin.glue.tasks import TASKS
from entropy_mask_plugin.huggingface.config import write_config
from entropy_mask_plugin.huggingface.exporting import export_bert
from entropy_mask_plugin.huggingface.importing import fresh_checkpoint, import_bert, read_bert
from entropy_mask_plugin.huggingface.sentencepiece_model import read_tokenizer
from entropy_mask_plugin.huggingface.tokenizer_files import bert_files, sentencepiece_files
from entropy_mask_plugin.huggingface.vocabulary import SPECIALS, TokenizerVocabulary, json_bytes
from entropy_mask_plugin.huggingface.weights import to_huggingface
from entropy_mask_plugin.inspection.checkpoints import read_checkpoints, times_of
from entropy_mask_plugin.inspection.cross import check_runs
from entropy_mask_plugin.inspection.restoring import restore
from entropy_mask_plugin.pretrained.initialization import initialize_from, read_source
from entropy_mask_plugin.pretrained.restore import check_restored_shapes, read_restore_file
from entropy_mask_plugin.pretrained.teacher import load_teacher
from entropy_mask_plugin.recording import compare as recordings
from entropy_mask_plugin.recording.attaching import begin_recording
from entropy_mask_plugin.recording.facts import Facts, check_facts, read_facts
from entropy_mask_plugin.recording.parts import MAGIC
from entropy_mask_plugin.recording.reader import Recording
from entropy_mask_plugin.reporting.comparison import comparison_table
from entropy_mask_plugin.reporting.drift import drift_of_files
from entropy_mask_plugin.reporting.training_log import dictionary_unigram_entropy, read_pretraining_run
from entropy_mask_plugin.scoring.cache.self_store import SelfEntropyStore
from entropy_mask_plugin.scoring.cache.store import EntropyStore
from entropy_mask_plugin.studies.record import costs_of, finished, read_trial_record
from entropy_mask_plugin.training.blocks import load_samples

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
SIZES = [3, 4, 5] * 7  # of the blocks of a cache
PART, CACHE_PART = "masks/rank0/00001-000000000-000000001.masks", "cache/00000.entropies"
TEXT = ["a quick brown fox, number 7 and a lazy dog", "the value of the name is returned ‹é›"]


class Format(NamedTuple):
    """file: in the folder of originals; mutate: see `mutations`; read: function of the folder; every: of so many
    mutations one is read, where reading takes long."""

    file: str
    mutate: Callable
    read: Callable
    every: int = 1


# ---- originals

def make_originals(folder: Path) -> None:
    """Write a file of every kind."""
    shutil.copytree(GOLDEN / "data-bin", folder / "bin")
    shutil.copy(GOLDEN / "teacher.pt", folder / "teacher.pt")
    state = read_checkpoint(str(GOLDEN / "teacher.pt"), "teacher")
    (folder / "teacher.old.pt").write_bytes(mutations.saved(state, _use_new_zipfile_serialization=False))
    train_a_run(folder)
    write_roberta(folder)
    write_huggingface(folder, state)
    lines = [" ".join(words) for words in docstrings("argparse")] * 3
    (folder / "tokenizer.model").write_bytes(train_tokenizer(lines, 90, 1))
    write_glue(folder / "glue")
    write_records(folder)
    pair = {"sentence_good": "a b", "sentence_bad": "b a", "UID": "order", "field": "syntax"}
    (folder / "pairs.jsonl").write_text(f"{json.dumps(pair)}\n" * 4)
    store = EntropyStore(str(folder / "cache"), {}, SIZES)
    store.write(0, [np.arange(size, dtype=np.float32) for size in SIZES])
    store = SelfEntropyStore(str(folder / "self"), {}, SIZES)
    store.write([0, 3], [np.ones(3), np.ones(3)], epoch=2)
    mutations.bomb()


def train_a_run(folder: Path) -> None:
    """A checkpoint with optimizer, average and learned state, a log, a recording."""
    log = logging.FileHandler(folder / "train.log")
    log.setFormatter(logging.Formatter("%(asctime)s | %(levelname)s | %(name)s | %(message)s"))
    logging.getLogger().addHandler(log)
    train(str(folder / "bin"), str(folder / "run"), *RUN, "--max-update", "2", "--record-masks", str(folder / "masks"),
          "--no-epoch-checkpoints")
    logging.getLogger().removeHandler(log)
    os.remove(folder / "run/checkpoint_best.pt")
    (folder / "train.log").rename(folder / "run/train.log")


RUN = ["--mask-strategy", "high", "--self-mask-from-epoch", "1", "--self-mask-model", "ema", "--store-ema",
       "--ema-decay", "0.9"]


def write_roberta(folder: Path) -> None:
    """fairseq's own arch, which may be a teacher."""
    task = make_task(folder)
    cfg = parse([folder / "bin", *TRAINING, *OURS, "--arch", "roberta_base", "--encoder-layers", "1",
                 "--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32", "--encoder-attention-heads", "2",
                 "--mask-strategy", "random", "--max-positions", "16"])
    from omegaconf import OmegaConf

    model = models.build_model(cfg.model, task)
    settings = OmegaConf.to_container(cfg, enum_to_str=True)
    settings["model"] = {key: value for key, value in vars(cfg.model).items() if isinstance(value, (str, int, float))}
    torch.save(fresh_checkpoint(settings, model, task.dictionary.symbols), folder / "roberta.pt")


def write_huggingface(folder: Path, state: dict) -> None:
    """The teacher as Hugging Face's BERT, with both kinds of weights and all files of a tokenizer."""
    symbols = state["extra_state"]["vocabulary"] if "vocabulary" in state["extra_state"] else dictionary_symbols(folder)
    names = {ours: bert for ours, bert in SPECIALS.values()}
    vocabulary = TokenizerVocabulary([names.get(symbol, symbol) for symbol in symbols],
                                     {special: bert for special, (_, bert) in SPECIALS.items()})
    sizes = state["cfg"]["model"]
    tensors = to_huggingface(state["model"], sizes["encoder_layers"], vocabulary.rows())
    for kind in ("hf", "hf-bin"):
        (folder / kind).mkdir()
        (folder / kind / "vocab.txt").write_text("".join(f"{token}\n" for token in vocabulary.tokens))
        (folder / kind / "config.json").write_bytes(json_bytes(write_config(sizes, vocabulary, "BertForMaskedLM")))
    import safetensors.torch

    safetensors.torch.save_file(tensors, folder / "hf/model.safetensors", {"format": "pt"})
    torch.save(tensors, folder / "hf-bin/pytorch_model.bin")
    shutil.copytree(folder / "hf", folder / "hf-parts")
    (folder / "hf-parts/model.safetensors").rename(folder / "hf-parts/part1.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, "part1.safetensors")}
    (folder / "hf-parts/model.safetensors.index.json").write_text(json.dumps(index))
    for name, content in bert_files(str(folder / "hf"), "--hf").files.items():
        (folder / "hf" / name).write_bytes(content)


def dictionary_symbols(folder: Path) -> list:
    dictionary = read_dictionary(str(folder / "bin"))
    dictionary.add_symbol("<mask>")
    return dictionary.symbols


def write_records(folder: Path) -> None:
    """A fine-tuning, a trial of a study, a corpus."""
    tuned = folder / "tuned"
    tuned.mkdir()
    write_settings(tuned)
    for name in ("rte", "sts-b"):
        write_trial(tuned, name, 1, planted(TASKS[name], 1, 20))
    study = folder / "study"
    study.mkdir()
    identity = {"glue": {"rte": "digest"}, "corpus": "digest"}
    (study / "record.json").write_text(json.dumps({
        "condition": "high", "corruption": "all-mask", "seed": 1, "identity": identity, "commands": ["fairseq-train"],
        "fine_tuning": {"drift": {"rte": [["layer 0", "FFN in", 0.5, 10.0]]}}}))
    (study / "finished.json").write_text(json.dumps({"seconds": 3.5, "peak_memory_bytes": 1}))
    (folder / "corpus").mkdir()
    corpus = CorpusFolder(str(folder / "corpus"), PARAMETERS)
    corpus.remember(parameters=PARAMETERS, tokenizer=["tokenizer.model"], splits={"train": {"lines": 3}})
    corpus.finish()


PARAMETERS = {"--text": ["a.txt"], "--vocab-size": 60, "--seed": 1, "content of the source": "abc"}


# ---- readers

@functools.cache
def make_task(folder: Path, *flags: str):
    """A task of the data, as fairseq-train makes it."""
    cfg = parse([folder / "bin", *TRAINING, *OURS, *TINY, "--mask-strategy", "random", *flags])
    return tasks.setup_task(cfg.task)


@functools.cache
def make_model(folder: Path):
    cfg = parse([folder / "bin", *TRAINING, *OURS, *TINY, "--mask-strategy", "random"])
    return models.build_model(cfg.model, make_task(folder))


def teacher(name):
    return lambda folder: load_teacher(str(folder / name), make_task(folder))


def init_from(folder):
    initialize_from(read_source(str(folder / "teacher.pt"), make_task(folder)), make_model(folder))


def restore_file(folder):
    """As fairseq-train resumes: what the task checks, then what fairseq's trainer reads."""
    trainer, task = make_trainer(folder)
    task.cfg.restore_file = trainer.cfg.checkpoint.restore_file = str(folder / "run/checkpoint_last.pt")
    restored = read_restore_file(task)
    assert restored is not None
    check_restored_shapes(restored, trainer.get_model())
    checkpoint_utils.load_checkpoint(trainer.cfg.checkpoint, trainer)


@functools.cache
def make_trainer(folder: Path):
    cfg = parse([folder / "bin", *TRAINING, *OURS, *TINY, *RUN, "--save-dir", folder / "new"])
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    return Trainer(cfg, task, task.build_model(cfg.model), task.build_criterion(cfg.criterion)), task


def export(folder):
    shutil.rmtree(folder / "exported", ignore_errors=True)
    export_bert(str(folder / "teacher.pt"), str(folder / "exported"), str(folder / "hf"))


def atlas(folder):
    checkpoints = read_checkpoints([str(folder / "run/checkpoint_last.pt")])
    ((when, _),) = times_of(checkpoints)
    restore(checkpoints[0], when, str(folder / "bin"))


def weight_drift(folder):
    drift_of_files(str(GOLDEN / "teacher.pt"), [str(folder / "teacher.pt")])


def evaluated(folder):
    check_runs([str(folder / "teacher.pt")], str(folder / "bin"))
    read_model(str(folder / "teacher.pt")).sentences([[5, 6, 7]])


def fine_tuning(folder):
    path = str(folder / "teacher.pt")
    arch_args(model_settings(read_checkpoint(path, "--checkpoint"), path, "--checkpoint"))


def compared(folder):
    run = read_pretraining_run(str(folder / "run"))
    comparison_table([run], 9.0).markdown()
    costs_of(run)


def huggingface(name):
    return lambda folder: read_bert(str(folder / name), "--teacher").model()


def imported(folder):
    shutil.rmtree(folder / "imported", ignore_errors=True)
    import_bert(str(folder / "hf"), str(folder / "imported"))


def wordpiece(folder):
    WordPieceTokenizer(str(folder / "hf")).encode(TEXT, 1)


def sentencepiece(folder):
    tokenizer = read_tokenizer(str(folder / "tokenizer.model"))
    tokenizer.encode(TEXT, 1), tokenizer.dictionary({}), tokenizer.files
    sentencepiece_files(str(folder / "tokenizer.model"), 16)


def dictionary(folder):
    read_dictionary(str(folder / "bin"))
    dictionary_unigram_entropy(folder / "bin/dict.txt")


def data(folder):
    task = make_task(folder)
    samples = load_samples(task.cfg, task.dictionary, "train", 1, True)
    samples.collater([samples[i] for i in range(len(samples))])


def cache(folder):
    store = EntropyStore(str(folder / "cache"), {}, SIZES)
    if not store.missing():
        for block in range(len(SIZES)):
            store.read(block)


def self_cache(folder):
    store = SelfEntropyStore(str(folder / "self"), {}, SIZES)
    for block in range(len(SIZES)):
        store.read(block)


def recording(folder):
    masks = Recording(str(folder / "masks"), "--replay-masks")
    check_facts(masks.facts, facts_of(folder), str(folder / "masks"), "--replay-masks")


@functools.cache
def facts_of(folder):
    """Of the recording, before it is mutated."""
    content = read_facts(str(folder / "masks"), "--replay-masks")
    return Facts(0, content["number of shards"], content["shards"]["0"])


def masks(folder):
    one, other = (Recording(str(folder / "masks"), "--replay-masks") for _ in range(2))
    one.masks(1).at(one.masks(1).ids[:4], 16)
    recordings.compare(one, other)


def record_on(folder):
    begin_recording(str(folder / "masks"), str(folder / "run"), facts_of(folder), True)


def tuned(folder):
    runs = read_fine_tuning_runs([str(folder / "tuned")])
    glue_table(score_records(runs), remarks_on(runs, None)).markdown()
    runs[0].describe()


def corpus(folder):
    corpus = CorpusFolder(str(folder / "corpus"), PARAMETERS)
    corpus.refuse_another()
    corpus.is_complete()


of_part = functools.partial(mutations.of_recording, name="rank0/00001-000000000-000000001.masks", magic=MAGIC)
of_cache = functools.partial(mutations.of_cache, name="cache 0")
CHECKPOINT, LAST = ("teacher.pt", mutations.of_checkpoint), ("run/checkpoint_last.pt", mutations.of_checkpoint)
FORMATS = {
    "teacher": Format(*CHECKPOINT, teacher("teacher.pt")),
    "teacher, old format": Format("teacher.old.pt", mutations.of_old_checkpoint, teacher("teacher.old.pt")),
    "teacher, roberta": Format("roberta.pt", mutations.of_checkpoint, teacher("roberta.pt")),
    "init-from": Format(*CHECKPOINT, init_from),
    "restore-file": Format(*LAST, restore_file),
    "atlas, cross, restored average": Format(*LAST, atlas),
    "compare-runs, checkpoint": Format(*LAST, compared, every=10),
    "compare-runs, train.log": Format("run/train.log", mutations.of_text, compared, every=10),
    "export-hf-bert": Format(*CHECKPOINT, export),
    "weight-drift": Format(*CHECKPOINT, weight_drift),
    "minimal-pairs, checkpoint": Format(*CHECKPOINT, evaluated),
    "glue, checkpoint": Format(*CHECKPOINT, fine_tuning),
    "pytorch_model.bin": Format("hf-bin/pytorch_model.bin", mutations.of_checkpoint, huggingface("hf-bin")),
    "model.safetensors": Format("hf/model.safetensors", mutations.of_safetensors, huggingface("hf")),
    "model.safetensors.index.json": Format("hf-parts/model.safetensors.index.json", mutations.of_json,
                                           huggingface("hf-parts")),
    "config.json": Format("hf/config.json", mutations.of_json, huggingface("hf")),
    "tokenizer.json": Format("hf/tokenizer.json", mutations.of_json, wordpiece),
    "tokenizer.json, imported": Format("hf/tokenizer.json", mutations.of_json, imported),
    "tokenizer_config.json": Format("hf/tokenizer_config.json", mutations.of_json, wordpiece),
    "vocab.txt": Format("hf-bin/vocab.txt", mutations.of_text, huggingface("hf-bin")),
    "tokenizer.model": Format("tokenizer.model", mutations.of_sentencepiece, sentencepiece),
    "dict.txt": Format("bin/dict.txt", mutations.of_text, dictionary),
    "train.idx": Format("bin/train.idx", mutations.of_index, data),
    "train.bin": Format("bin/train.bin", mutations.of_bytes, data),
    "entropy cache": Format(CACHE_PART, of_cache, cache),
    "self-entropy cache, values": Format("self/values", mutations.of_bytes, self_cache),
    "self-entropy cache, epochs": Format("self/epochs", mutations.of_bytes, self_cache),
    "recorded masks": Format(PART, of_part, masks),
    "recorded masks, facts.json": Format("masks/facts.json", mutations.of_json, recording),
    "record-masks, facts.json": Format("masks/facts.json", mutations.of_json, record_on),
    "GLUE, RTE": Format("glue/RTE/train.tsv", mutations.of_text, lambda folder: read_task("rte", str(folder / "glue"))),
    "GLUE, STS-B": Format("glue/STS-B/dev.tsv", mutations.of_text,
                          lambda folder: read_task("sts-b", str(folder / "glue"))),
    "predictions.tsv": Format("tuned/sts-b/seed1/predictions.tsv", mutations.of_text, tuned),
    "result.json": Format("tuned/rte/seed1/result.json", mutations.of_json, tuned),
    "settings.json": Format("tuned/settings.json", mutations.of_json, tuned),
    "minimal pairs": Format("pairs.jsonl", mutations.of_json_lines,
                            lambda folder: read_pairs(str(folder / "pairs.jsonl"))),
    "corpus.json": Format("corpus/corpus.json", mutations.of_json, corpus),
    "record.json": Format("study/record.json", mutations.of_json,
                          lambda folder: read_trial_record(str(folder / "study/record.json"))),
    "finished.json": Format("study/finished.json", mutations.of_json, lambda folder: finished(str(folder / "study"))),
}
