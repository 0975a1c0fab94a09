"""What adapters are known to do otherwise than the entity API says, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DEVIATIONS", "WITHOUT"]

DEVIATIONS: Mapping[str, Mapping[str, str]] = {
    "ultralytics": {
        "test_the_file_may_be_overwritten_as_soon_as_it_was_submitted": "weights have no metadata there, which it says",
        "test_a_number_that_is_not_finite_costs_no_checkpoint": "weights have no metrics there, which it says",
        "test_best_last_final_and_epochs": "weights of an epoch cannot be found",
    },
}
"""By adapter: name of the test function, and why it fails there."""

WITHOUT: Mapping[str, Mapping[str, str]] = {
    "ultralytics": {
        "test_dataset_archives": "unpacking that can be waited for",
        "test_jobs": "queue",
        "test_model_work": "workers; predictions are tested in tests/doors",
        "test_moving_predictions": "items",
        "test_verifying": "items",
    },
}
"""By adapter: modules of tests about what it does not have at all, and what that is."""
