"""Weights go up and come back through a cloud's signed URLs as they do through the platform's own."""

from tests.contract.entities.test_moving_checkpoints import (
    model,
    test_deleting_a_model_takes_its_checkpoints,
    test_weights_come_back_byte_for_byte,
    test_weights_from_a_stream,
)

__all__ = [
    "model",
    "test_deleting_a_model_takes_its_checkpoints",
    "test_weights_come_back_byte_for_byte",
    "test_weights_from_a_stream",
]
