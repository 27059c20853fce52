"""The window's pages in a browser, served by the product, with the real engine."""
import re
import signal
import subprocess
import tempfile
import urllib.request
import json
import os
import pathlib
import shutil
import socket
import sys

import pytest
from playwright.sync_api import expect, sync_playwright

from browser import brightness
from desktop import MODELS, binary, engine_path, speech_python, until
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "clients" / "python"))
from origin import Origin  # noqa: E402

MODEL = "tiny-chat"
expect.set_options(timeout=15000)


class Server:
    """`llama-runner serve` on a management port that it keeps over a restart."""

    def __init__(self, engine=None, models=MODELS, config=None):
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="ui-"))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.env = {
            "HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "XDG_CONFIG_HOME": str(self.home / "cfg"),
            "XDG_DATA_HOME": str(self.home / "data"), "XDG_CACHE_HOME": str(self.home / "cache"),
            "LLAMARUNNER_LLAMA_SERVER": engine or engine_path(), **speech_python(),
        }
        self.models = models
        if config:
            (self.home / "cfg" / "llama-runner").mkdir(parents=True)
            (self.home / "cfg" / "llama-runner" / "config.json").write_text(json.dumps(config))
        self.start()

    def start(self):
        with open(self.home / "log", "ab") as log:
            self.process = subprocess.Popen(
                [binary("llama-runner", "LLAMA_RUNNER_BIN"), "serve", "--models-dir", str(self.models), "--ollama-port", "0",
                 "--lmstudio-port", "0", "--management-port", str(self.port)], env=self.env, stdout=subprocess.PIPE, stderr=log)
        self.ready = json.loads(self.process.stdout.readline())

    @property
    def ui(self):
        return f"http://127.0.0.1:{self.port}/ui/"

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.process.stdout.close()

    def close(self):
        if self.process.poll() is None:
            self.stop()
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture(scope="module")
def server():
    running = Server()
    yield running
    running.close()


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--use-fake-device-for-media-stream", "--autoplay-policy=no-user-gesture-required"])
        yield browser
        browser.close()


