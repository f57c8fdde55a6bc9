"""Choice of an answer's media type by the header Accept.

Source: RFC 9110, section 12.5.1.
"""

import re

_QUALITY = re.compile(r";\s*q\s*=\s*([01](?:\.[0-9]{0,3})?)\s*(?:;|$)", re.IGNORECASE)


def prefers(accept: str, media_type: str, other: str) -> bool:
    """Return whether a client prefers one media type to another. Equal or no preference is none.

    Args:
        accept: Value of the header. It may be empty.
        media_type, other: In lower case, without parameters.
    """
    qualities = _read_qualities(accept)
    return _find_quality(qualities, media_type) > _find_quality(qualities, other)


def _read_qualities(accept: str) -> dict[str, float]:
    """Return the quality of each range in the header. Parameters other than `q` do not count."""
    qualities: dict[str, float] = {}
    for element in accept.split(","):
        media_range, _, parameters = element.partition(";")
        quality = _QUALITY.search(f";{parameters}")
        qualities[media_range.strip().lower()] = min(1.0, float(quality[1])) if quality else 1.0
    return qualities


def _find_quality(qualities: dict[str, float], media_type: str) -> float:
    """Return the quality by the most specific range that matches. It is 0 where none does."""
    for media_range in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range]
    return 0.0
