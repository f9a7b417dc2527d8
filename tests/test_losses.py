"""Losses against torch's own binary cross-entropy and scikit-learn's log loss."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from medexp.evaluate import probabilities
from medexp.losses import class_logits, cross_entropy


def test_one_column_is_binary_cross_entropy_with_its_gradient():
    z = torch.randn(64, 1, dtype=torch.float32, requires_grad=True)
    labels = torch.randint(0, 2, (64,))
    ours = cross_entropy(z, labels)
    theirs = F.binary_cross_entropy_with_logits(z[:, 0], labels.float())
    torch.testing.assert_close(ours, theirs)
    (got,) = torch.autograd.grad(ours, z)
    (want,) = torch.autograd.grad(theirs, z)
    torch.testing.assert_close(got, want)


def test_cross_entropy_is_the_log_loss_of_the_probabilities():
    for outputs in (1, 2, 5):
        logits = torch.randn(100, outputs)
        classes = max(outputs, 2)
        labels = torch.arange(100) % classes
        p = probabilities(logits.numpy())
        assert p.shape == (100, classes) and p.dtype == "float64"
        assert cross_entropy(logits, labels).item() == pytest.approx(log_loss(labels, p), rel=1e-5)


def test_half_precision_logits_are_summed_in_float32():
    logits = torch.randn(8, 1).bfloat16()
    assert cross_entropy(logits, torch.ones(8, dtype=torch.int64)).dtype == torch.float32
    assert class_logits(logits).shape == (8, 2)
