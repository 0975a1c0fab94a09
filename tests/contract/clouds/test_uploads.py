"""The contract of uploads, as far as bytes move, once more where a bucket keeps the objects."""

from tests.contract.messages.test_uploads import (
    test_a_renewed_target_takes_the_bytes,
    test_a_replaced_item_keeps_id_and_position,
    test_an_equal_item_stands_under_skip_same,
    test_bytes_that_never_arrived_are_refused,
    test_committing_again_changes_nothing,
    test_one_object_may_stand_at_two_paths,
    test_the_later_of_two_entries_for_one_path_wins,
    test_what_is_committed_comes_back,
)

__all__ = [
    "test_a_renewed_target_takes_the_bytes",
    "test_a_replaced_item_keeps_id_and_position",
    "test_an_equal_item_stands_under_skip_same",
    "test_bytes_that_never_arrived_are_refused",
    "test_committing_again_changes_nothing",
    "test_one_object_may_stand_at_two_paths",
    "test_the_later_of_two_entries_for_one_path_wins",
    "test_what_is_committed_comes_back",
]
