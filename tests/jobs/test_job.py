"""How a run that failed is told."""

import errno

import pytest
import torch

from medexp.errors import ConfigError
from medexp.jobs.job import told


@pytest.mark.parametrize(
    "error, text",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried\nto"), "Lower trainer.batch_size"),
        (OSError(errno.ENOSPC, "No space left on device", "o/last.pt"), "o/last.pt: No space left"),
        (
            PermissionError(errno.EACCES, "Permission denied", "o"),
            "o: Permission denied. Make room",
        ),
    ],
)
def test_what_the_machine_lacks_is_no_defect(error, text):
    message = str(told(error))
    assert text in message and "defect" not in message and "\n" not in message


def test_a_defect_is_called_one_and_a_refusal_is_left():
    assert "This is a defect" in str(told(KeyError("step")))
    assert "This is a defect" in str(told(FileNotFoundError(errno.ENOENT, "No such file", "x")))
    refused = ConfigError("optimizer.lr=-1")
    assert told(refused) is refused
