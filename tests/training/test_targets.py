from dataclasses import replace

import numpy as np
from support.fitting import RECIPE, SEED, drawn_pixels

from service.data.batches import epoch_batches
from service.data.outliers import NONE_OF_THESE
from service.data.views import Views
from service.imaging.limits import ResizeRule
from service.training.augment import training_view
from service.training.targets import LabelTargets, TeacherTargets


def drawn_views(num_views: int = 0) -> Views:
    return Views(drawn_pixels(0, 2).images, training_view(RECIPE.augmentation, ResizeRule()), SEED, num_views)


def test_a_mixed_view_has_both_labels_by_their_shares() -> None:
    class_indices = drawn_pixels(0, 2).class_indices
    (batch,) = epoch_batches(drawn_views(), batch_size=10, epoch=0)
    assert (batch.shares < 1).any()
    expected = np.zeros((10, 5))
    for row, own, other, share in zip(expected, batch.photographs, batch.others, batch.shares, strict=True):
        row[class_indices[own]] += share
        row[class_indices[other]] += 1 - share
    np.testing.assert_allclose(LabelTargets(class_indices, 5).of(batch)["logits"], expected, atol=1e-6)
    smooth = LabelTargets(class_indices, 5, smoothing=0.1).of(batch)["logits"]
    np.testing.assert_allclose(smooth, 0.9 * expected + 0.02, atol=1e-6)


def test_a_teachers_targets_belong_to_the_batchs_views() -> None:
    # Answers and features that name their view and photograph in the first two places.
    answers, features = np.zeros((3, 10, 5), np.float32), np.zeros((3, 10, 4), np.float16)
    for values in (answers, features):
        values[..., 0], values[..., 1] = np.arange(3)[:, None], np.arange(10)
    targets = TeacherTargets(answers, features, None)
    for epoch in range(3):
        for batch in epoch_batches(drawn_views(3), batch_size=5, epoch=epoch):
            np.testing.assert_array_equal(batch.views, (epoch + batch.photographs) % 3)
            for told in targets.of(batch).values():
                assert told.dtype == np.float32
                np.testing.assert_array_equal(told[:, 0], batch.views)
                np.testing.assert_array_equal(told[:, 1], batch.photographs)
    assert targets.num_features == 4
    assert TeacherTargets(answers, None, None).num_features == 0


def test_a_photograph_of_none_is_spread_and_not_known() -> None:
    class_indices = drawn_pixels(0, 2).class_indices.copy()
    class_indices[3:] = NONE_OF_THESE
    targets = LabelTargets(class_indices, 5)
    (batch,) = epoch_batches(drawn_views(), batch_size=10, epoch=0)
    told = targets.of(batch)
    own, other = class_indices[batch.photographs] >= 0, class_indices[batch.others] >= 0
    np.testing.assert_allclose(told["known"][:, 0], batch.shares * own + (1 - batch.shares) * other, atol=1e-6)
    np.testing.assert_allclose(told["logits"].sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(told["logits"][~own & ~other], 0.2, atol=1e-6)
    of_teacher = TeacherTargets(np.zeros((1, 10, 5), np.float32), None, None, is_known=targets.is_known)
    np.testing.assert_array_equal(of_teacher.of(replace(batch, views=0 * batch.views))["known"], told["known"])
    assert set(replace(targets, learns_known=False).of(batch)) == {"logits"}
    assert LabelTargets(drawn_pixels(0, 2).class_indices, 5).is_known is None
