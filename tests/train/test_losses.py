"""Losses against torch, torchvision, scikit-learn and Keras; a paper's weights by its counts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

from medexp.config import compose
from medexp.config.targets import check_node
from medexp.errors import ConfigError
from medexp.score.predict import class_logits, probabilities
from medexp.train.losses import CrossEntropy, Focal, cross_entropy, on_device

TBT = [335, 180, 81, 80, 56]  # training scans of each type in the TBT paper's code


def batch(outputs, n=64, seed=0):
    """Logits and classes, of which the first is the most frequent."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, outputs, generator=generator)
    labels = torch.multinomial(
        1 / torch.arange(1.0, max(outputs, 2) + 1), n, True, generator=generator
    )
    return logits, labels


def mixtures(logits, labels):
    """Class probabilities of two images each, as mixup makes them."""
    one_hot = F.one_hot(labels, max(logits.shape[1], 2)).float()
    return 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)


def option(name, *overrides, counts=(3, 2)):
    node = compose.compose([f"loss={name}", *overrides]).loss
    return compose.instantiate("loss", node, class_counts=list(counts))


# ---------------------------------------------------------------- cross-entropy


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


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_default_option_is_torchs_to_the_bit(outputs):
    logits, labels = batch(outputs)
    want = F.cross_entropy(class_logits(logits), labels)
    assert torch.equal(option("cross_entropy")(logits, labels), want)
    assert torch.equal(cross_entropy(logits, labels), want)


@pytest.mark.parametrize("outputs", [1, 2, 5])
def test_label_smoothing_is_keras_and_torchs(outputs):
    keras = pytest.importorskip("keras")
    logits, labels = batch(outputs)
    got = option("cross_entropy", "loss.label_smoothing=0.1")(logits, labels)
    torch.testing.assert_close(
        got, F.cross_entropy(class_logits(logits), labels, label_smoothing=0.1)
    )
    name = "BinaryCrossentropy" if outputs == 1 else "CategoricalCrossentropy"
    theirs = getattr(keras.losses, name)(from_logits=True, label_smoothing=0.1)
    wanted = labels[:, None] if outputs == 1 else F.one_hot(labels, outputs)
    torch.testing.assert_close(got, theirs(wanted.float(), logits))


# ---------------------------------------------------------------- class weights


