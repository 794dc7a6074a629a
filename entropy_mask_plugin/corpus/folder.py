"""The folder of a corpus: which stages are finished, and with which parameters.

A stage is finished when its files have their final names. `unfinished.json` contains the parameters; after the last
stage it is renamed to `corpus.json`.
"""

import os
from typing import Any, Dict, List

from ..huggingface.tokenizer_files import TOKENIZER_FILE_NAMES
from ..system.atomic_files import read_json, remove, remove_leftovers, write_json
from ..system.errors import UsageError, require

PRODUCTS = ("tokenizer.vocab", *TOKENIZER_FILE_NAMES, "dict.txt", "encoded", "bin")
CONTENT = "content of the source"  # the parameter that only pass 1 provides


def is_list_of_names(value: Any) -> bool:
    """Whether a value of a record names files of the folder."""
    return isinstance(value, list) and all(isinstance(name, str) and "\0" not in name for name in value)


def shown(value: Any) -> Any:
    """A parameter as messages give it; an input file may be part of one corpus only."""
    return "nothing" if value is None else value


class CorpusFolder:
    """The state of a corpus on disk.

    Args:
        folder: exists already.
        parameters: of the requested corpus, see `settings.parameters`.
    """

    def __init__(self, folder: str, parameters: Dict[str, Any]):
        self.folder, self.parameters = folder, parameters
        self.finished = self.has("corpus.json")
        name = "corpus.json" if self.finished else "unfinished.json"
        self.record = self.read(name)
        fine = isinstance(self.record.get("parameters", {}), dict) and is_list_of_names(
            self.record.get("tokenizer", None if self.finished else []))
        require("--out", f"{self.path(name)}, which is damaged,", fine, "it as this command wrote it")

    def path(self, name: str) -> str:
        """The path of a file or folder in it."""
        return os.path.join(self.folder, name)

    def has(self, name: str) -> bool:
        """Whether the file or folder exists."""
        return os.path.exists(self.path(name))

    def read(self, name: str) -> Dict[str, Any]:
        """The content of a JSON file; {} if it is missing. Raises as `read_json`."""
        return read_json(self.path(name)) if self.has(name) else {}

    def differences(self) -> List[str]:
        """One phrase for each parameter that differs from the recorded one."""
        recorded = self.record.get("parameters", {})
        names = [name for name in {**recorded, **self.parameters} if name != CONTENT or CONTENT in self.parameters]
        pairs = [(name, recorded.get(name), self.parameters.get(name)) for name in names]
        return [f"{name}: {shown(old)} there, {shown(new)} requested" for name, old, new in pairs if old != new]

    def refuse_another(self) -> None:
        """Raise a UsageError rather than overwrite a finished corpus of other parameters, or other files."""
        if self.finished and self.differences():
            listed = "; ".join(self.differences())
            raise UsageError(f"--out {self.folder} holds another corpus ({listed}), expected the same or a new folder")
        foreign = [name for name in PRODUCTS if self.has(name) and not self.record]
        if foreign:
            raise UsageError(f"--out {self.folder} holds {foreign[0]} but no corpus.json, expected a new folder")

    def begin(self) -> None:
        """Keep the finished stages of the same corpus; delete those of another, unfinished one."""
        remove_leftovers(self.folder)
        if self.record and self.differences():
            print(f"starting again: the unfinished corpus differs ({'; '.join(self.differences())})")
            for name in PRODUCTS:
                remove(self.path(name))
            self.record = {}
        self.remember(parameters=self.parameters)

    def remember(self, **facts: Any) -> None:
        """Add facts to the record on disk."""
        self.record.update(facts)
        write_json(self.path("unfinished.json"), self.record)

    def is_complete(self) -> bool:
        """Whether all stages are finished, and no file that fairseq needs was deleted since."""
        return self.finished and all(self.has(name) for name in (*self.record["tokenizer"], "dict.txt", "bin"))

    def finish(self) -> None:
        """Mark the corpus as finished."""
        os.replace(self.path("unfinished.json"), self.path("corpus.json"))
        remove_leftovers(self.folder)
        self.finished = True

    def leave(self) -> None:
        """After an error: delete the record if no stage is finished, as there is nothing to resume."""
        if not any(self.has(name) for name in PRODUCTS):
            remove(self.path("unfinished.json"))
