#!/usr/bin/env python3
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the package beside this script
from entropy_mask_plugin.cli import run_command

if __name__ == "__main__":
    sys.exit(run_command("minimal-pairs", prog="python scripts/minimal_pairs.py"))
