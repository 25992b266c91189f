"""A real browser without a window, where Debian's chromium and its driver are installed."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class Browser:
    """A browser with one tab."""

    def __init__(self, driver: webdriver.Chrome, downloads: Path) -> None:
        self.driver = driver
        self.downloads = downloads

    def open(self, page: Path) -> None:
        """Opens a page from the disk."""
        self.driver.get(page.as_uri())

    def press(self, *keys: str) -> None:
        """Presses keys one after the other."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script."""
        return self.driver.execute_script(script, *arguments)

    def text(self, identifier: str) -> str:
        """The text of an element."""
        return str(self.run("return document.getElementById(arguments[0]).innerText", identifier))

    def click(self, selector: str) -> None:
        """Clicks on an element."""
        self.driver.find_element("css selector", selector).click()

    def choose(self, identifier: str, text: str) -> None:
        """Chooses the option of a list whose text begins so."""
        for option in self.driver.find_elements("css selector", f"#{identifier} option"):
            if option.text.startswith(text):
                option.click()
                return
        raise AssertionError(f"no option {text!r} in {identifier}")

    def emulate(self, *, width: int, height: int, dark: bool) -> None:
        """Another size of the window, and the colours that the person prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def complaints(self) -> list[dict[str, Any]]:
        """What the browser's console holds: errors of scripts, and what the policy forbade."""
        found: list[dict[str, Any]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return found


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Starts a browser whose profile and downloads lie in a folder; skips where there is none."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium-driver)")
    downloads = folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    options = Options()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield Browser(chrome, downloads)
    finally:
        chrome.quit()
