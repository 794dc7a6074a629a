"""A user's mistake ends in one line that names the flag, what was found and what was expected."""

import os
import resource
import shutil
import subprocess
import sys

import pytest
from builders.training import OURS, PLUGIN, ROOT, TINY, TRAINING, binarise_task, run, train

from entropy_mask_plugin.system.atomic_files import atomic_path
from entropy_mask_plugin.system.errors import UsageError

MISTAKES = [
    (["--mask-strategy", "highest"], "--mask-strategy: highest found, expected one of high, low, mid, marginal, "
                                     "random, alternating, gumbel (did you mean high?)"),
    (["--mask-strategy", "high"], "--teacher: none found, expected a checkpoint for --mask-strategy high"),
    (["--mask-strategy", "low", "--mask-source", "teacher"], "--teacher: none found"),
    (["--mask-strategy", "random", "--mask-prob", "0"], "--mask-prob: 0.0 found, expected a fraction in (0, 1]"),
    (["--mask-strategy", "random", "--mask-prob", "1.5"], "--mask-prob: 1.5 found"),
    (["--mask-strategy", "random", "--mask-count", "0"], "--mask-count: 0 found, expected 1 or more"),
    (["--self-mask-from-epoch", "0"], "--self-mask-from-epoch: 0 found, expected 1 (cold start) or more"),
    (["--mask-strategy", "random", "--leave-unmasked-prob", "-0.1"], "--leave-unmasked-prob: -0.1 found"),
    (["--mask-strategy", "random", "--leave-unmasked-prob", "0.6", "--random-token-prob", "0.6"],
     "--random-token-prob: 0.6 found"),
    (["--mask-strategy", "random", "--precision", "fp8"], "--precision: fp8 found, expected fp32 or bf16"),
    (["--mask-strategy", "random", "--entropy-precision", "fp8"], "--entropy-precision: fp8 found, expected fp32 or"),
    (["--mask-strategy", "random", "--bf16"], "--bf16 (or --tpu) found, expected --precision bf16"),
    (["--mask-strategy", "random", "--kd-weight", "0.5"],
     "--kd-weight: 0.5 without --teacher found, expected a checkpoint"),
    (["--mask-strategy", "random", "--kd-weight", "2"], "--kd-weight: 2.0 found, expected a weight in [0, 1]"),
    (["--mask-strategy", "random", "--kd-temperature", "0"], "--kd-temperature: 0.0 found"),
    (["--mask-strategy", "random", "--kd-start-epoch", "0"], "--kd-start-epoch: 0 found"),
    (["--mask-strategy", "random", "--kd-positions", "some"], "--kd-positions: some found, expected masked or all"),
    (["--mask-strategy", "random", "--tokens-per-sample", "32"],
     "--tokens-per-sample: 32 found, expected at most the model's 16 positions"),
    (["--mask-strategy", "random", "--encoder-attention-heads", "5"], "--encoder-attention-heads: 5 found"),
    (["--mask-strategy", "random", "--encoder-attention-heads", "0"], "--encoder-attention-heads: 0 found"),
    (["--mask-strategy", "random", "--encoder-layers", "0"], "--encoder-layers: 0 found, expected 1 to 1,000"),
    (["--mask-strategy", "random", "--dropout", "2"], "--dropout: 2.0 found, expected a probability in [0, 1)"),
    (["--mask-strategy", "random", "--kd-temperature", "inf"], "--kd-temperature: inf found"),
]


@pytest.mark.parametrize("flags, message", MISTAKES, ids=lambda value: value[-2] if isinstance(value, list) else "")
def test_a_flag_out_of_range_is_named(flags, message, make_task):
    with pytest.raises(UsageError) as caught:
        make_task(*flags)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_tokens_per_sample_above_512_is_refused(make_task):
    with pytest.raises(UsageError, match="^--tokens-per-sample: 513 found, expected at most the model's 512"):
        make_task("--mask-strategy", "random", "--tokens-per-sample", "513", model=["--arch", "bertlet"])


def test_our_criterion_asks_for_our_task(data_bin, tmp_path):
    with pytest.raises(UsageError, match="^--task: MaskedLMTask found, expected entropy_masked_lm"):
        train(data_bin, str(tmp_path), task=["--task", "masked_lm", "--criterion", "entropy_masked_lm",
                                             "--tokens-per-sample", "16"])


