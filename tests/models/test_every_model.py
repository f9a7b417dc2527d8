"""Every network of conf/model, found by glob: it builds, runs, learns, survives and is refused."""

import copy

import pytest
import torch
from torch import nn

from medexp.config import compose, groups
from medexp.errors import ConfigError
from medexp.jobs.build import parameter_counts
from medexp.score.predict import class_logits
from medexp.train.losses import cross_entropy

NAMES = groups.options("model")
NODES = {name: compose.compose_node("model", name) for name in NAMES}
# The smallest convenient input: what each takes 16 samples of within a second or two.
SMALL = {"inception_v3": (75, 75), "alexnet": (63, 63), "viptt": (2, 32, 32)}
LARGE = {
    "viptt",
    "viptt_gru",
    "ldct_m1",
    "allnet",
    "allnet_14",
    "alexnet",
    "vgg16",
    "resnet101",
    "inception_v3",
    "cervixnet1",
}
# One of each class, a quick one where there is one: options that differ in arguments only fail for
# the same reasons.
QUICK_LAST = sorted(reversed(NAMES), key=lambda name: name not in LARGE)
CLASSES = list({str(NODES[name]["_target_"]): name for name in QUICK_LAST}.values())
IMAGES = [name for name in CLASSES if not name.startswith("viptt")]


def small_size(name):
    return SMALL.get(name.removesuffix("_gru"), (48, 48))


def build(name, *, size=None, channels=3, classes=2, **changes):
    torch.manual_seed(0)
    supplied = {"num_classes": classes, "in_channels": channels, "image_size": size or (48, 48)}
    return compose.instantiate("model", NODES[name] | changes, **supplied)


def inputs(name, n, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, channels, *small_size(name), generator=generator)


def logits_of(output):
    return output[0] if isinstance(output, tuple) else output


def without_dropout(network):
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


def heavy(names, slow=LARGE):
    return [pytest.param(n, marks=pytest.mark.slow) if n in slow else n for n in names]


