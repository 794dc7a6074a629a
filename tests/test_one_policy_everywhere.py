"""A run whose policy has many parts, in everything that reads a run or feeds it."""

import logging

import pytest
import torch
import yaml
from builders.masks import read_masks, record_masks
from builders.training import OURS, PLUGIN, TINY, TRAINING, batch_of, masked_by_policy, run, train, weights
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import validate

from entropy_mask_plugin.huggingface.exporting import export_bert
from entropy_mask_plugin.huggingface.importing import import_bert
from entropy_mask_plugin.reporting.comparison import comparison_table
from entropy_mask_plugin.reporting.training_log import read_pretraining_run

pytestmark = pytest.mark.slow  # trainings

POLICY = ["--mask-strategy", "gumbel", "--mask-score", "surprisal", "--mask-unit", "span", "--mask-prob", "0.3:0.15",
          "--guided-fraction", "0:0.5", "--guided-by", "sequences", "--self-mask-from-epoch", "1", "--self-mask-model",
          "ema", "--store-ema", "--ema-decay", "0.9", "--entropy-folds", "2", "--max-update", "12"]
MODEL = ["--arch", "bert_base", *TINY[2:]]


@pytest.fixture(scope="module")
def trained(data_bin, like_data, tmp_path_factory):
    """A run of POLICY that begins with a Hugging Face BERT: (its folder with train.log, that model's folder)."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("trained")
    import_bert(str(like_data[0]), str(folder / "in"))
    handler = logging.FileHandler(folder / "train.log")
    handler.setFormatter(logging.Formatter("x | %(levelname)s | %(name)s | %(message)s"))
    logging.getLogger().addHandler(handler)
    train(data_bin, str(folder / "run"), "--finetune-from-model", folder / "in" / "model.pt", *POLICY, model=MODEL)
    logging.getLogger().removeHandler(handler)
    (folder / "train.log").rename(folder / "run" / "train.log")
    return folder / "run", folder / "in"


def test_it_is_exported_and_its_card_shows_the_flags_as_they_are_typed(trained, tmp_path):
    folder, tokenizer = trained
    assert export_bert(str(folder / "checkpoint_last.pt"), str(tmp_path / "out"), str(tokenizer)) == "BertForMaskedLM"
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    flags = yaml.safe_load(card.split("```yaml\n")[1].split("```")[0])["task"]
    shown = {"mask_prob": "0.3:0.15", "guided_fraction": "0:0.5", "guided_by": "sequences", "self_mask_model": "ema",
             "mask_score": "surprisal", "mask_unit": "span", "entropy_folds": 2}
    assert {name: flags[name] for name in shown} == shown and "mask_prob: 0.3:0.15\n" in card
    import_bert(str(tmp_path / "out"), str(tmp_path / "back"))


def test_fairseq_validates_it_and_it_teaches(trained, data_bin, make_task, caplog):
    checkpoint = str(trained[0] / "checkpoint_last.pt")
    flags = [data_bin, "--user-dir", PLUGIN, "--task", "entropy_masked_lm", "--path", checkpoint, "--batch-size", "64",
             "--cpu", "--num-workers", "0", "--log-format", "simple"]
    with caplog.at_level(logging.INFO):
        validate.main(convert_namespace_to_omegaconf(options.parse_args_and_arch(options.get_validation_parser(),
                                                                                flags)))
    assert any("loss" in record.getMessage() for record in caplog.records if record.name == "fairseq_cli.validate"
               or record.name == "valid")
    task, model, _ = make_task("--mask-strategy", "high", "--teacher", checkpoint, "--kd-weight", "0.5")
    assert masked_by_policy(task, batch_of(task, range(4)), model, 0)[1]["n_scored"] > 0


def test_it_is_compared_by_its_policy(trained, data_bin):
    row = comparison_table([read_pretraining_run(str(trained[0]))], None).rows[0]
    assert row[1] == "gumbel, ema, score surprisal, unit span, folds 2, 0:0.5 guided by sequences, 0.3:0.15 masked"


@pytest.mark.parametrize("flag, before, after", [
    ("--guided-fraction", "0:0.5", "0:1"), ("--mask-prob", "0.3:0.15", "0.15"), ("--self-mask-model", "ema", "current"),
])
def test_resuming_it_with_another_value_is_warned_of_once(flag, before, after, trained, data_bin, make_task, caplog):
    with caplog.at_level(logging.WARNING):
        make_task(*POLICY, "--save-dir", trained[0], flag, after, model=MODEL)
    lines = [record.getMessage() for record in caplog.records if "was trained with" in record.getMessage()]
    assert [line.split("was trained with ")[1].split(";")[0] for line in lines] == [
        f"{flag} {before} and resumes with {after}"]


@pytest.mark.parametrize("flags", [["--finetune-from-model"], ["--reset-optimizer", "--reset-dataloader",
                                                               "--reset-meters", "--restore-file"]])
def test_an_average_begins_with_the_weights_of_a_checkpoint_without_one(flags, data_bin, teacher, tmp_path):
    """With another random seed, so that new weights would be others."""
    checkpoint = train(data_bin, str(tmp_path), *POLICY, "--seed", "5", "--lr", "0", "--stop-min-lr", "-1",
                       "--max-update", "1", *flags, teacher)
    average = torch.load(checkpoint, weights_only=True)["extra_state"]["ema"]
    expected = weights(teacher)
    assert average.keys() == expected.keys() and all(torch.allclose(average[key], expected[key]) for key in expected)


# ---- what feeds it

@pytest.mark.parametrize("guided_by", ["tokens", "sequences"])
def test_masks_depend_neither_on_data_workers_nor_on_batches(guided_by, data_bin, teacher, tmp_path, monkeypatch):
    """Scores come from a cache, which workers read."""
    flags = ["--mask-strategy", "gumbel", "--mask-score", "margin", "--mask-unit", "span", "--teacher", teacher,
             "--guided-fraction", "0.5", "--guided-by", guided_by, "--entropy-cache", str(tmp_path / "cache"),
             "--entropy-folds", "2", "--max-epoch", "1"]
    record_masks(tmp_path / "one", monkeypatch.setattr)
    train(data_bin, str(tmp_path / "run"), *flags, "--no-save")
    # In a process of its own: in this one, the workers would be waited for, five seconds each.
    done = run("tests.builders.masks", data_bin, *TRAINING, *OURS, *TINY, "--save-dir", tmp_path / "other", *flags,
               "--no-save", "--num-workers", "2", "--batch-size", "24")
    assert done.returncode == 0, done.stderr
    one, other = ({i: positions for (_, i), positions in read_masks(tmp_path / name).items()}
                  for name in ("one", "other.rank0"))
    assert one == other and len(one) > 400 and any(one.values())