@pytest.fixture
def browse(chromium):
    """Opens pages; the test fails when one of them logs an error (a refused script or style is one)."""
    contexts, errors = [], []

    def begin(url, scheme="light", size=(1180, 760), **more):
        context = chromium.new_context(color_scheme=scheme, viewport={"width": size[0], "height": size[1]}, **more)
        context.set_default_timeout(15000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.errors = errors
        return page

    yield begin
    for context in contexts:
        context.close()
    assert errors == []


def by(page, test_id):
    return page.get_by_test_id(test_id)


@pytest.fixture(autouse=True)
def nothing_loaded(request):
    """Each test finds the shared server as the first one did."""
    yield
    if "server" in request.fixturenames:
        base = request.getfixturevalue("server").ui.replace("/ui/", "")
        urllib.request.urlopen(urllib.request.Request(f"{base}/v1/models/{MODEL}/stop", b"{}", method="POST"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_in_both_themes(server, browse, pictures, scheme):
    page = browse(server.ui, scheme)
    expect(by(page, "serving")).to_have_text("Serving")
    for address in server.ready["listeners"].values():
        expect(by(page, "addresses")).to_contain_text(address)
    page.screenshot(path=pictures / f"home-{scheme}.png")
    shade = brightness(Image.open(pictures / f"home-{scheme}.png"))
    assert (shade > 180) if scheme == "light" else (shade < 80)

    by(page, "nav-models").click()
    by(page, f"model-{MODEL}").get_by_role("link").click()
    expect(by(page, "detail")).to_contain_text("comes with LlamaRunner" if "builtin" in scheme else "F16")
    by(page, "detail").get_by_test_id(f"action-{MODEL}").click()
    expect(by(page, f"model-{MODEL}")).to_contain_text("loaded")
    expect(by(page, "log")).to_contain_text(re.compile("model|server"))
    page.screenshot(path=pictures / f"models-{scheme}.png")

    by(page, "nav-home").click()
    expect(by(page, "loaded")).to_contain_text(MODEL)
    expect(by(page, "loaded")).to_contain_text("MB")
    page.screenshot(path=pictures / f"home-loaded-{scheme}.png")

    by(page, "nav-chat").click()
    page.get_by_text("Options").click()
    by(page, "temperature").fill("0")
    page.get_by_text("Options").click()
    by(page, "message").fill("Write a Python function that adds two numbers.")
    page.keyboard.press("Enter")
    expect(by(page, "answer").locator("pre")).to_contain_text("def")
    expect(by(page, "timing")).to_contain_text("tok/s")
    page.screenshot(path=pictures / f"chat-{scheme}.png")


def test_chat_streams_thinks_and_stops(server, browse):
    page = browse(server.ui + f"#/chat/{MODEL}")
    page.get_by_text("Options").click()
    by(page, "temperature").fill("0")
    by(page, "system").fill("You are a pirate.")
    page.get_by_text("Options").click()
    by(page, "message").fill("Hello")
    page.keyboard.press("Enter")
    expect(by(page, "answer-text")).to_have_text("Ahoy, matey!")
    page.get_by_role("button", name="New chat").click()
    expect(by(page, "answer")).to_have_count(0)

    page.get_by_text("Options").click()
    by(page, "system").fill("")
    page.get_by_text("Options").click()
    by(page, "message").fill("Think: what is 3 times 4?")
    by(page, "send").click()
    expect(by(page, "answer-text")).to_have_text("12.")
    thought = by(page, "answer").locator("details")
    expect(thought).not_to_have_attribute("open", "")
    thought.locator("summary").click()
    expect(thought).to_contain_text("3 times 4 is 12.")
    expect(by(page, "announcement")).to_contain_text("Done,")

    by(page, "message").fill("ping")
    page.keyboard.press("Shift+Enter")
    assert by(page, "message").input_value() == "ping\n"
    by(page, "message").fill("Count to 100.")
    page.keyboard.press("Enter")
    expect(by(page, "answer").last).to_have_attribute("data-status", re.compile("waiting|streaming|done"))
    page.keyboard.press("Escape")
    expect(by(page, "answer").last).to_have_attribute("data-status", re.compile("stopped|done"))
    expect(by(page, "message")).to_be_focused()
    until(lambda: page.request.get(server.ui.replace("/ui/", "/v1/state")).json()["requests"] == [], "the engine is free again")


def test_the_five_jobs_by_keyboard(server, browse):
    page = browse(server.ui)
    expect(by(page, "serving")).to_be_visible()
    page.keyboard.press("Control+2")
    expect(by(page, "models")).to_be_visible()
    page.keyboard.press("Tab")
    focused = lambda: page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")  # noqa: E731
    assert focused() == "Skip to content"
    page.keyboard.press("Enter")
    for _ in range(20):
        page.keyboard.press("Tab")
        if focused() == MODEL:
            break
    page.keyboard.press("Enter")
    expect(by(page, "detail")).to_be_visible()
    page.keyboard.press("Tab")
    assert focused() == f"Start {MODEL}"
    page.keyboard.press("Enter")
    expect(by(page, f"model-{MODEL}")).to_contain_text("loaded")
    assert focused() == f"Stop {MODEL}"
    page.keyboard.press("Enter")
    expect(by(page, f"model-{MODEL}")).to_contain_text("installed")
    page.keyboard.press("Control+3")
    expect(by(page, "message")).to_be_focused()
    page.keyboard.type("ping")
    page.keyboard.press("Enter")
    expect(by(page, "answer")).to_have_attribute("data-status", "done")


def test_filter_and_arrow_keys(server, browse):
    page = browse(server.ui + "#/models")
    by(page, "filter").fill("embed")
    expect(by(page, "models").locator("li")).to_have_count(1)
    by(page, "filter").fill("no such model")
    page.get_by_role("button", name="Clear filter").click()
    names = by(page, "models").locator("a.name")
    names.first.focus()
    page.keyboard.press("ArrowDown")
    expect(names.nth(1)).to_be_focused()
    expect(by(page, "detail")).to_contain_text(names.nth(1).inner_text())


def test_a_failed_start_gives_its_reason(browse, tmp_path, pictures):
    script = tmp_path / "llama-server"
    script.write_text(f'#!/bin/sh\ncase "$1" in --version|--help|--list-devices) exec {engine_path()} "$@" ;; esac\n'
                      'echo "error: invalid argument: --broken" >&2\necho "<img src=x onerror=alert(1)> \033[31mred" >&2\nexit 1\n')
    script.chmod(0o755)
    running = Server(engine=str(script))
    try:
        page = browse(running.ui + f"#/models/{MODEL}")
        by(page, "detail").get_by_test_id(f"action-{MODEL}").click()
        expect(by(page, "reason")).to_contain_text(f"{MODEL} did not start. The engine does not know the argument")
        expect(by(page, "detail").get_by_test_id(f"action-{MODEL}")).to_have_text("Try again")
        # What an engine prints is text, whatever it looks like.
        expect(by(page, "log")).to_contain_text("<img src=x onerror=alert(1)>")
        assert page.locator("main img").count() == 0
        page.screenshot(path=pictures / "failed.png")
        by(page, "nav-home").click()
        expect(by(page, "problems")).to_contain_text(f"{MODEL} did not start.")
        by(page, "nav-chat").click()
        page.route("**/v1/chat/completions", lambda route: route.fulfill(status=503, json={"error": {"message": "It is full."}}))
        by(page, "message").fill("ping")
        page.keyboard.press("Enter")
        expect(by(page, "answer")).to_contain_text("No answer. It is full.")
        page.unroute("**/v1/chat/completions")
        page.route("**/v1/chat/completions", lambda route: route.abort())
        by(page, "answer").get_by_role("button", name="Try again").click()
        expect(by(page, "answer")).to_contain_text("No answer. The connection to LlamaRunner was lost.")
        page.errors.clear()  # the browser logs the refused request itself
    finally:
        running.close()


def test_hostile_text_stays_text(browse, tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    name = "<img src=x onerror=alert(1)>"
    shutil.copy(MODELS / "tiny-chat.gguf", models / f"{name}.gguf")
    running = Server(models=models)
    answer = ("<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> [link](javascript:window.hacked=1) "
              "![picture](http://127.0.0.1:9/x.png) <iframe src='http://127.0.0.1:9/'></iframe> <b style='color:red'>b</b> "
              "\n\nA [good](https://example.org/) and a [bad](javascript:alert(1)) link.")
    stream = "".join(f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n"
                     for piece in re.findall("(?s).{1,5}", answer)) + "data: [DONE]\n\n"
    try:
        page = browse(running.ui + "#/models")
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        hostile = by(page, "models").locator("li", has_text="onerror")
        expect(hostile).to_have_count(1)
        hostile.locator("a.name").click()
        expect(by(page, "detail")).to_contain_text("onerror")
        by(page, "nav-chat").click()
        page.route("**/v1/chat/completions", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=stream))
        by(page, "message").fill("hi")
        page.keyboard.press("Enter")
        expect(by(page, "answer")).to_have_attribute("data-status", "done")
        expect(by(page, "answer-text")).to_contain_text("<script>window.hacked = 1</script>")
        links = by(page, "answer-text").locator("a[href]")
        assert [link.get_attribute("href") for link in links.all()] == ["https://example.org/"]
        assert links.first.get_attribute("rel") == "noopener noreferrer"
        assert page.locator("main img, main iframe, main script, main b[style]").count() == 0
        assert page.evaluate("window.hacked") is None
        assert [url for url in asked if not url.startswith(running.ui.replace("/ui/", ""))] == []
    finally:
        running.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_download_is_followed_paused_and_finished(browse, pictures, scheme):
    origin = Origin()
    weights = (MODELS / "tiny-chat.gguf").read_bytes()
    file = pathlib.Path(tempfile.mkdtemp(prefix="ui-")) / "big.gguf"
    file.write_bytes(weights + bytes(4_000_000))
    origin.set_up(models=[{"name": "library/big:latest", "layers": [{"kind": "model", "from": str(file)}]}],
                  faults=[{"path": "/cdn/", "times": 2, "fault": {"slow": {"bytes_per_second": 400_000}}}])
    server = Server(config=origin.config)
    try:
        page = browse(f"{server.ui}#/models", scheme)
        by(page, "download-name").fill("nothere")
        by(page, "download-name").press("Enter")
        expect(by(page, "download-nothere")).to_contain_text("file does not exist")
        by(page, "download-name").fill("big")
        by(page, "download-start").click()
        job = by(page, "download-big")
        expect(job).to_contain_text(re.compile("downloading.*of 5.8 MB"))
        expect(job.get_by_role("progressbar")).to_be_visible()
        page.screenshot(path=pictures / f"downloads-{scheme}.png")
        job.get_by_role("button", name="Pause: big").click()
        expect(job).to_contain_text("paused")
        job.get_by_role("button", name="Continue: big").click()
        expect(job).to_contain_text("here", timeout=60000)
        expect(by(page, "model-big")).to_be_visible()
        job.get_by_role("button", name="Remove from list: big").click()
        expect(job).to_have_count(0)
        by(page, "download-nothere").get_by_role("button", name="Remove from list: nothere").click()
        expect(by(page, "downloads")).to_have_count(0)
    finally:
        server.close()
        origin.stop()
        shutil.rmtree(file.parent)


def test_a_lost_server_is_said_and_found_again(browse, pictures):
    running = Server()
    try:
        page = browse(running.ui)
        expect(by(page, "serving")).to_have_text("Serving")
        running.stop()
        expect(by(page, "connection")).to_contain_text(re.compile("Reconnecting|shutting down"))
        expect(by(page, "serving")).to_be_visible()
        page.screenshot(path=pictures / "lost.png")
        running.start()
        expect(by(page, "connection")).to_have_text("", timeout=20000)
        expect(by(page, "addresses")).to_contain_text(running.ready["listeners"]["ollama"])
        page.errors.clear()  # refused connections
    finally:
        running.close()


def test_a_chosen_theme_is_kept(server, browse):
    page = browse(server.ui, "light")
    background = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    expect(by(page, "serving")).to_be_visible()
    assert background() == "rgb(250, 250, 247)"
    by(page, "theme-dark").check(force=True)
    assert background() == "rgb(20, 21, 19)"
    page.reload()
    expect(by(page, "theme-dark")).to_be_checked()
    assert background() == "rgb(20, 21, 19)"
    by(page, "theme-system").check(force=True)
    assert background() == "rgb(250, 250, 247)"


@pytest.mark.parametrize("where", ["home", "models", f"models/{MODEL}", "chat", "speech"])
def test_reflows_at_320_pixels(server, browse, pictures, where):
    page = browse(server.ui + f"#/{where}", size=(320, 640), reduced_motion="reduce")
    expect(page.locator("main")).not_to_be_empty()
    page.wait_for_timeout(200)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate("document.querySelector('main').scrollWidth") <= 320
    page.screenshot(path=pictures / f"narrow-{where.replace('/', '-')}.png")


def test_names_for_every_control(server, browse):
    for where in ("home", f"models/{MODEL}", "chat", "speech"):
        page = browse(server.ui + f"#/{where}")
        expect(page.locator("main")).not_to_be_empty()
        page.wait_for_timeout(200)
        nameless = page.evaluate("""() => [...document.querySelectorAll('button, a[href], input, select, textarea')]
            .filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).map((e) => e.outerHTML)""")
        assert nameless == []
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))
        small = page.evaluate("""() => [...document.querySelectorAll('main button, main select, main textarea')]
            .filter((e) => e.offsetParent && (e.offsetHeight < 24 || e.offsetWidth < 24)).map((e) => e.outerHTML)""")
        assert small == []
