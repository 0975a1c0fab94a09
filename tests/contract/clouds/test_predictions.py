"""The contract of parts of prediction rows once more where a bucket keeps the objects."""

from tests.contract.messages.test_predictions import (
    dataset,
    test_committing_parts_again_gives_the_same_answer,
    test_parts_are_stored_and_lines_counted_across_them,
    test_parts_that_cannot_be_stored_are_refused,
)

__all__ = [
    "dataset",
    "test_committing_parts_again_gives_the_same_answer",
    "test_parts_are_stored_and_lines_counted_across_them",
    "test_parts_that_cannot_be_stored_are_refused",
]
