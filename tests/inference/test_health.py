from service.inference.health import Health


def test_a_new_service_says_why_it_is_not_ready() -> None:
    health = Health()
    assert (health.is_started, health.is_ready) == (False, False)
    assert health.reasons == ("The model is being loaded.",)


def test_health_is_ready_when_no_part_blocks() -> None:
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
    assert health.reasons == ("The service is shutting down.",)
