"""`make docs`: its pages have every public name, lead only to each other, and work without a network."""

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
PUBLIC = ("minicnn", "minicnn.functional", "minicnn.nn", "minicnn.nn.init", "minicnn.optim", "minicnn.data")
HOME = "https://pdoc.dev"  # the one address: "built with pdoc", at the foot of each page


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.links, self.names, self.loaded = [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.names.add(attributes["id"])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag in ("script", "img", "link", "iframe"):
            self.loaded += [attributes[name] for name in ("src", "href") if attributes.get(name)]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    pytest.importorskip("pdoc")
    folder = tmp_path_factory.mktemp("docs")
    dry = subprocess.run(
        ["make", "--dry-run", "--silent", "docs"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    _, *arguments = re.search(r"\S*pdoc (.*)", dry.stdout).group(0).split()
    arguments[arguments.index("--output-directory") + 1] = str(folder)
    done = subprocess.run([sys.executable, "-m", "pdoc", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return {path: Page(path.read_text(encoding="utf-8")) for path in folder.rglob("*.html")}


def test_every_public_name_has_its_place(pages):
    places = {name for page in pages.values() for name in page.names} | {path.stem for path in pages}
    for module in PUBLIC:
        loaded = importlib.import_module(module)
        names = getattr(loaded, "__all__", None) or [name for name in dir(loaded) if name[0] != "_"]
        assert [name for name in names if name not in places] == [], module


def test_links_lead_to_a_page_and_a_place_on_it(pages):
    for path, page in pages.items():
        for link in page.links:
            if link == HOME:
                continue
            assert ":" not in link, f"{path.name} leads to {link}"
            where, place = urldefrag(unquote(link))
            target = (path.parent / where).resolve() if where else path
            assert target in pages, f"{path.name}: {link}"
            private = place.startswith("_")  # a base class that is not public has no place of its own
            assert private or not place or place in pages[target].names, f"{path.name}: {link}"


def test_nothing_is_loaded_from_elsewhere(pages):
    for path, page in pages.items():
        for source in page.loaded:
            inside = source.startswith("data:") or (path.parent / source).exists()
            assert inside, f"{path.name} loads {source[:80]}"