@pytest.mark.slow
def test_a_data_bin_without_dictionary_split_or_sequences_is_refused(data_bin, tmp_path):
    def broken(name, change):
        folder = tmp_path / name
        shutil.copytree(data_bin, folder)
        change(folder)
        with pytest.raises(UsageError, match=f"^data: {folder}") as caught:
            train(str(folder), str(tmp_path / "run"), "--mask-strategy", "random", "--max-update", "1")
        return str(caught.value)

    def empty(folder):
        (tmp_path / "nothing").touch()
        done = run("fairseq_cli.preprocess", "--only-source", "--srcdict", folder / "dict.txt", "--trainpref",
                   tmp_path / "nothing", "--destdir", folder)
        assert done.returncode == 0, done.stderr

    assert "dict.txt is empty" in broken("empty-dict", lambda folder: (folder / "dict.txt").write_text(""))
    assert "cannot be read" in broken("cut", lambda folder: (folder / "train.idx").write_bytes(b"MMIDIDX"))
    assert "dict.txt does not exist" in broken("no-dict", lambda folder: (folder / "dict.txt").unlink())
    assert "train.bin and .idx not found" in broken("no-train", lambda folder: (folder / "train.idx").unlink())
    assert "train.bin holds no sequences" in broken("empty", empty)
    assert not (tmp_path / "run" / "checkpoint_last.pt").exists()


@pytest.mark.slow
def test_text_in_another_dictionarys_symbols_is_refused(data_bin, tmp_path):
    shutil.copytree(data_bin, tmp_path / "bin")
    (tmp_path / "text").write_text("xyzzy plugh\n" * 30)
    done = run("fairseq_cli.preprocess", "--only-source", "--srcdict", f"{data_bin}/dict.txt", "--trainpref",
               tmp_path / "text", "--destdir", tmp_path / "bin")
    assert done.returncode == 0, done.stderr
    with pytest.raises(UsageError, match="^data: train in .* without anything to mask"):
        train(str(tmp_path / "bin"), str(tmp_path / "run"), "--mask-strategy", "random", "--max-update", "1")


def test_a_shard_with_another_dictionary_is_refused(data_bin, tmp_path):
    shutil.copytree(data_bin, tmp_path / "bin")
    lines = (tmp_path / "bin" / "dict.txt").read_text().splitlines(keepends=True)
    (tmp_path / "bin" / "dict.txt").write_text("".join(reversed(lines)))
    with pytest.raises(UsageError, match=f"^data: {tmp_path}/bin has another dict.txt than the first .* at id 4"):
        train(f"{data_bin}:{tmp_path}/bin", str(tmp_path / "run"), "--mask-strategy", "random", "--max-update", "1")


def test_a_checkpoint_of_another_size_is_refused_before_it_is_loaded(data_bin, teacher, tmp_path):
    with pytest.raises(UsageError, match="^--restore-file: .* is of another model: encoder.layers.0.ffn.fc1.weight"):
        train(data_bin, str(tmp_path), "--mask-strategy", "random", "--restore-file", teacher,
              "--encoder-ffn-embed-dim", "48", "--max-update", "1")


@pytest.mark.slow
def test_hydra_prints_the_sentence_without_a_traceback(data_bin, tmp_path):
    done = run("fairseq_cli.hydra_train", "--config-dir", ROOT / "examples" / "paper", "--config-name", "bertlet",
               f"common.user_dir={PLUGIN}", "common.cpu=true", f"task.data={data_bin}", "task.teacher=null",
               "task.mask_prob=7", cwd=tmp_path)
    assert done.returncode != 0
    assert "--mask-prob: 7.0 found, expected a fraction in (0, 1]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_command_line_prints_the_sentence_alone(data_bin, tmp_path):
    done = run("fairseq_cli.train", data_bin, *TRAINING, *OURS, *TINY, "--save-dir", tmp_path, "--mask-prob", "7",
               "--mask-strategy", "random")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: --mask-prob: 7.0 found, expected a fraction in (0, 1], or two of them, FIRST:LAST")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_checkpoint_under_a_final_name(data_bin, tmp_path):
    """The limit on file sizes stands for the disk: a checkpoint of this model needs 600 kB."""
    command = [sys.executable, "-m", "fairseq_cli.train", data_bin, *TRAINING, *OURS, *TINY, "--save-dir",
               str(tmp_path), "--mask-strategy", "random", "--max-update", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, preexec_fn=lambda: (
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))))
    assert done.stderr.splitlines()[-1].startswith(f"error: --save-dir: {tmp_path}/checkpoint"), done.stderr
    assert not list(tmp_path.iterdir())


def test_an_error_names_the_file_and_not_its_temporary_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught, atomic_path(str(tmp_path / "file" / "new")) as tmp:
        open(tmp, "w")
    assert caught.value.filename == str(tmp_path / "file" / "new")


