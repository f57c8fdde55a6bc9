"""Check of the photographs before training. It names each fault."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from service import errors
from service.data.folder import Folder, Photograph
from service.data.names import join_names
from service.data.near_duplicates import NEAR_DUPLICATE_BITS, NearDuplicates, find_near_duplicates, perceptual_hash
from service.data.parts import PARTS, Part
from service.files import UnfitFile, digest_bytes, read_bounded
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits
from service.imaging.pixels import Decoded, Pixels
from service.imaging.profiles import to_srgb
from service.machine import count_cores

SMALL_CLASS = 30  # fewer photographs than this are reported. 15 % of 30 are four, or none in one split of 130
UNBALANCED_RATIO = 3.0  # a larger ratio of the largest class to the smallest is reported
_DEFAULT_LIMITS = ImageLimits()
_KINDS: dict[type[errors.ImageError], str] = {
    errors.MissingImage: "not-an-image",
    errors.UnsupportedImageFormat: "not-an-image",
    errors.ImageBytesTooLarge: "image-too-large",
    errors.ImageTooLarge: "image-too-large",
}


@dataclass(frozen=True)
class CheckedPhotograph(Photograph):
    """Photograph that decodes, with the digest of `Decoded.pixels` and the hash of `near_duplicates`, 256 bits.

    `size` is the height and width as decoded, in pixels. `file_digest` is the hex sha256 of the file.
    """

    pixels_digest: str
    perceptual_hash: int
    size: tuple[int, int] = field(default=(0, 0), kw_only=True)
    file_digest: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class Finding:
    """Fault of the data. Each of `files` is a `Photograph.file`."""

    kind: str  # a word of this module, or `near-duplicates-apart`, from the split
    files: tuple[str, ...]
    detail: str

    @property
    def sentence(self) -> str:
        """Return the finding with its files."""
        return f"{self.kind}: {', '.join(self.files)}. {self.detail}" if self.files else f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class DataCheck:
    """Result of a check: usable `photographs` by (label, file name), and `findings` about the others.

    `given_parts` are those of a split folder, in the order of `PARTS`. A folder of class folders has none.
    """

    class_names: tuple[str, ...]
    photographs: tuple[CheckedPhotograph, ...]
    findings: tuple[Finding, ...]
    given_parts: tuple[Part, ...] = ()

    @property
    def digest(self) -> str:
        """Return the hex sha256 over labels and pixels of the usable photographs. Names do not count."""
        lines = sorted(f"{photograph.label}/{photograph.pixels_digest}\n" for photograph in self.photographs)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def class_sizes(self) -> dict[str, int]:
        """Count the usable photographs per class, in the order of `class_names`."""
        counts = Counter(photograph.label for photograph in self.photographs)
        return {label: counts[label] for label in self.class_names}

    @cached_property
    def near_duplicates(self) -> tuple[tuple[CheckedPhotograph, ...], ...]:
        """Group usable photographs of one class that look nearly the same. See `NearDuplicates`."""
        return self._select(self._resemblance.groups)

    @property
    def sequences(self) -> tuple[str, ...]:
        """List the classes that are mostly near-duplicates, such as those of a fixed camera."""
        return self._resemblance.sequences

    @property
    def near_two_labels(self) -> tuple[tuple[CheckedPhotograph, ...], ...]:
        """Group near-duplicates across classes, except `sequences`. One of their labels may be wrong."""
        return self._select(self._resemblance.across)

    @cached_property
    def _resemblance(self) -> NearDuplicates:
        return _find_near_duplicates(self.photographs)

    def _select(self, groups: Iterable[tuple[int, ...]]) -> tuple[tuple[CheckedPhotograph, ...], ...]:
        return tuple(tuple(self.photographs[index] for index in group) for group in groups)

    def to_dict(self) -> dict[str, Any]:
        """Return the report for `json.dumps`. It is the same for the same data."""
        return {
            "data_digest": self.digest,
            "num_photographs": len(self.photographs),
            "class_sizes": self.class_sizes,
            "near_duplicate_bits": NEAR_DUPLICATE_BITS,
            "findings": [asdict(finding) for finding in self.findings],
        }


def check_folder(
    folder: Folder, limits: ImageLimits = _DEFAULT_LIMITS, progress: Callable[[int, int], None] | None = None
) -> DataCheck:
    """Decode every photograph once and report faults.

    Photographs that do not decode are set aside. So are identical ones of one class but the first by name, and all
    identical ones under two labels. Of identical ones in given parts the test part keeps its own, before the validation
    part. `progress` gets (photographs done, photographs in all), from this thread.
    """
    results: list[CheckedPhotograph | Finding] = []
    executor = ThreadPoolExecutor(count_cores())  # Pillow and hashlib release the interpreter lock
    try:
        for result in executor.map(lambda photograph: _check_photograph(photograph, limits), folder.photographs):
            results.append(result)
            if progress is not None:
                progress(len(results), len(folder.photographs))
    finally:
        executor.shutdown(cancel_futures=True)  # Ctrl-C waits for the photographs in work, not for thousands
    findings = [result for result in results if isinstance(result, Finding)]
    readable = [result for result in results if isinstance(result, CheckedPhotograph)]
    duplicates, set_aside = _find_duplicates(readable)
    usable = tuple(photograph for photograph in readable if photograph not in set_aside)
    check = DataCheck(folder.class_names, usable, (), folder.given_parts)
    findings += [*duplicates, *_describe_near_duplicates(check), *_judge_class_sizes(check.class_sizes)]
    return replace(check, findings=(*findings, *_describe_given_parts(check)))


def pixels_digest(image: Pixels) -> str:
    """Return the hex sha256 over b"height,width," and the RGB bytes. A photograph's is that of `Decoded.pixels`."""
    height, width, _ = image.shape
    return hashlib.sha256(f"{height},{width},".encode() + image.tobytes()).hexdigest()


