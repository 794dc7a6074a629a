"""What importing the package does, and what it leaves alone."""

import subprocess
import sys

import pytest
from builders.training import ROOT


def printed(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_masking_needs_torch_alone_and_changes_nothing():
    code = """if True:
        import sys
        hook = sys.excepthook
        import importlib, pkgutil
        from entropy_mask_plugin import masking
        for module in pkgutil.walk_packages(masking.__path__, "entropy_mask_plugin.masking."):
            if "triton" not in module.name:  # which comes with torch for GPUs alone
                importlib.import_module(module.name)
        assert "entropy_mask_plugin.masking.strategies.ranked" in sys.modules
        assert sys.excepthook is hook
        print(*{name.partition(".")[0] for name in sys.modules} & {"fairseq", "hydra", "omegaconf", "torch"})"""
    assert printed(code) == ["torch"]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["fairseq", "entropy_mask_plugin.models", "entropy_mask_plugin.task"])
def test_everything_is_registered_whatever_is_imported_first(first):
    code = f"""if True:
        import {first}
        import entropy_mask_plugin
        if {first != "fairseq"}:
            entropy_mask_plugin.register()
        entropy_mask_plugin.register()  # once is enough, twice does no harm
        from fairseq.models import ARCH_MODEL_REGISTRY
        from fairseq.tasks import TASK_REGISTRY
        print(TASK_REGISTRY["entropy_masked_lm"].__module__, ARCH_MODEL_REGISTRY["bert_base"].__module__)"""
    assert printed(code) == ["entropy_mask_plugin.task", "entropy_mask_plugin.models.bert"]
