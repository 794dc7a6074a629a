"""Results as lines of JSON, each written as soon as it is measured: a run that is cut off keeps its results so far."""

import contextlib
import json
import os
from typing import Any, Callable, Dict, List, Optional

RESULTS, STAGE_LOG = "results.jsonl", "log"


def record(kind: str, **values: Any) -> None:
    """Append a result to $BENCHMARK_OUT/results.jsonl, and print it."""
    folder = os.environ.get("BENCHMARK_OUT")
    if folder:
        with open(os.path.join(folder, RESULTS), "a", encoding="utf-8") as file:
            file.write(json.dumps({"kind": kind, **values}) + "\n")
    texts = (f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items())
    print(f"{kind}: {'  '.join(texts)}", flush=True)


def attempt(kind: str, measure: Callable[[], Optional[Dict[str, Any]]], **values: Any) -> bool:
    """Record what `measure` returns, {name: value}, or that it failed, so that the next measurement can go on. Returns
    whether it succeeded."""
    try:
        record(kind, **values, **(measure() or {}))
        return True
    except Exception as error:
        record(kind, **values, failed=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        if "CUDA error" in str(error):
            raise  # after which nothing in this process works
        return False


def read(folder: str) -> List[Dict[str, Any]]:
    """All results in a folder, a list of dicts; an incomplete last line is left out."""
    figures = []
    with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, RESULTS), encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(json.JSONDecodeError):
                figures.append(json.loads(line))
    return figures
