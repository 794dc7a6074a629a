"""What runs are called in tables and pictures: by what their paths do not have in common."""

import os
from collections.abc import Sequence
from typing import List


def differing_parts(paths: Sequence[str]) -> List[str]:
    """The paths without what all of them have in common, at the beginning and at the end, but at least a part of each;
    of a single path, the last part."""
    parts = [os.path.abspath(path).split(os.sep) for path in paths]
    if len(parts) == 1:
        return [parts[0][-1]]
    begin = min(len(os.path.commonprefix(parts)), min(map(len, parts)) - 1)
    end = len(os.path.commonprefix([path[begin:][::-1] for path in parts]))
    end = min(end, min(len(path) - begin for path in parts) - 1)
    return ["/".join(path[begin : len(path) - end]) for path in parts]
