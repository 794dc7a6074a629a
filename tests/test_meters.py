"""fairseq's meters: what it logs in an update leaves nothing behind."""

from fairseq.logging import metrics

import entropy_mask_plugin


def test_names_out_of_use_are_forgotten():
    entropy_mask_plugin.register()
    before = dict(metrics._active_aggregators_cnt)
    for _ in range(3):
        with metrics.aggregate("train"), metrics.aggregate(new_root=True), metrics.aggregate() as inner:
            with metrics.aggregate("train"):
                metrics.log_scalar("loss", 2.0, 1)
            assert inner.get_smoothed_values() == {"loss": 2.0}
            assert len(metrics._active_aggregators_cnt) == 2  # the new root, and the one in it
    assert dict(metrics._active_aggregators_cnt) == before
