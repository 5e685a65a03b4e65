"""The documentation's site, opened in a browser."""

import functools
import html.parser
import http.server
import importlib
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse

import keras
import numpy as np
import pytest

from kerasoft import heads, losses

if "KERASOFT_REQUIRE_DOCS" in os.environ:
    import playwright.sync_api as playwright
else:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="it comes with the extra `docs`"
    )
pytestmark = pytest.mark.slow
LABEL = 2
WAYS = [
    (width, scheme) for width in (1280, 390) for scheme in ("light", "dark")
]  # to look at it


@pytest.fixture(scope="module")
def site(pytestconfig, tmp_path_factory):
    """The folder of the site, built without a warning."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    assert "WARNING -" not in built.stderr
    return folder


@pytest.fixture(scope="module")
def address(site):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Handler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    opened = browser.new_page()
    opened.goto(f"{address}docs/gallery/")
    yield opened
    opened.close()


class Links(html.parser.HTMLParser):
    """What a page links to, and the names that it can be linked to by."""

    def __init__(self, text):
        super().__init__()
        self.links, self.names = [], {""}
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += filter(None, (found.get("href"), found.get("src")))
        self.names |= {found[key] for key in ("id", "name") if found.get(key)}


def test_links_within_the_site_lead_somewhere(site):
    pages = {path: Links(path.read_text("utf-8")) for path in site.rglob("*.html")}
    followed = 0
    for path, page in pages.items():
        if path.name == "404.html":  # whose links begin at the root of a server
            continue
        for link in page.links:
            where = urllib.parse.urlsplit(link)
            if where.scheme or where.netloc or link == ".":
                continue
            target = (path.parent / urllib.parse.unquote(where.path)).resolve()
            if not where.path:
                target = path
            elif target.is_dir():
                target /= "index.html"
            assert target.is_file(), f"{path}: {link}"
            if where.fragment and target in pages:
                name = urllib.parse.unquote(where.fragment)
                assert name in pages[target].names, f"{path}: {link}"
            followed += 1
    assert followed > 1000


@pytest.mark.parametrize(("width", "scheme"), WAYS)
def test_pages_open_without_the_network(width, scheme, site, address, browser):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    page = context.new_page()
    asked, told = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda got: got.status < 400 or told.append(got.url))
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    folders = ("docs", "reference", "tutorials")
    paths = [p for folder in folders for p in (site / folder).rglob("index.html")]
    assert len(paths) > 25
    for path in [site / "index.html", *paths]:
        page.goto(address + path.parent.relative_to(site).as_posix() + "/")
        shown = page.evaluate("document.documentElement.scrollWidth")
        assert shown <= width, f"{path} is wider than the screen"
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness = np.mean([int(n) for n in re.findall(r"\d+", background)[:3]])
        assert (brightness > 128) == (scheme == "light")
    assert not told
    assert all(url.startswith((address, "data:", "blob:")) for url in asked)
    context.close()


def test_every_public_name_is_found_by_search(pytestconfig, page):
    folder = str(pytestconfig.rootpath / "docs" / "_site")
    sys.path.insert(0, folder)
    try:
        hooks = importlib.import_module("hooks")
    finally:
        sys.path.remove(folder)
    names = [(m, name) for m in hooks.MODULES for name in hooks.public_names(m)]
    assert ("kerasoft.ops", "gumbel_top_k") in names
    missing = []
    for module, name in names:
        page.fill("input.md-search__input", name)
        page.press("input.md-search__input", "End")  # it listens to keys
        link = f"a.md-search-result__link[href*='#{module}.{name}']"
        try:
            page.wait_for_selector(link, state="attached", timeout=3_000)
        except playwright.TimeoutError:
            missing.append(f"{module}.{name}")
    assert not missing


def with_gradient(loss, logits):
    """The gradient of a loss of logits, by central differences."""
    steps = 1e-2 * np.eye(len(logits))
    return [
        (float(loss(logits + step)) - float(loss(logits - step))) / 2e-2
        for step in steps
    ]


@pytest.mark.parametrize("name", heads.HEADS)
def test_the_sliders_show_the_library_s_numbers(name, page):
    head = heads.get(name)
    matched, as_logits = losses.matched_loss(head), losses.as_logits_loss(head)
    noise, temperature = [0.0] * 3, 1.0
    if "gumbel" in name:
        noise, temperature = [0.3, -0.4, 1.1], 0.7

    def output(logits):
        x = np.array(logits)[None]
        if "gumbel" in name:
            return head.relax(x, temperature, np.array([noise]))
        return head(x)

    label = np.array([LABEL])
    draws = np.random.default_rng(0)
    for _ in range(5):
        logits = draws.normal(scale=1.5, size=3).round(1)
        found = page.evaluate(
            "([name, x, label, at]) => kerasoftGallery.compute(name, x, label, at)",
            [
                name,
                logits.tolist(),
                LABEL,
                {"temperature": temperature, "noise": noise},
            ],
        )
        expected = keras.ops.convert_to_numpy(output(logits))[0]
        np.testing.assert_allclose(found["output"], expected, atol=1e-5)
        for key, loss in (("matched", matched), ("asLogits", as_logits)):
            slopes = with_gradient(
                lambda x, of=loss: float(of(label, output(x))), logits
            )
            np.testing.assert_allclose(found[key], slopes, rtol=2e-2, atol=5e-3)


def test_moving_a_slider_changes_what_is_shown(page):
    place = page.locator("[data-head=softmax]")
    shown = place.locator("table.live .number")
    before = shown.all_inner_texts()
    place.locator("input[aria-label='logit of class 3']").fill("4")
    after = shown.all_inner_texts()
    assert float(after[6]) > 0.9 > 0.1 > float(before[6])
    noisy = page.locator("[data-head=gumbel_softmax]")
    shown = noisy.locator("table.live .number")
    still = shown.all_inner_texts()
    noisy.get_by_text("draw noise").click()
    assert shown.all_inner_texts() != still
    noisy.get_by_text("no noise").click()
    assert shown.all_inner_texts() == still


def test_the_gallery_is_readable_without_javascript(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}docs/gallery/")
    assert page.locator(".head img").count() == len(heads.HEADS)
    assert all(image.is_visible() for image in page.locator(".head img").all())
    assert page.locator("table.live").count() == 0
    context.close()


def test_tutorials_end_within_three_minutes(pytestconfig, site):
    kept = pytestconfig.rootpath / "build" / "tutorials"
    scripts = sorted((pytestconfig.rootpath / "tutorials").glob("*.py"))
    assert len(scripts) >= 6
    for script in scripts:
        (seconds,) = kept.glob(f"{script.stem}-*/seconds.txt")
        assert float(seconds.read_text()) < 180
        assert (site / "tutorials" / script.stem / "index.html").is_file()
