import pytest

from service.networks.efficientnet_lite import efficientnet_lite


@pytest.mark.parametrize(
    ("width", "depth", "parameters"), [(1.0, 1.0, 3_413_024), (1.1, 1.2, 4_869_168)], ids=["lite0", "lite2"]
)
def test_the_networks_have_the_published_numbers_of_parameters(width: float, depth: float, parameters: int) -> None:
    network = efficientnet_lite(width, depth, "lite")
    assert network.count_params() == parameters
    assert network.output_shape == (None, 1280)
    assert network.get_layer("bn1").output.shape == (None, 7, 7, 1280)