@pytest.mark.parametrize("counts", [TBT, [2526, 4165], [1, 1, 1], [7, 1000, 3]])
def test_balanced_weights_are_scikit_learns(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    theirs = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    loss = CrossEntropy(class_weights="balanced", class_counts=counts)
    assert loss.weights == tuple(theirs)
    assert Focal(alpha="balanced", class_counts=counts).alpha == tuple(theirs)


def test_the_weights_of_the_tbt_paper_come_out_of_its_counts():
    weights = option("weighted", counts=TBT).weights
    assert [round(weight, 3) for weight in weights] == [0.437, 0.813, 1.807, 1.83, 2.614]


def test_weights_by_hand():
    """p = 1/2, 1/4: losses log 2 and log 4, weights 1 and 3."""
    logits, labels = torch.tensor([[0.0, 0.0], [np.log(3), 0.0]]), torch.tensor([0, 1])
    total = np.log(2) + 3 * np.log(4)
    by_batch = CrossEntropy(class_weights=[1, 3])(logits, labels)
    by_weights = CrossEntropy(class_weights=[1, 3], normalise="weights")(logits, labels)
    assert by_batch.item() == pytest.approx(total / 2, rel=1e-6)
    assert by_weights.item() == pytest.approx(total / 4, rel=1e-6)


@pytest.fixture(scope="module")
def in_keras():
    """fit(logits, labels, weights, smoothing) -> training and validation loss that Keras shows."""
    keras = pytest.importorskip("keras")

    def fit(logits, labels, weights, smoothing):
        classes = logits.shape[1]
        model = keras.Sequential([keras.Input((classes,)), keras.layers.Activation("softmax")])
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
        model.compile(optimizer="sgd", loss=loss)
        x, y = logits.numpy(), np.eye(classes, dtype="float32")[labels.numpy()]
        history = model.fit(
            x,
            y,
            batch_size=len(x),
            class_weight=dict(enumerate(weights)),
            validation_data=(x, y),
            verbose=0,
        ).history
        return history["loss"][0], history["val_loss"][0]

    return fit


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_normalised_by_the_batch_is_keras_class_weight(in_keras, smoothing):
    logits, labels = batch(4)
    weights = [0.4, 1.0, 2.5, 0.0]
    loss = CrossEntropy(class_weights=weights, label_smoothing=smoothing)
    trained, validated = in_keras(logits, labels, weights, smoothing)
    assert loss(logits, labels).item() == pytest.approx(trained, rel=1e-5)
    assert loss.unweighted(logits, labels).item() == pytest.approx(validated, rel=1e-5)
    assert trained != pytest.approx(validated, rel=0.05)


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_normalised_by_the_weights_is_torchs_weight(outputs):
    logits, labels = batch(outputs)
    weights = [0.4, 1.0, 2.5, 0.0][: max(outputs, 2)]
    want = F.cross_entropy(class_logits(logits), labels, weight=torch.tensor(weights))
    got = CrossEntropy(class_weights=weights, normalise="weights")(logits, labels)
    torch.testing.assert_close(got, want)
    by_batch = CrossEntropy(class_weights=weights)(logits, labels)
    mean_weight = torch.tensor(weights)[labels].mean()
    torch.testing.assert_close(by_batch, want * mean_weight)
    assert mean_weight != pytest.approx(1, abs=0.01)


def test_normalised_by_the_weights_a_batch_of_one_class_is_not_weighted():
    logits, _ = batch(5, n=2)
    labels = torch.tensor([4, 4])
    plain = cross_entropy(logits, labels)
    by_weights = CrossEntropy(class_weights="balanced", class_counts=TBT, normalise="weights")
    by_batch = CrossEntropy(class_weights="balanced", class_counts=TBT)
    torch.testing.assert_close(by_weights(logits, labels), plain)
    torch.testing.assert_close(by_batch(logits, labels), plain * 732 / 5 / 56)
    nothing = CrossEntropy(class_weights=[1, 1, 1, 1, 0], normalise="weights")
    assert nothing(logits, labels).item() == 0


def test_balanced_weights_leave_the_mean_weight_of_a_training_image_at_one():
    weights = CrossEntropy(class_weights="balanced", class_counts=TBT).weights
    assert np.dot(weights, TBT) / sum(TBT) == pytest.approx(1, rel=1e-12)


# ---------------------------------------------------------------- focal loss


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
@pytest.mark.parametrize("alpha", [None, 0.25])
def test_focal_is_torchvisions_for_one_output_with_its_gradient(gamma, alpha):
    z, labels = batch(1)
    z.requires_grad_()
    ours = Focal(gamma=gamma, alpha=alpha)(z, labels)
    none = -1  # torchvision's word for no alpha
    theirs = sigmoid_focal_loss(
        z[:, 0], labels.float(), none if alpha is None else alpha, gamma, reduction="mean"
    )
    torch.testing.assert_close(ours, theirs)
    (got,) = torch.autograd.grad(ours, z)
    (want,) = torch.autograd.grad(theirs, z)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("alpha", [None, [0.4, 1.0, 2.5]])
def test_focal_is_its_formula_and_keras_for_a_softmax(alpha):
    keras = pytest.importorskip("keras")
    logits, labels = batch(3)
    got = Focal(gamma=2, alpha=alpha)(logits, labels)
    weights = np.ones(3) if alpha is None else np.array(alpha)
    p = probabilities(logits.numpy())[np.arange(len(labels)), labels]
    by_hand = np.mean(-weights[labels] * (1 - p) ** 2 * np.log(p))
    assert got.item() == pytest.approx(by_hand, rel=1e-5)
    theirs = keras.losses.CategoricalFocalCrossentropy(
        alpha=list(weights.astype("float32")), gamma=2.0, from_logits=True
    )
    torch.testing.assert_close(got, theirs(F.one_hot(labels, 3).float(), logits), rtol=1e-4, atol=0)


def test_focal_with_gamma_0_is_cross_entropy():
    logits, labels = batch(5)
    torch.testing.assert_close(
        option("focal", "loss.gamma=0")(logits, labels), cross_entropy(logits, labels)
    )
    weights = [0.4, 1.0, 2.5, 0.0, 1.0]
    torch.testing.assert_close(
        option("focal", "loss.gamma=0", f"loss.alpha={weights}", counts=TBT)(logits, labels),
        CrossEntropy(class_weights=weights)(logits, labels),
    )


@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2])
def test_focal_has_a_gradient_where_the_network_is_certain(gamma):
    logits = torch.tensor([[200.0, -200.0]] * 2, requires_grad=True)
    loss = Focal(gamma=gamma)(logits, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(200)  # 0 for the right one, 400 for the wrong
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 0.0], [0.5, -0.5]]))


