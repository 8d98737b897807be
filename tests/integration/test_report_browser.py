"""The reports in a real browser without a network: nothing is fetched, nothing complains, nothing sticks out on a phone."""

import base64
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from tests.unit import reported, reported_studies
from threephase_ray import reports

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
PHONE, DESKTOP = (390, 844), (1280, 900)
KINDS = ("run", "sweep", "study")
CONTRAST = """
const seen = color => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].map(part => part / 255);
};
const light = parts => parts.slice(0, 3).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = element => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.push(seen(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((below, [r, g, b, a]) => [r, g, b].map((v, i) => a * v + (1 - a) * below[i]), [1, 1, 1]);
};
const faults = [];
for (const element of document.querySelectorAll('p, li, dt, dd, th, td, h1, h2, h3, figcaption, summary, a, pre, svg text')) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  const style = getComputedStyle(element);
  if (!own || !element.getClientRects().length || style.opacity < 1) continue;
  const [a, b] = [light(seen(element instanceof SVGElement ? style.fill : style.color)), light(ground(element))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) faults.push(`${element.tagName} ${element.className} "${element.textContent.slice(0, 30)}" ${ratio.toFixed(2)}`);
}
return faults;
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The three reports."""
    folder = tmp_path_factory.mktemp("reports")
    for make in (reported.run, reported_studies.sweep, reported_studies.study):
        kept = make(folder)
    written = [reports.write(kept, place)[0] for place in ("runs/mine", "sweeps/search", "studies/compare")]
    return {kind: kept.place(name) for kind, name in zip(KINDS, written, strict=True)}


@pytest.fixture(scope="module")
def artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures go: $ARTEFACTS, or pytest's own place."""
    folder = Path(os.environ["ARTEFACTS"]) if "ARTEFACTS" in os.environ else tmp_path_factory.mktemp("artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """Headless Chromium that resolves no name."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and its driver: the packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in (*QUIET, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    made = webdriver.Chrome(options, Service(DRIVER))
    made.set_page_load_timeout(120)
    yield made
    made.quit()


@pytest.fixture
def opened(browser: webdriver.Chrome, files: dict[str, Path]) -> Callable[..., list[dict[str, Any]]]:
    """Open a report as a device shows it; what the browser asked for meanwhile is returned."""

    def show(kind: str, size: tuple[int, int], scheme: str, media: str = "") -> list[dict[str, Any]]:
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        for log in ("browser", "performance"):
            browser.get_log(log)  # forget what came before
        browser.get(files[kind].as_uri())
        events = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
        return [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]

    return show


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_file_itself_is_read(kind: str, opened: Callable[..., Any], browser: webdriver.Chrome, files: dict[str, Path]) -> None:
    asked = [each["request"]["url"] for each in opened(kind, DESKTOP, "light")]
    assert files[kind].as_uri() in asked
    assert [url for url in asked if not url.startswith("data:")] == [files[kind].as_uri()]
    assert browser.get_log("browser") == []  # neither errors nor refusals of the page's own policy


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_sticks_out(
    kind: str, size: tuple[int, int], scheme: str, opened: Callable[..., Any], browser: webdriver.Chrome, artefacts: Path
) -> None:
    opened(kind, size, scheme)
    assert browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]") == [size[0], size[0]]
    height = min(6000, int(browser.execute_script("return document.documentElement.scrollHeight")))
    clip = {"x": 0, "y": 0, "width": size[0], "height": height, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True, "clip": clip})
    picture = artefacts / f"report-{kind}-{'phone' if size == PHONE else 'desktop'}-{scheme}.png"
    picture.write_bytes(base64.b64decode(shot["data"]))
    assert picture.stat().st_size > 20_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_text_stands_out_from_its_ground(kind: str, scheme: str, opened: Callable[..., Any], browser: webdriver.Chrome) -> None:
    opened(kind, DESKTOP, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert browser.execute_script(CONTRAST) == []  # WCAG 2.2, 1.4.3: 4.5 to 1


@pytest.mark.parametrize("kind", KINDS)
def test_small_print_of_charts_can_be_read_on_a_phone(kind: str, opened: Callable[..., Any], browser: webdriver.Chrome) -> None:
    opened(kind, PHONE, "light")
    sizes = browser.execute_script("return [...document.querySelectorAll('svg text')].map(each => each.getBoundingClientRect().height)")
    assert sizes == [] or min(size for size in sizes if size) > 8


def test_paper_is_white(opened: Callable[..., Any], browser: webdriver.Chrome) -> None:
    opened("run", DESKTOP, "dark", media="print")
    assert browser.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.execute_script("return getComputedStyle(document.querySelector('nav')).display") == "none"
