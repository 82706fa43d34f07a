"""The head that training starts from: fitted on enough images for its number of features."""

from pathlib import Path

import numpy as np
import pytest

from conftest import Digits
from csk_sdk import TrainingConfig
from csk_sdk.bundle.folder import Bundle
from csk_sdk.learning import training as training_module
from csk_sdk.learning.training import TaskTraining
from csk_sdk.method.logistic import logistic_head
from csk_sdk.network.knowledge import FeatureExtractor


@pytest.mark.parametrize(("each", "batch"), [(1, 4), (1, 16), (4, 16)])
def test_it_is_fitted_on_so_many_pictures_a_feature(
    digits_bundle: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch, each: int, batch: int
) -> None:
    assert training_module._IMAGES_PER_FEATURE == 4
    monkeypatch.setattr(training_module, "_IMAGES_PER_FEATURE", each)
    bundle = Bundle.open(digits_bundle)
    images, labels = digits.arrays((4, 5), 0, 136)
    order = np.random.default_rng(0).permutation(len(images))
    read = 0

    def batches():
        nonlocal read
        for part in np.array_split(order, len(order) // batch):
            read += len(part)
            yield bundle.preprocessing(images[part]), labels[part]

    config = TrainingConfig(threads=1, sensitivity_batches=1)
    training = TaskTraining(bundle, bundle.checkpoint(), ("four", "five"), config)
    training.warm_up(batches)
    wanted = min(each * bundle.manifest.head.features, len(images))
    assert (wanted < len(images)) == (each == 1)  # all of them, where there are no more
    # The batch that fills it, one that is looked at to see that there are enough, and the two for the channels.
    assert wanted <= read < wanted + 5 * batch
    extractor = FeatureExtractor(bundle, bundle.checkpoint(), 1)
    fitted = order[: -(-wanted // batch) * batch]
    weight, bias = logistic_head(extractor(bundle.preprocessing(images[fitted])), labels[fitted], 2)
    np.testing.assert_allclose(training.weight, weight, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(training.bias, bias, rtol=1e-3, atol=1e-4)