# ---------------------------------------------------------------- what holds of all

ALL = {
    "plain": CrossEntropy(),
    "smooth": CrossEntropy(label_smoothing=0.1),
    "weighted": CrossEntropy(class_weights=[0.5, 2], label_smoothing=0.1),
    "by weights": CrossEntropy(class_weights=[0.5, 2], normalise="weights"),
    "focal": Focal(),
    "focal alpha": Focal(alpha=0.25),
    "function": cross_entropy,
}
every = pytest.mark.parametrize("loss", ALL.values(), ids=ALL)


@every
@pytest.mark.parametrize("outputs", [1, 2])
def test_classes_as_probabilities_are_the_same_as_integers(loss, outputs):
    logits, labels = batch(outputs)
    torch.testing.assert_close(loss(logits, F.one_hot(labels, 2).float()), loss(logits, labels))


@pytest.mark.parametrize("name", [name for name in ALL if name != "by weights"])
def test_a_mixed_target_has_the_mixed_loss(name):
    logits, labels = batch(2)
    want = 0.7 * ALL[name](logits, labels) + 0.3 * ALL[name](logits, labels.roll(1, 0))
    torch.testing.assert_close(ALL[name](logits, mixtures(logits, labels)), want)


def test_of_a_mixed_target_each_class_has_its_weight_as_in_torch():
    logits, labels = batch(4)
    target, weights = mixtures(logits, labels), [0.4, 1.0, 2.5, 0.0]
    torch.testing.assert_close(
        CrossEntropy(class_weights=weights)(logits, target),
        F.cross_entropy(logits, target, weight=torch.tensor(weights)),
    )


@every
@pytest.mark.parametrize("outputs", [1, 2])
def test_half_precision_logits_are_summed_in_float32_under_autocast(loss, outputs):
    logits, labels = batch(outputs, n=8)
    half = logits.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half, labels)
    assert value.dtype == torch.float32 and value.shape == ()
    assert torch.equal(value, loss(half.detach().float(), labels))
    value.backward()
    assert half.grad.dtype == torch.bfloat16 and half.grad.isfinite().all()


@every
def test_numpys_tensors_without_a_gradient_do(loss):
    """As in validation: a whole split on the CPU, whatever the labels' stride."""
    logits, labels = batch(2)
    strided = np.stack([labels.numpy()] * 2, axis=1)[:, 0]
    value = loss(torch.from_numpy(logits.numpy()), torch.from_numpy(strided))
    assert not value.requires_grad
    assert value.item() == loss(logits, labels).item()