def has_digest(image: Decoded, digest: str) -> bool:
    """Return whether a split list may hold this digest of a photograph. Format 1 may have that of its sRGB pixels."""
    return digest in list_digests(image)


def list_digests(image: Decoded, *, may_be_srgb: bool = True) -> Iterator[str]:
    """Yield the digests of a photograph that a split list may hold. That of its sRGB pixels is made on demand."""
    yield pixels_digest(image.pixels)
    if may_be_srgb and image.profile is not None:
        yield pixels_digest(to_srgb(image))


def _check_photograph(photograph: Photograph, limits: ImageLimits) -> CheckedPhotograph | Finding:
    path, files = photograph.path, (photograph.file,)
    try:
        data = read_bounded(path, limits.max_image_bytes)
        image = decode_image(data, limits)
    except UnfitFile:
        what = "It is a folder. Move its photographs up." if path.is_dir() else "It is not a file. Remove it."
        return Finding("unreadable", files, what)
    except errors.OutOfMemory as error:
        raise errors.OutOfMemory(f"{path}: {error}") from error
    except OSError as error:
        return Finding("unreadable", files, f"It cannot be read ({error.strerror}). Check its rights.")
    except errors.ImageError as error:
        return Finding(_KINDS.get(type(error), "broken-image"), files, str(error))
    pixels = image.pixels
    identity = pixels_digest(pixels), perceptual_hash(pixels)
    return CheckedPhotograph(
        path, photograph.label, *identity, folder_name=photograph.folder_name, part_folder=photograph.part_folder,
        size=(pixels.shape[0], pixels.shape[1]), file_digest=digest_bytes(data),
    )  # fmt: skip


def _find_duplicates(photographs: Iterable[CheckedPhotograph]) -> tuple[list[Finding], set[CheckedPhotograph]]:
    findings: list[Finding] = []
    set_aside: set[CheckedPhotograph] = set()
    same_pixels: dict[str, list[CheckedPhotograph]] = {}
    for photograph in photographs:
        same_pixels.setdefault(photograph.pixels_digest, []).append(photograph)
    for group in same_pixels.values():
        if len({photograph.label for photograph in group}) > 1:
            files = tuple(photograph.file for photograph in group)
            detail = "Same pixels, different labels. None is used. Delete the wrong ones."
            findings.append(Finding("two-labels", files, detail))
            set_aside.update(group)
        elif len(group) > 1:
            kept = max(group, key=lambda photograph: PARTS.index(photograph.part or "train"))  # the first of the equal
            others = [photograph for photograph in group if photograph is not kept]
            files = tuple(photograph.file for photograph in others)
            findings.append(Finding("duplicate", files, f"Same pixels as {kept.file}, which alone is used."))
            set_aside.update(others)
    return findings, set_aside


@lru_cache(maxsize=1)  # for the check's findings, then for the split
def _find_near_duplicates(photographs: tuple[CheckedPhotograph, ...]) -> NearDuplicates:
    labels = [photograph.label for photograph in photographs]
    return find_near_duplicates(labels, [photograph.perceptual_hash for photograph in photographs])


def _describe_near_duplicates(check: DataCheck) -> list[Finding]:
    findings = [
        Finding(kind, tuple(photograph.file for photograph in group), detail)
        for kind, groups, detail in (
            ("near-duplicates", check.near_duplicates, "Nearly the same."),
            ("near-two-labels", check.near_two_labels, "Nearly the same, different labels. Delete the wrong ones."),
        )
        for group in groups
    ]
    if check.sequences:
        how = (
            "The parts are as given, so the accuracy holds for this scene alone."
            if check.given_parts
            else "Each of these classes is split in the order of its file names. Added photographs can move others to "
            "another part. Name the files in the order of taking."
        )
        what = f"Most photographs of {', '.join(check.sequences)} show nearly the same, as those of a fixed camera do."
        findings.append(Finding("sequence", (), f"{what} {how}"))
    return findings


def _describe_given_parts(check: DataCheck) -> list[Finding]:
    if not check.given_parts:
        return []
    drawn = " ".join(f"The {part} part is drawn from train." for part in PARTS if part not in check.given_parts)
    detail = f"The folder gives the parts {join_names(check.given_parts)}. They are taken as they are. {drawn}"
    return [Finding("given-split", (), detail.rstrip())]


def _judge_class_sizes(sizes: dict[str, int]) -> list[Finding]:
    findings = [
        Finding("small-class", (), f"{label} has {size} usable photographs, fewer than {SMALL_CLASS}. Add some.")
        for label, size in sizes.items()
        if size < SMALL_CLASS
    ]
    largest, smallest = max(sizes, key=lambda label: sizes[label]), min(sizes, key=lambda label: sizes[label])
    if sizes[largest] > UNBALANCED_RATIO * sizes[smallest]:
        detail = (
            f"{largest} has {sizes[largest]} usable photographs and {smallest} {sizes[smallest]}, "
            f"more than {UNBALANCED_RATIO:g} to 1. Add to the smaller."
        )
        findings.append(Finding("unbalanced", (), detail))
    return findings
