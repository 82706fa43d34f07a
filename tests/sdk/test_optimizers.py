import math
import tracemalloc
from functools import partial

import numpy as np
import pytest

from csk_sdk.contract.settings import SETTINGS
from csk_sdk.errors import ConfigError, StateError
from csk_sdk.method.optimizers import OPTIMIZERS, SGD, AdamW, Lion, cosine, optimizer_of


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def textbook_sgd(gradients, parameter, rates, momentum, weight_decay):
    """Float64, written from Sutskever et al. 2013 in torch's form."""
    velocity = np.zeros_like(parameter)
    for gradient, rate in zip(gradients, rates, strict=True):
        velocity = momentum * velocity + (gradient + weight_decay * parameter)
        parameter = parameter - rate * velocity
    return parameter


def textbook_adamw(gradients, parameter, rates, beta1, beta2, eps, weight_decay):
    """Float64, written from Loshchilov & Hutter, algorithm 2."""
    m, v = np.zeros_like(parameter), np.zeros_like(parameter)
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        corrected = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
        parameter = parameter - rate * (corrected + weight_decay * parameter)
    return parameter


def textbook_lion(gradients, parameter, rates, beta1, beta2, weight_decay):
    """Float64, written from Chen et al., algorithm 2."""
    m = np.zeros_like(parameter)
    for gradient, rate in zip(gradients, rates, strict=True):
        c = beta1 * m + (1 - beta1) * gradient
        parameter = parameter - rate * (np.sign(c) + weight_decay * parameter)
        m = beta2 * m + (1 - beta2) * gradient
    return parameter


def run(optimizer, gradients, parameter, rates):
    parameter = parameter.astype(np.float32)
    update = np.empty_like(parameter)
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer.learning_rate = rate
        optimizer.step("p", gradient.astype(np.float32), update, parameter=parameter)
        parameter -= update
    return parameter


@pytest.mark.parametrize("shape", [(4, 3), (7,), (1, 1)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_follows_the_textbook(rng, shape, momentum, weight_decay):
    gradients, start = rng.normal(size=(60, *shape)), rng.normal(size=shape)
    rates = [0.1 * cosine(step, 60, 5) for step in range(60)]
    expected = textbook_sgd(gradients, start, rates, momentum, weight_decay)
    actual = run(SGD(0.1, momentum, weight_decay), gradients, start, rates)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.8, 0.0)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_follows_the_textbook(rng, scale, betas, weight_decay):
    gradients, start = scale * rng.normal(size=(60, 5, 3)), rng.normal(size=(5, 3))
    rates = [0.01 * cosine(step, 60, 5) for step in range(60)]
    expected = textbook_adamw(gradients, start, rates, *betas, 1e-8, weight_decay)
    actual = run(AdamW(0.01, betas, 1e-8, weight_decay), gradients, start, rates)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.0, 0.9), (0.8, 0.0)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lion_follows_the_textbook(rng, scale, betas, weight_decay):
    gradients, start = scale * rng.normal(size=(60, 5, 3)), rng.normal(size=(5, 3))
    gradients[:, 0] = 0.0
    rates = [0.01 * cosine(step, 60, 5) for step in range(60)]
    expected = textbook_lion(gradients, start, rates, *betas, weight_decay)
    actual = run(Lion(0.01, betas, weight_decay), gradients, start, rates)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_first_adam_step_is_the_learning_rate_whatever_the_gradient_is():
    update = np.empty(3, np.float32)
    AdamW(0.01).step("p", np.array([5.0, -1e-3, 1e3], np.float32), update)
    np.testing.assert_allclose(update, [0.01, -0.01, 0.01], rtol=1e-4)


def test_a_gradient_of_zero_gives_an_update_of_zero():
    update = np.full(3, 9.0, np.float32)
    for optimizer in (AdamW(0.01), SGD(0.1), Lion(0.1)):
        optimizer.step("p", np.zeros(3, np.float32), update)
        np.testing.assert_array_equal(update, np.zeros(3))


