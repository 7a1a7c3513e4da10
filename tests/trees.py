"""Trees of photographs, as prepare.py takes and makes them: helpers to look at them."""

import minicnn
from minicnn.data import PixelStatistics, read_image

SIZE = 32  # of what is made, in tests


def names(root):
    """All files below a folder, hidden ones too."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def pictures(root):
    return [name for name in names(root) if name.startswith(("train/", "val/"))]


def stored(root):
    return PixelStatistics.of(minicnn.load(root / "statistics.safetensors")[0])


def of_pictures(root):
    """The statistics of what is there."""
    statistics = PixelStatistics()
    for name in pictures(root):
        if name.startswith("train/"):
            statistics.add(read_image(root / name))
    return statistics


def same(a, b):
    return a.count == b.count and (a.sums == b.sums).all() and (a.products == b.products).all()


def flat_val(root, kaggle=False):
    """The images of val/ in one folder, and a file with their labels."""
    lines = []
    for label, folder in enumerate(sorted((root / "val").iterdir())):
        for picture in sorted(folder.iterdir()):
            name = f"{folder.name}-{picture.name}"
            picture.rename(root / "val" / name)
            lines.append(f"{name[:-4]},{folder.name} 1 2 3 4" if kaggle else f"{name} {label}")
        folder.rmdir()
    (root / ("LOC_val_solution.csv" if kaggle else "val.txt")).write_text("\n".join(lines) + "\n")
