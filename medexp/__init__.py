"""medexp: config-driven experiments in medical-image classification.

    model = medexp.load("outputs/pcam-native3/TIME")
    model.predict("new/")

Nothing heavy is imported before it is needed.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medexp.jobs.apply import Model

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(runs: Any, **options: Any) -> "Model":
    """A finished run, or the mean of several, to be shown new images.

    runs: the folder of a run, or several. Options: device="auto", batch_size=None, tta=None,
    config_dir=None. See
    medexp/jobs/apply.py and docs/predict.md.
    """
    from medexp.jobs import apply

    return apply.load(runs, **options)
