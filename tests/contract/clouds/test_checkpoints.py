"""The contract of checkpoints, as far as bytes move, once more where a bucket keeps the objects."""

from tests.contract.messages.test_checkpoints import (
    model,
    test_a_checkpoint_comes_back,
    test_a_deleted_checkpoint_is_gone,
    test_an_epoch_has_one_checkpoint,
    test_committing_again_is_the_same_checkpoint,
    test_what_cannot_be_committed_is_refused,
)

__all__ = [
    "model",
    "test_a_checkpoint_comes_back",
    "test_a_deleted_checkpoint_is_gone",
    "test_an_epoch_has_one_checkpoint",
    "test_committing_again_is_the_same_checkpoint",
    "test_what_cannot_be_committed_is_refused",
]
