"""A GPU kernel is tried once, and not used where it fails or computes something else."""

import logging

import pytest

from entropy_mask_plugin.masking.kernels import verified_once


@pytest.mark.parametrize("outcome, expected_message", [
    (True, None), (False, "its results differ from the plain implementation's"),
    (ValueError("no such\ninstruction"), "no such instruction"),
], ids=str)
def test_a_kernel_is_tried_once_for_each_device_and_type(outcome, expected_message, caplog):
    tried = []

    @verified_once("noise")
    def check(device, dtype):
        tried.append((device, dtype))
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with caplog.at_level(logging.WARNING):
        answers = [check(device, dtype) for device in ("cuda:0", "cuda:1") for dtype in ("bf16", "bf16", "fp32")]
    assert answers == [outcome is True] * 6 and len(tried) == 4
    assert len(caplog.messages) == (0 if expected_message is None else 4)
    if expected_message is not None:
        assert caplog.messages[0] == f"the noise kernel cannot be used on cuda:0: {expected_message}"
