from service.inference.health import Health


def test_a_new_service_is_neither_started_nor_ready_and_says_why() -> None:
    health = Health()
    assert (health.is_started, health.is_ready) == (False, False)
    assert health.reasons == ("the model is being loaded",)


def test_it_is_ready_when_no_part_stands_in_the_way() -> None:
    health = Health()
    health.block("engine", "the engine hangs")
    health.clear("model")
    assert health.reasons == ("the engine hangs",)
    health.clear("engine")
    assert health.is_ready


def test_draining_makes_it_not_ready_at_once() -> None:
    health = Health()
    health.clear("model")
    health.is_draining = True
    assert not health.is_ready
    assert health.reasons == ("the service is shutting down",)
