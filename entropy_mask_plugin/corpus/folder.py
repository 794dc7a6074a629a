"""The folder of a corpus: which stages are finished, and with which parameters.

A stage is finished when its files have their final names. `unfinished.json` holds the parameters until, with the last
stage, it becomes `corpus.json`.
"""

import json
import os

from ..huggingface.tokenizer_files import NAMES as TOKENIZER_FILES
from ..system.atomic_files import remove, remove_leftovers, write_json
from ..system.errors import UsageError

PRODUCTS = ("tokenizer.vocab", *TOKENIZER_FILES, "dict.txt", "encoded", "bin")
CONTENT = "content of the source"  # the parameter that is known only after pass 1


class CorpusFolder:
    def __init__(self, folder, parameters):
        self.folder, self.parameters = folder, parameters
        self.finished = self.has("corpus.json")
        self.record = self.read("corpus.json" if self.finished else "unfinished.json")

    def path(self, name):
        return os.path.join(self.folder, name)

    def has(self, name):
        return os.path.exists(self.path(name))

    def read(self, name):
        if not self.has(name):
            return {}
        with open(self.path(name), encoding="utf-8") as file:
            return json.load(file)

    def differences(self):
        """One phrase for each parameter that is not the one recorded."""
        there = self.record.get("parameters", {})
        names = [name for name in {**there, **self.parameters} if name != CONTENT or CONTENT in self.parameters]
        pairs = [(name, there.get(name), self.parameters.get(name)) for name in names]
        return [f"{name}: {old} there, {new} asked for" for name, old, new in pairs if old != new]

    def refuse_another(self):
        """Never overwrite a finished corpus of other parameters, or files that are not of this command."""
        if self.finished and self.differences():
            found = "; ".join(self.differences())
            raise UsageError(f"--out {self.folder} holds another corpus ({found}), expected the same or a new folder")
        foreign = [name for name in PRODUCTS if self.has(name) and not self.record]
        if foreign:
            raise UsageError(f"--out {self.folder} holds {foreign[0]} but no corpus.json, expected a new folder")

    def begin(self):
        """Keep the finished stages of the same corpus; drop those of another one that was never finished."""
        remove_leftovers(self.folder)
        if self.record and self.differences():
            print(f"starting again: the unfinished corpus differs ({'; '.join(self.differences())})")
            for name in PRODUCTS:
                remove(self.path(name))
            self.record = {}
        self.remember(parameters=self.parameters)

    def remember(self, **facts):
        self.record.update(facts)
        write_json(self.path("unfinished.json"), self.record)

    def is_whole(self):
        """Finished, and nothing that fairseq needs was deleted since."""
        return self.finished and all(self.has(name) for name in (*self.record["tokenizer"], "dict.txt", "bin"))

    def finish(self):
        os.replace(self.path("unfinished.json"), self.path("corpus.json"))
        remove_leftovers(self.folder)
        self.finished = True

    def leave(self):
        """After an error: without a finished stage there is nothing to go on with."""
        if not any(self.has(name) for name in PRODUCTS):
            remove(self.path("unfinished.json"))
