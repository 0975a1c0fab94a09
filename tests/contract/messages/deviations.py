"""What adapters are known to do otherwise than the platform's own messages say, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["DEVIATIONS", "WITHOUT"]

DEVIATIONS: Mapping[str, Mapping[str, str]] = {
    "ultralytics": {
        "test_every_operation_is_supported": "what it has stands in the capability table",
        "test_who_am_i": "the service does not tell its version",
        "test_creating_again_with_the_same_id_is_the_same_entity": "the service gives the ids",
        "test_an_id_of_something_deleted_makes_nothing_new[ultralytics-model]": "the service gives the ids",
        "test_the_platform_names_the_agent": "the service does not count beats",
        "test_a_first_beat_that_comes_twice_makes_one_agent": "the service takes no proposed id",
        "test_a_beat_that_was_overtaken_changes_nothing": "the service takes no numbers of beats, and no goodbye",
        "test_status_follows_agents_and_checkpoints": "the service hears of no goodbye",
        "test_the_agent_heard_last_decides_whether_a_model_is_lost": "the service is not told the interval",
        "test_a_series_has_one_value_for_a_step_and_the_later_measurement_stands": "the service is told no times",
        "test_an_archive_keeps_its_name": "the service does not tell it",
    },
}
"""By adapter: name of the test function, and why it fails there."""

WITHOUT: Mapping[str, Mapping[str, str]] = {
    "ultralytics": {
        "test_annotations": "annotations",
        "test_checkpoints": "weights that belong to no epoch; those with one are tested in tests/doors",
        "test_jobs": "queue",
        "test_predictions": "items",
        "test_retention": "retention",
        "test_uploads": "items",
        "test_workers": "workers",
    },
}
"""By adapter: modules of tests about what it does not have at all, and what that is."""
