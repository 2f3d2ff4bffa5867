"""The explorer in a browser: one headless Chromium for all pages, wide and narrow, light and dark."""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from conftest import Database, database_from, superuser
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from support import Hook, lacking, until
from support_explorer import LONG, client_of, make_titles
from test_real_data import retail  # noqa: F401
from werkzeug.serving import make_server

from recstore import pipeline
from recstore.definition import Titles
from recstore.embedded import Server
from recstore.errors import SourceEmpty

PROGRAM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
if not PROGRAM or not DRIVER:
    lacking("chromium-driver", "the explorer in a browser", module=True)

SEEN = Path(os.environ.get("RECSTORE_TEST_PICTURES", os.devnull))
"""Folder for pictures of every page, to be looked at."""

PAGES = {
    "overview": "/",
    "recommender": "/r/retail",
    "run": "/r/retail/run/3",
    "items": "/r/retail/items",
    "search": "/r/retail/items?q=product+1",
    "long title": "/r/retail/item?id=1",
    "right to left": "/r/retail/item?id=2",
    "hostile title": "/r/retail/item?id=3",
    "users": "/r/retail/user",
    "user": "/r/retail/user?id=1&item=7",
    "basket": "/r/retail/basket?item=1&item=2&q=product",
    "compare": "/r/retail/compare",
    "not found": "/r/nix",
}
FIFTY = """
WITH made AS (
    INSERT INTO recstore_private.recommenders
        (name, definition, user_type, item_type, vector_type, dimensions, objects_version)
    SELECT 'a_recommender_with_a_name_of_48_letters_like_this'::varchar(45) || n, r.definition, r.user_type,
        r.item_type, r.vector_type, r.dimensions, r.objects_version
    FROM recstore_private.recommenders r, generate_series(1, 49) n
    RETURNING id
)
INSERT INTO recstore_private.pointers (recommender_id) SELECT id FROM made
"""
"""Rows of recommenders that have never been trained."""

AXE = files("axe_core_python").joinpath("axe.min.js").read_text()
RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'], resultTypes: ['violations']}"


class Browser(webdriver.Chrome):
    """Chromium, as wide and as dark as a test wants it."""

    def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def violations(self) -> list[str]:
        """What axe-core finds, with the elements."""
        script = f"const done = arguments[0]; axe.run(document, {RULES}).then(found => done(found.violations))"
        found: list[dict[str, Any]] = self.execute_async_script(script)
        return [f"{one['id']}: {node['html']}" for one in found for node in one["nodes"]]

    def check(self, name: str) -> None:
        """A page that fits, wide and narrow, light and dark, and about which neither axe-core nor the console complains."""
        self.execute_script(AXE)
        for width, dark in ((1280, False), (400, True)):
            self.look(width, dark=dark)
            assert self.execute_script("return document.documentElement.scrollWidth") <= width, f"{name} at {width}"
            assert self.violations() == [], f"{name} at {width}"
            if SEEN.is_dir():
                height = self.execute_script("return document.documentElement.scrollHeight")
                self.look(width, dark=dark, height=min(height, 2400))
                self.save_screenshot(SEEN / f"{name.replace(' ', '-')}-{width}.png")
        assert self.complaints() == [], name

    def complaints(self) -> list[str]:
        """What the console has said, the policy's refusals among it; that something is not there is none."""
        return [str(one["message"]) for one in self.get_log("browser") if "Failed to load" not in str(one["message"])]


