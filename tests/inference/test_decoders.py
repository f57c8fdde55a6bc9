import threading
from concurrent.futures import ThreadPoolExecutor

from service.inference.decoders import PixelBudget


def test_pixels_being_decoded_at_the_same_time_are_bounded_and_nobody_is_passed_for_ever() -> None:
    """Two of 40 fit in 100; the 70 waits for both to go, and the 10 behind it waits, though there would be room."""
    budget = PixelBudget(100)
    order: list[int] = []
    leave = {number: threading.Event() for number in (40, 41, 70, 10)}

    def decode(pixels: int) -> None:
        with budget.hold(pixels):
            order.append(pixels)
            assert leave[pixels].wait(60)

    with ThreadPoolExecutor(4) as threads:
        try:
            for pixels in (40, 41):
                threads.submit(decode, pixels)
            while len(order) < 2:
                pass
            order.sort()
            threads.submit(decode, 70)
            while not budget._turn.locked():
                pass
            threads.submit(decode, 10)
            leave[40].set()
            assert order == [40, 41]
            leave[41].set()
            while len(order) < 4:
                pass
            assert order == [40, 41, 70, 10]
        finally:
            for event in leave.values():
                event.set()


def test_a_picture_larger_than_the_budget_is_decoded_alone() -> None:
    with PixelBudget(10).hold(11):
        pass