def test_the_glob_found_all_eighteen_and_their_variants():
    papers = {
        *(f"native{k}" for k in "1234"), *(f"native{k}_counted" for k in "1234"),
        *(f"ldct_m{k}" for k in "1234"), "cervixnet1", "cervixnet2", "resnet101", "inception_v2",
        "allnet", "alexnet", "vgg16", "resnet50", "inception_v3", "viptt",
    }  # fmt: skip
    assert papers <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward_at_the_papers_input(name):
    """On the meta device: every shape is worked out, nothing is computed."""
    about = NODES[name]["about"]
    channels, *size = about["input"]
    classes = about.get("classes", 2)
    with torch.device("meta"):
        network = build(name, size=tuple(size), channels=channels, classes=classes)
        output = network(torch.rand(2, channels, *size))
        logits = logits_of(output)
        assert class_logits(logits).shape == (2, classes)
        sum(o.sum() for o in (output if isinstance(output, tuple) else (output,))).backward()
    for key, parameter in network.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, key


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_forward_and_backward_at_the_papers_input_for_real(name):
    about = NODES[name]["about"]
    channels, *size = about["input"]
    network = build(name, size=tuple(size), channels=channels, classes=about.get("classes", 2))
    if "viptt" in name:
        size[0] = 8  # slices: the memory of 70 is the benchmark's matter
    loss = cross_entropy(logits_of(network(torch.rand(2, channels, *size))), torch.tensor([0, 1]))
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize("name", heavy(CLASSES))
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 5)])
def test_any_channels_and_classes_at_a_small_input(name, channels, classes):
    network = without_dropout(
        build(name, size=small_size(name), channels=channels, classes=classes)
    )
    x = inputs(name, 2, channels)
    loss = cross_entropy(logits_of(network(x)), torch.tensor([0, classes - 1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    network.eval()
    with torch.inference_mode():
        logits = network(x)
        assert class_logits(logits).shape == (2, classes)
        # channels_last and bf16 compute the same function.
        if x.ndim == 4:
            again = network.to(memory_format=torch.channels_last)(x)
            torch.testing.assert_close(again, logits, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x).float()
    assert (half - logits).norm() <= 0.1 * logits.norm() + 0.05


@pytest.mark.parametrize("name", heavy(NAMES, LARGE | set(NAMES) - set(CLASSES)))
def test_overfits_sixteen_samples(name):
    network = without_dropout(build(name, size=small_size(name)))
    x, labels = inputs(name, 16), torch.arange(16) % 2
    x[labels == 1] = x[labels == 1] * 0.3
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    network.train()
    for _ in range(150):
        logits = logits_of(network(x))
        loss = cross_entropy(logits, labels)
        if (class_logits(logits).argmax(1) == labels).all() and loss < 0.3:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"loss {loss.item():.3f} after 150 steps")


@pytest.mark.parametrize("name", heavy(CLASSES))
def test_weights_survive_saving(name, tmp_path):
    network = build(name, size=small_size(name)).eval()
    torch.save(network.state_dict(), tmp_path / "w.pt")
    torch.manual_seed(9)
    other = build(name, size=small_size(name)).eval()
    other.load_state_dict(torch.load(tmp_path / "w.pt", weights_only=True))
    x = inputs(name, 2)
    with torch.inference_mode():
        assert torch.equal(network(x), other(x))


@pytest.mark.parametrize("name", heavy(IMAGES, LARGE | {"resnet50", "inception_v2"}))
def test_compiles_to_the_same_function(name):
    """Captured with its backward; recurrent networks gain nothing from it and are left out."""
    torch._dynamo.reset()
    network = without_dropout(build(name, size=small_size(name)))
    twin = torch.compile(copy.deepcopy(network), backend="aot_eager", dynamic=False)
    x, labels = inputs(name, 4), torch.arange(4) % 2
    losses = []
    for net in (network, twin):
        loss = cross_entropy(logits_of(net(x)), labels)
        loss.backward()
        losses.append(loss)
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    pairs = zip(network.parameters(), twin.parameters(), strict=True)
    for one, two in pairs:
        if one.grad is not None:
            torch.testing.assert_close(one.grad, two.grad, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_facts_are_facts_and_the_stages_are_children(name):
    node = NODES[name]
    assert {"about", "stages", "weights"} <= set(node)
    assert {"paper", "where", "input", "reported_parameters", "note", "batch"} <= set(node["about"])
    with torch.device("meta"):
        channels, *size = node["about"]["input"]
        network = build(name, size=tuple(size), channels=channels)
    assert set(node["stages"]) <= {child for child, _ in network.named_children()}
    assert {"features", "head"} & set(node["stages"])


@pytest.mark.parametrize("name", IMAGES)
def test_a_volume_is_refused_by_networks_of_images(name):
    with pytest.raises(ConfigError, match="2D"):
        build(name, size=(8, 48, 48))


@pytest.mark.parametrize("name", heavy(CLASSES, {"resnet101"}))  # resnet50's code
def test_a_size_that_cannot_work_is_refused_or_works(name):
    smallest = None
    for side in (1, 2, 3, 5, 8, 12, 20, 40, 80):
        size = (1, side, side) if name.startswith("viptt") else (side, side)
        with torch.device("meta"):
            try:
                network = build(name, size=size)
            except ConfigError as error:
                assert smallest is None, "refused a larger size than one that works"
                assert f"{side}" in str(error)
                continue
            smallest = smallest or side
            assert class_logits(logits_of(network(torch.rand(2, 3, *size)))).shape == (2, 2)
    assert smallest


def test_counts_of_the_papers():
    def count(name, classes):
        channels, *size = NODES[name]["about"]["input"]
        with torch.device("meta"):
            return parameter_counts(
                build(name, size=tuple(size), channels=channels, classes=classes)
            )

    assert count("allnet", 2) == {"trainable": 64_061_370, "total": 64_066_938}
    assert count("viptt", 5)["total"] == 15_770_443
    assert 3 * count("cervixnet1", 3)["trainable"] + 3 == 12_684_876
    counted = [count(f"native{k}_counted", 2)["trainable"] for k in "1234"]
    assert counted == [451_791, 376_391, 511_891, 421_491]