@pytest.mark.parametrize("make", [partial(kind, 0.1) for kind in OPTIMIZERS.values()], ids=list(OPTIMIZERS))
class TestEveryOptimizer:
    def test_state_is_kept_per_name(self, rng, make):
        gradients = rng.normal(size=(10, 2, 4)).astype(np.float32)
        together, first, second = make(), make(), make()
        for a, b in gradients:
            for name, gradient, alone in (("a", a, first), ("b", b, second)):
                expected, actual = np.empty((2, 4), np.float32)
                alone.step(name, gradient, expected)
                together.step(name, gradient, actual)
                np.testing.assert_array_equal(actual, expected)

    def test_a_multiplier_scales_one_parameter_only(self, rng, make):
        gradient = rng.normal(size=4).astype(np.float32)
        plain, scaled = make(), make(multipliers={"head": 10.0})
        for name, factor in (("head", 10.0), ("site", 1.0)):
            expected, actual = np.empty((2, 4), np.float32)
            plain.step(name, gradient, expected)
            scaled.step(name, gradient, actual)
            np.testing.assert_allclose(actual, factor * expected, rtol=1e-6)

    def test_the_update_may_overwrite_the_gradient(self, rng, make):
        separate, shared = make(weight_decay=0.1), make(weight_decay=0.1)
        parameter = rng.normal(size=(3, 4)).astype(np.float32)
        update = np.empty_like(parameter)
        for gradient in rng.normal(size=(4, 3, 4)).astype(np.float32):
            separate.step("p", gradient, update, parameter=parameter)
            shared.step("p", gradient, gradient, parameter=parameter)
            np.testing.assert_array_equal(gradient, update)

    def test_resuming_from_a_checkpoint_is_bit_exact(self, rng, make):
        gradients = rng.normal(size=(20, 3, 5)).astype(np.float32)
        whole, begun, resumed = make(), make(), make()
        expected, actual = np.empty((2, 3, 5), np.float32)
        for step, gradient in enumerate(gradients):
            whole.step("layer/1.delta", gradient, expected)
            if step < 8:
                begun.step("layer/1.delta", gradient, actual)
            if step == 8:
                resumed.load(begun.tensors())
                begun.step("layer/1.delta", 100 * gradient, actual)  # the copy must not follow
            if step >= 8:
                resumed.step("layer/1.delta", gradient, actual)
            if step != 8:
                np.testing.assert_array_equal(actual, expected)

    def test_loading_forgets_what_was_there(self, rng, make):
        optimizer = make()
        optimizer.step("old", np.ones(2, np.float32), np.empty(2, np.float32))
        optimizer.load({})
        assert optimizer.tensors() == {}

    def test_only_the_first_step_of_a_parameter_allocates(self, rng, make):
        optimizer = make(weight_decay=0.1)
        gradient, parameter = rng.normal(size=(2, 256, 128)).astype(np.float32)
        update = np.empty_like(gradient)
        optimizer.step("p", gradient, update, parameter=parameter)
        tracemalloc.start()
        optimizer.step("p", gradient, update, parameter=parameter)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < gradient.nbytes / 10

    def test_weight_decay_asks_for_the_parameter(self, make):
        with pytest.raises(ValueError, match="weight_decay needs the value of 'p'"):
            make(weight_decay=0.1).step("p", np.ones(2, np.float32), np.empty(2, np.float32))

    def test_a_parameter_that_changed_its_shape_is_refused(self, make):
        optimizer = make()
        optimizer.step("p", np.ones(2, np.float32), np.empty(2, np.float32))
        with pytest.raises(ValueError, match=r"gradient of 'p' is \(3,\), its state \(2,\)"):
            optimizer.step("p", np.ones(3, np.float32), np.empty(3, np.float32))

    def test_parameters_of_many_shapes_share_one_buffer(self, rng, make):
        optimizer, alone = make(weight_decay=0.1), make(weight_decay=0.1)
        for shape in [(2, 2), (5, 7), (3,), (1, 4)]:
            gradient, parameter = rng.normal(size=(2, *shape)).astype(np.float32)
            expected, actual = np.empty((2, *shape), np.float32)
            optimizer.step(str(shape), gradient, actual, parameter=parameter)
            make_again = alone.__class__(0.1, weight_decay=0.1)
            make_again.step("p", gradient, expected, parameter=parameter)
            np.testing.assert_array_equal(actual, expected)


def test_the_state_of_another_optimizer_is_refused():
    sgd, update = SGD(0.1), np.empty(2, np.float32)
    sgd.step("p", np.ones(2, np.float32), update)
    with pytest.raises(StateError, match="optimizer state of 'p' does not fit AdamW"):
        AdamW(0.1).load(sgd.tensors())


def test_an_incomplete_state_is_refused_and_changes_nothing():
    adam, update = AdamW(0.1), np.empty(2, np.float32)
    adam.step("p", np.ones(2, np.float32), update)
    saved = adam.tensors()
    for missing in saved:
        with pytest.raises(StateError, match="'p'"):
            adam.load({key: value for key, value in saved.items() if key != missing})
    assert adam.tensors().keys() == saved.keys()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-1.0), "learning_rate is -1.0"),
        (lambda: SGD(math.nan), "learning_rate is nan"),
        (lambda: SGD(0.1, momentum=1.0), "momentum is 1.0"),
        (lambda: SGD(0.1, weight_decay=-1), "weight_decay is -1"),
        (lambda: AdamW(0.1, betas=(0.9, 1.0)), "betas is 1.0"),
        (lambda: AdamW(0.1, eps=0.0), "eps is 0.0"),
        (lambda: cosine(0, 0), "total is 0"),
        (lambda: cosine(0, 5, -1), "warmup is -1"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ConfigError, match=f"^{message}, but it must be "):
        make()


@pytest.mark.parametrize(
    ("step", "total", "warmup", "expected"),
    [
        (0, 10, 0, 1.0),
        (5, 10, 0, 0.5),
        (10, 10, 0, 0.0),
        (99, 10, 0, 0.0),
        (0, 14, 4, 0.25),
        (3, 14, 4, 1.0),
        (4, 14, 4, 1.0),
        (9, 14, 4, 0.5),
        (2, 3, 6, 0.5),
        (0, 1, 0, 1.0),
        (3, 3, 3, 0.0),
    ],
)
def test_cosine(step, total, warmup, expected):
    assert cosine(step, total, warmup) == pytest.approx(expected, abs=1e-12)


def test_every_choice_of_the_setting_is_an_optimizer_of_its_own():
    assert tuple(OPTIMIZERS) == SETTINGS["optimizer"].choices == tuple(SETTINGS["optimizer"].constants)
    assert len(set(OPTIMIZERS.values())) == len(OPTIMIZERS)
    for name, kind in OPTIMIZERS.items():
        made = optimizer_of(name, 0.25, 0.5, 0.125)
        assert type(made) is kind
        assert (made.learning_rate, made.weight_decay) == (0.25, 0.125)
    assert optimizer_of("sgd", 0.1, 0.5, 0.0).momentum == 0.5


def test_an_optimizer_that_nobody_registered_is_refused():
    with pytest.raises(ConfigError, match=r"^optimizer is 'lbfgs'; it must be "):
        optimizer_of("lbfgs", 0.1, 0.9, 0.0)
