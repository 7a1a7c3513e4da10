"""Images to be written into a test's folder."""

import numpy as np
import pytest

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.fixture
def save(tmp_path):
    """save("cat/1.png", image) writes an image or bytes below tmp_path and returns the path."""

    def write(name, content=RGB, **options):
        from PIL import Image

        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            picture = Image.fromarray(content) if isinstance(content, np.ndarray) else content
            picture.save(path, **options)
        return path

    return write
