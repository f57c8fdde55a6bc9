"""Sentences about files that are not decoded, shared by the walks over their structure."""

from service.errors import InvalidImage, UnsupportedImageFormat


def cut_short(name: str) -> InvalidImage:
    """Return the error for a file that ends before its image does."""
    return InvalidImage(f"The {name} image is cut short. Send the whole file again.")


def out_of_proportion(name: str, what: str) -> InvalidImage:
    """Return the error for a file that would keep its decoder busy."""
    return InvalidImage(f"The {name} image holds more {what} than it needs. Send a copy saved afresh as JPEG or PNG.")


def not_read(name: str, what: str, remedy: str = "Send it as JPEG or PNG") -> UnsupportedImageFormat:
    """Return the error for a sound file of a kind that is not decoded rightly."""
    return UnsupportedImageFormat(f"The {name} image {what}. This kind is not read here. {remedy}.")


def in_words(pixels: int) -> str:
    """Return a number of pixels as people read it."""
    return f"{pixels / 1_000_000:.6g} million" if pixels >= 1_000_000 else f"{pixels:,}"