def test_checkpoints_are_copied_whole_or_not_at_all(tmp_path, monkeypatch):
    from fairseq.file_io import PathManager

    (tmp_path / "new.pt").write_text("new")
    (tmp_path / "last.pt").write_text("old")

    def dying_copy(source, target):
        open(target, "w").write("ne")
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", dying_copy)
        with pytest.raises(UsageError, match="^--save-dir: .*last.pt cannot be written"):
            PathManager.copy(str(tmp_path / "new.pt"), str(tmp_path / "last.pt"), overwrite=True)
    assert (tmp_path / "last.pt").read_text() == "old"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["last.pt", "new.pt"]
    PathManager.copy(str(tmp_path / "new.pt"), str(tmp_path / "last.pt"), overwrite=True)
    assert (tmp_path / "last.pt").read_text() == "new"


@pytest.mark.slow
def test_other_errors_keep_their_traceback():
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import entropy_mask_plugin; hook = sys.excepthook; " \
           "entropy_mask_plugin.register(); assert sys.excepthook is not hook; raise KeyError('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Traceback" in done.stderr and "KeyError" in done.stderr


@pytest.mark.parametrize("error, lines", [
    ("UsageError('--lr: 7 found, expected less')", ["error: --lr: 7 found, expected less"]), ("ValueError('7')", None)])
def test_a_mistake_that_ends_a_rank_which_fairseq_started_is_one_line(error, lines, tmp_path):
    (tmp_path / "ranks.py").write_text(f"""import torch
from entropy_mask_plugin.system.errors import UsageError, show_usage_errors_as_one_line

def work(rank):
    raise {error}

if __name__ == "__main__":
    show_usage_errors_as_one_line()
    torch.multiprocessing.spawn(work, nprocs=2)
""")
    done = subprocess.run([sys.executable, tmp_path / "ranks.py"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    said = [line for line in done.stderr.splitlines() if "SIGTERM" not in line]  # torch ends the other rank
    assert done.returncode == 1 and (said == lines if lines else "Traceback" in done.stderr)


CLASSIFY = ["--task", "sentence_prediction", "--criterion", "sentence_prediction", "--num-classes", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("task", [OURS, CLASSIFY], ids=["pretraining", "fine-tuning"])
def test_a_restore_file_that_is_not_there_is_no_reason_to_start_from_scratch(task, data_bin, tmp_path):
    data = data_bin
    if task is CLASSIFY:
        data = str(tmp_path / "glue")
        binarise_task(data_bin, tmp_path / "glue")
    with pytest.raises(UsageError, match="^--restore-file: /nowhere.pt does not exist, expected a checkpoint file"):
        train(data, str(tmp_path / "run"), "--restore-file", "/nowhere.pt", "--max-update", "1",
              *(["--mask-strategy", "random"] if task is OURS else []), task=task)


@pytest.mark.slow
def test_fine_tuning_with_other_sizes_than_the_checkpoint_has_is_one_line(data_bin, teacher, tmp_path):
    binarise_task(data_bin, tmp_path / "glue")
    with pytest.raises(UsageError, match="Cannot load model parameters from checkpoint .*: it is of another model"):
        train(str(tmp_path / "glue"), str(tmp_path / "run"), "--finetune-from-model", teacher, "--max-update", "1",
              task=CLASSIFY, model=[*TINY, "--encoder-ffn-embed-dim", "48"])


def test_a_criterion_that_would_average_over_unmasked_tokens_is_refused(data_bin, tmp_path):
    with pytest.raises(UsageError, match="^--criterion: cross_entropy found, expected entropy_masked_lm"):
        train(data_bin, str(tmp_path), "--mask-strategy", "random", "--max-update", "1",
              task=["--task", "entropy_masked_lm", "--tokens-per-sample", "16"])


def test_a_run_that_has_reached_max_update_is_left_as_it_is(data_bin, tmp_path):
    flags = ["--mask-strategy", "random", "--max-update", "2"]
    checkpoint = train(data_bin, str(tmp_path), *flags)
    before = open(checkpoint, "rb").read()
    with pytest.raises(SystemExit) as ended:
        train(data_bin, str(tmp_path), *flags)
    assert ended.value.code == 0 and open(checkpoint, "rb").read() == before
    train(data_bin, str(tmp_path), "--mask-strategy", "random", "--max-update", "3")  # more may be asked for
    assert open(checkpoint, "rb").read() != before


def test_a_run_that_goes_on_with_other_masks_says_so(data_bin, tmp_path, caplog):
    train(data_bin, str(tmp_path), "--mask-strategy", "random", "--max-update", "1")
    with caplog.at_level("WARNING"):
        train(data_bin, str(tmp_path), "--mask-strategy", "random", "--mask-prob", "0.3", "--max-update", "2")
    (warning,) = [record.message for record in caplog.records if "was trained with" in record.message]
    assert "was trained with --mask-prob 0.15 and resumes with 0.3" in warning