@contextmanager
def served(database: Database, **options: Any) -> Iterator[str]:
    """The address of an explorer over this database."""
    server = make_server("127.0.0.1", 0, client_of(database, **options).application, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAM
    for one in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(one)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = Browser(options=options, service=Service(DRIVER))
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture(scope="module")
def address(server: Server, trained_template: str) -> Iterator[str]:
    """An explorer over the shop with titles and three generations."""
    with database_from(server, trained_template) as database:
        make_titles(database)
        with served(database) as where:
            yield where


@pytest.mark.campaign
@pytest.mark.usefixtures("calibrated")
def test_the_demo_s_data(browser: Browser, retail: Database) -> None:  # noqa: F811
    retail.alter(titles=Titles(table="shop.products", item="product_id", title="title"))
    assert retail.retrain().live
    pages = ["", "r/retail", "r/retail/run/2", "r/retail/items?q=heart", "r/retail/item?id=2505", "r/retail/compare"]
    pages += ["r/retail/user?id=1000&item=3431", "r/retail/basket?item=1606&item=2505"]
    with served(retail) as where:
        for page in pages:
            browser.get(f"{where}/{page}")
            browser.check(f"demo {page}".replace("/", "-"))


@pytest.mark.parametrize("name", PAGES)
def test_every_page_fits_and_everyone_can_use_it(browser: Browser, address: str, name: str) -> None:
    browser.get(address + PAGES[name])
    browser.check(name)


def test_every_link_field_and_button_is_reached_by_the_keyboard_and_seen(browser: Browser, address: str) -> None:
    browser.look(1280)
    browser.get(address + PAGES["basket"])
    wanted = browser.find_elements(
        By.CSS_SELECTOR, "a[href], button, summary, input:not([type=hidden]), select, [tabindex='0']"
    )
    wanted = [one for one in wanted if one.is_displayed() or one.get_attribute("class") == "skip"]
    reached = []
    for _ in wanted:
        browser.switch_to.active_element.send_keys(Keys.TAB)
        one = browser.switch_to.active_element
        outlined = browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", one)
        assert outlined != "none", one.get_attribute("outerHTML")
        reached.append(one)
    assert reached == wanted


def test_sql_is_opened_and_copied_by_the_keyboard(browser: Browser, address: str) -> None:
    browser.get(address + PAGES["long title"])
    grant = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": address}
    browser.execute_cdp_cmd("Browser.grantPermissions", grant)
    block = browser.find_elements(By.CSS_SELECTOR, "details.sql")[-1]
    button = block.find_element(By.TAG_NAME, "button")
    assert not button.is_displayed()
    block.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    assert button.is_displayed()
    button.send_keys(Keys.ENTER)
    until(lambda: button.text == "Copied")
    copied = browser.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == block.find_element(By.TAG_NAME, "code").text
    assert copied.startswith("SELECT r.item_id")


def test_a_basket_is_filled_by_the_keyboard(browser: Browser, address: str) -> None:
    browser.get(address + "/r/retail/basket")
    browser.find_element(By.ID, "q").send_keys("enamel jug", Keys.ENTER)
    until(lambda: "q=enamel" in browser.current_url)
    browser.find_element(By.CSS_SELECTOR, ".add a").send_keys(Keys.ENTER)
    until(lambda: "item=1" in browser.current_url)
    assert [one.text for one in browser.find_elements(By.CSS_SELECTOR, ".chosen li a[dir]")] == [LONG]
    assert len(browser.find_elements(By.CSS_SELECTOR, "td.item")) == 10


def test_an_operator_logs_in_and_asks_for_a_job(browser: Browser, trained: Database) -> None:
    with served(trained, password="right", operators=True) as where:
        browser.get(f"{where}/r/retail")
        browser.check("login")
        browser.find_element(By.ID, "password").send_keys("right", Keys.ENTER)
        until(lambda: "login" not in browser.current_url)
        browser.check("operators")
        (button,) = (one for one in browser.find_elements(By.TAG_NAME, "button") if one.text == "Reindex")
        button.send_keys(Keys.ENTER)
        until(lambda: browser.find_elements(By.CSS_SELECTOR, "[role=status]"))
        assert (
            browser.find_element(By.CSS_SELECTOR, "[role=status]").text
            == "Asked a worker to reindex retail: request 1."
        )
        browser.check("asked")


def test_a_database_in_every_state(browser: Browser, shop: Database, server: Server, empty_template: str) -> None:
    """Empty, without a training, its first in progress, failed, waiting to go live; fifty recommenders."""
    with database_from(server, empty_template) as empty, served(empty) as where:
        browser.get(where)
        browser.check("no schema")
    with served(shop) as where:
        browser.get(where)
        browser.check("no recommender")
        shop.create()
        browser.get(f"{where}/r/retail")
        browser.check("nothing trained")

        def train(stage: str) -> None:
            if stage == "train":
                for name, path in (
                    ("first run", "/r/retail"),
                    ("first run alone", "/r/retail/run/1"),
                    ("running", "/"),
                ):
                    browser.get(where + path)
                    assert "running" in browser.find_element(By.TAG_NAME, "main").text
                    browser.check(name)

        shop.retrain(reporter=Hook(on_stage=train))
        reader = shop.connect()
        reader.execute("BEGIN; SELECT FROM retail.item_vectors")
        settings = shop.settings.model_copy(update={"flip_wait": 0})
        assert not all(pipeline.retrain(shop.url, settings, "retail").live for _ in range(2))
        browser.get(f"{where}/r/retail")
        browser.check("waiting")
        reader.execute("COMMIT")
        with shop.connect("application") as connection:
            connection.execute("DELETE FROM shop.views")
        with pytest.raises(SourceEmpty):
            shop.retrain()
        browser.get(f"{where}/r/retail")
        browser.check("failed")
        with superuser(shop.server, shop.name) as connection:
            connection.execute(FIFTY)
        browser.get(where)
        assert len(browser.find_elements(By.CSS_SELECTOR, ".card")) == 50
        browser.check("fifty")
