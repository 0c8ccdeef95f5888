"""Augmentation: what each transform does to known images, that it leaves its input alone and draws from its generator only."""

import numpy as np
import pytest

from keydnn.data import (
    Compose,
    Normalize,
    RandomBrightness,
    RandomContrast,
    RandomCrop,
    RandomErasing,
    RandomFlip,
    RandomNoise,
    RandomRotation,
)
from keydnn.data.augment import rotate

ALL = [
    RandomFlip(), RandomFlip(1.0, -2), RandomCrop(), RandomCrop((5, 4), 1), RandomRotation(30), RandomErasing(3, 1.0),
    RandomBrightness(20), RandomContrast(0.5), RandomNoise(10), Compose(RandomFlip(), RandomCrop(padding=1)),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_promises_of_every_transform(transform, dtype):
    image = (np.random.default_rng(0).random((3, 8, 7)) * 200).astype(dtype)
    before = image.copy()
    one, again = (transform(image, np.random.default_rng(3)) for _ in range(2))
    assert one.dtype == dtype and one.shape[0] == 3 and one.tolist() == again.tolist()
    assert image.tolist() == before.tolist() and not np.shares_memory(one, image)
    state = np.random.get_state()[1].tolist()
    others = [transform(image, np.random.default_rng(seed)).tolist() for seed in range(20)]
    assert np.random.get_state()[1].tolist() == state
    assert isinstance(transform, RandomFlip) and transform.p == 1 or any(o != one.tolist() for o in others)
    if not isinstance(transform, Compose):
        with pytest.raises(ValueError, match=r"\(C, H, W\)"):
            transform(image[0], np.random.default_rng(0))


def test_flip_crop_and_erase_known_images():
    image, rng = np.arange(12.0).reshape(1, 3, 4), np.random.default_rng(0)
    assert RandomFlip(1.0)(image, rng).tolist() == image[:, :, ::-1].tolist()
    assert RandomFlip(1.0, -2)(image, rng).tolist() == image[:, ::-1].tolist()
    assert RandomFlip(0.0)(image, rng).tolist() == image.tolist()
    assert RandomCrop(padding=0)(image, rng).tolist() == image.tolist()
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    parts = {RandomCrop(padding=1)(image, rng).tobytes() for _ in range(200)}
    assert parts == {padded[:, i : i + 3, j : j + 4].tobytes() for i in range(3) for j in range(3)}
    with pytest.raises(ValueError, match="does not fit"):
        RandomCrop((9, 9), 0)(image, rng)
    erased = RandomErasing(2, 1.0)(np.ones((1, 9, 9)), rng)
    assert 1 <= (erased == 0).sum() <= 4
    assert RandomErasing(2, 0.0)(image, rng).tolist() == image.tolist()


def test_rotation_by_right_angles_is_exact_and_small_ones_keep_the_mean_of_the_middle():
    image = np.random.default_rng(0).random((2, 7, 7))
    for k in range(5):
        np.testing.assert_allclose(rotate(image, 90 * k), np.rot90(image, k, axes=(1, 2)), atol=1e-12)
    np.testing.assert_allclose(rotate(np.ones((1, 21, 21)), 17)[0, 6:15, 6:15], 1.0, rtol=1e-12)


def test_brightness_contrast_and_normalize():
    image, rng = np.random.default_rng(1).random((3, 4, 4)), np.random.default_rng(0)
    change = RandomBrightness(0.1)(image, rng) - image
    assert np.allclose(change, change.flat[0]) and abs(change.flat[0]) <= 0.1
    out = RandomContrast(0.5)(image, rng)
    assert np.isclose(out.mean(), image.mean()) and 0.5 <= out.std() / image.std() <= 1.5
    bright = RandomBrightness(300)(np.full((1, 2, 2), 250, np.uint8), np.random.default_rng(1))
    want = 250 + np.random.default_rng(1).uniform(-300, 300)
    assert bright.dtype == np.uint8 and set(bright.ravel()) == {int(np.clip(np.rint(want), 0, 255))}  # limited, not wrapped
    n = Normalize(image.mean(axis=(1, 2)), image.std(axis=(1, 2)))(image)
    np.testing.assert_allclose([n.mean(axis=(1, 2)), n.std(axis=(1, 2))], [[0] * 3, [1] * 3], atol=1e-12)


def test_compose_takes_a_list_and_crop_one_number():
    image, many = np.arange(48.0).reshape(1, 6, 8), [RandomFlip(1.0), RandomCrop(4, 0)]
    parts = [make(image, np.random.default_rng(1)) for make in (Compose(many), Compose(*many), Compose(many[0], RandomCrop((4, 4), 0)))]
    assert parts[0].shape == (1, 4, 4) and parts[0].tolist() == parts[1].tolist() == parts[2].tolist()


@pytest.mark.parametrize("wrong, said", [(3, "transform 1 .* got int"), (RandomFlip, "transform 1 .* got the class RandomFlip")])
def test_compose_refuses_what_is_no_transform(wrong, said):
    with pytest.raises(TypeError, match=said):
        Compose(RandomFlip(), wrong)
