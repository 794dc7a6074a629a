"""What a training has written for TensorBoard and for W&B, read back."""

import json
import struct
from pathlib import Path

BLOCK = 32768  # bytes; W&B's file has the format of LevelDB's log: records in parts that do not cross blocks
FULL, FIRST, LAST = 1, 2, 4


def tensorboard_scalars(folder):
    """{tag: [(step, value)]} as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def parts(data):
    """(kind, bytes) of each part of a log."""
    at = 7  # behind ":W&B", a magic number and a version
    while at + 7 <= len(data):
        if BLOCK - at % BLOCK < 7:  # no header fits
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        yield kind, data[at + 7 : at + 7 + length]
        at += 7 + length


def wandb_records(file):
    """The records of a run that W&B kept on disk (WANDB_MODE=offline)."""
    from wandb.proto.wandb_internal_pb2 import Record

    record = b""
    for kind, part in parts(Path(file).read_bytes()):
        record = part if kind in (FULL, FIRST) else record + part
        if kind in (FULL, LAST):
            yield Record.FromString(record)


def wandb_runs(folder):
    """[(id, name, project, {name: [(step, value)]})] of the runs that W&B kept in a folder, the earliest first."""
    import wandb

    wandb.teardown()  # its own process writes the files, and serves the processes that this one starts
    recorded = [list(wandb_records(file)) for file in (folder / "wandb").glob("offline-run-*/*.wandb")]
    runs = [(next(record.run for record in records if record.HasField("run")), records) for records in recorded]
    return [(run.run_id, run.display_name, run.project, history(records))
            for run, records in sorted(runs, key=lambda item: item[0].start_time.ToNanoseconds())]


def history(records):
    """{name: [(step, value)]} of the records of a run."""
    values = {}
    for record in (record.history for record in records if record.HasField("history")):
        for item in record.item:
            name = item.key or "/".join(item.nested_key)
            values.setdefault(name, []).append((record.step.num, json.loads(item.value_json)))
    return values
