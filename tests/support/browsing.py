"""What a person does with the page, by way of a page of Playwright."""

from typing import Any

KEY = "a-key-of-32-characters-000000001"


def upload(page: Any, *files: tuple[str, bytes]) -> None:
    """Choose files, as the dialog of the system would."""
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Choose files").click()
    choosing.value.set_files([{"name": name, "mimeType": "image/jpeg", "buffer": data} for name, data in files])


def read_labels(page: Any, num_cards: int = 1) -> list[str]:
    """Wait until so many images have their answers or problems. Return the labels of the answers."""
    from playwright.sync_api import expect  # here, as only .ci/browser installs it

    expect(page.locator(".answer[aria-busy=false]")).to_have_count(num_cards, timeout=20_000)
    return list(page.locator(".best span:first-child").all_text_contents())
