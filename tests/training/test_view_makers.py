import numpy as np

from service.data.views import Views
from service.imaging.limits import ResizeRule
from service.training.augment import training_view
from service.training.recipe import find_recipe
from service.training.view_makers import make_views


def test_processes_make_the_same_views_as_threads() -> None:
    random = np.random.default_rng(0)
    photographs = [random.integers(0, 256, (256, 300 + number, 3), np.uint8) for number in range(4)]
    make = training_view(find_recipe("patient").augmentation, ResizeRule())
    made = make_views(photographs, make, 3, 2, chunk=3)
    own = Views(photographs, make, 3, 2)
    for view in range(2):
        a, b = (views.batch(np.arange(4), np.full(4, view)) for views in (made, own))
        for one, other in zip((a.images, a.others, a.shares), (b.images, b.others, b.shares), strict=True):
            np.testing.assert_array_equal(one, other)
    assert made.is_keeping
    assert a.images.std() > 10


def test_the_views_are_made_before_they_are_asked_for() -> None:
    photographs = np.zeros((2, 256, 256, 3), np.uint8)
    make = training_view(find_recipe("article").augmentation, ResizeRule())
    made = make_views(photographs, make, 3, 1)
    photographs[:] = 255
    assert made.batch(np.arange(2), np.zeros(2, np.int64)).images.max() == 0