@every
def test_a_loss_used_in_inference_mode_first_trains_afterwards(loss):
    logits, labels = batch(2)
    on_device.cache_clear()
    with torch.inference_mode():
        loss(logits, labels)
    logits.requires_grad_()
    loss(logits, labels).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every
def test_a_gpu_has_the_cpus_loss_and_does_not_wait(loss):
    logits, labels = batch(2)
    there = logits.cuda().requires_grad_(), labels.cuda()
    loss(*there)  # the first call copies the weights
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = loss(*there)
        value.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.detach().cpu(), loss(logits, labels))


# ---------------------------------------------------------------- refusals

BAD_WEIGHTS = [
    ([1, 2], r"=\[1\.0, 2\.0\]: 2 weights for 5 classes.*balanced"),
    ([], r"=\[\]: 0 weights for 5 classes"),
    ([1, 1, 1, 1, -1], r"=\[1, 1, 1, 1, -1\]: weights must be numbers of 0 or more, and not all 0"),
    ([0, 0, 0, 0, 0], r"=\[0, 0, 0, 0, 0\]: weights must be .* not all 0"),
    ([1, 1, 1, 1, float("nan")], r"=\[1, 1, 1, 1, nan\]: weights must be numbers"),
    ([1, 1, 1, 1, float("inf")], r"=\[1, 1, 1, 1, inf\]: weights must be numbers"),
    ("balance", r"=balance: no such choice. Did you mean 'balanced'\?"),
]


@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS)
@pytest.mark.parametrize(("make", "key"), [(CrossEntropy, "class_weights"), (Focal, "alpha")])
def test_weights_that_do_not_fit_are_refused(make, key, weights, message):
    with pytest.raises(ConfigError, match=rf"^loss\.{key}{message}"):
        make(**{key: weights}, class_counts=TBT)


def test_a_class_without_an_image_has_no_balanced_weight():
    with pytest.raises(ConfigError, match="class_weights=balanced: class 1 has no training image"):
        CrossEntropy(class_weights="balanced", class_counts=[3, 0, 2])
    with pytest.raises(ConfigError, match="alpha=balanced: needs class_counts"):
        Focal(alpha="balanced")


def test_weights_are_held_against_the_networks_outputs_too():
    logits, labels = batch(3)
    with pytest.raises(ConfigError, match=r"loss\.class_weights.*2 weights for 3 classes"):
        CrossEntropy(class_weights=[1, 2])(logits, labels)
    with pytest.raises(ConfigError, match=r"loss\.alpha.*2 weights for 3 classes"):
        Focal(alpha=0.25)(logits, labels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(label_smoothing=1.0), r"loss\.label_smoothing=1\.0: .*below 1"),
        (lambda: CrossEntropy(label_smoothing=-0.1), r"loss\.label_smoothing=-0\.1: .*0 or more"),
        (lambda: CrossEntropy(normalise="sum"), r"loss\.normalise=sum: no such choice.*weights"),
        (lambda: Focal(gamma=-1), r"loss\.gamma=-1: must be a number of 0 or more"),
        (lambda: Focal(gamma=float("nan")), r"loss\.gamma=nan"),
        (lambda: Focal(alpha=1.0), r"loss\.alpha=1\.0: .*share of class 1 of two.*null for none"),
        (lambda: Focal(alpha=0.3, class_counts=TBT), r"loss\.alpha.*2 weights for 5 classes"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("name", ["cross_entropy", "weighted", "focal"])
def test_nodes_compose_and_are_held_against_their_target(name):
    node = compose.compose([f"loss={name}"]).loss
    assert check_node("loss", node, {"class_counts": TBT}) == {"class_counts": TBT}
    logits, labels = batch(5)
    value = option(name, counts=TBT)(logits, labels)
    assert value.shape == () and value.isfinite()
    key = "alpha" if name == "focal" else "class_weights"
    with pytest.raises(ConfigError, match=rf"loss\.{key}={{'a': 1}}: must be .*'balanced'"):
        check_node("loss", {**node, key: {"a": 1}})
