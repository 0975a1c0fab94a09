"""Items go up and come back through a cloud's signed URLs as they do through the platform's own."""

from tests.contract.entities.test_moving_items import (
    dataset,
    test_a_folder_comes_back_byte_for_byte,
    test_downloading_again_fetches_nothing_and_damaged_files_only,
    test_items_come_from_bytes_streams_open_files_and_paths_at_once,
    test_outcomes_and_progress_account_for_every_object,
    test_uploading_again_sends_nothing_and_changed_files_only,
)

__all__ = [
    "dataset",
    "test_a_folder_comes_back_byte_for_byte",
    "test_downloading_again_fetches_nothing_and_damaged_files_only",
    "test_items_come_from_bytes_streams_open_files_and_paths_at_once",
    "test_outcomes_and_progress_account_for_every_object",
    "test_uploading_again_sends_nothing_and_changed_files_only",
]
