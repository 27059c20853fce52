"""The real window (WebKitGTK) with the real engine."""
import json
import pathlib
import re
import urllib.request

from browser import WindowDriver, colours
from desktop import MODELS, ROOT, binary, memory, until

MODEL = "tiny-chat"
AUDIO = ROOT / "crates" / "testkit" / "fixtures" / "audio"
PORTS = ("--ollama-port", "0", "--lmstudio-port", "0", "--management-port", "0")


def test_what_a_person_sees(desktop, pictures):
    """Without a driver the window is drawn without OpenGL: the picture comes from the X server."""
    desktop.host()
    app = desktop.app()
    [window] = until(desktop.windows, "the window", 30)
    shape = window.get_geometry()
    assert (shape.width, shape.height) == (1180, 760)

    def drawn():
        picture = desktop.picture(pictures / "screen.png")
        # The rail, the accent and text: more than a blank page has.
        return colours(picture) > 100 and picture

    until(drawn, "a page on the screen", 20)
    assert b"GDK_GL=disable" in pathlib.Path(f"/proc/{app.process.pid}/environ").read_bytes()


def test_hidden_it_needs_little_memory(desktop):
    """Aim: 90 MB in release; a debug build is allowed its larger program text."""
    host = desktop.host()
    app = desktop.app("--hidden")
    host.item()
    used = until(lambda: memory(app.process.pid), "memory") / 1e6
    print(f"hidden: {used:.0f} MB")
    assert used < 120


def test_the_window_shows_state_and_starts_a_model(desktop, pictures):
    host = desktop.host()
    program = binary("llama-runner-desktop", "LLAMA_RUNNER_DESKTOP_BIN")
    driver = desktop.own(WindowDriver(desktop, program, "--models-dir", str(MODELS), *PORTS))
    until(lambda: driver.text("serving") == "Serving", "the first page")
    assert "127.0.0.1:" in driver.text("addresses")
    image = driver.picture(pictures / "window-home.png")
    assert colours(image) > 50

    driver.click("nav-models")
    driver.click(f"action-{MODEL}")
    until(lambda: "loaded" in driver.text(f"model-{MODEL}"), "the model is loaded")
    driver.script("location.hash = arguments[0]", f"#/models/{MODEL}")
    until(lambda: "model" in driver.text("log").lower() and len(driver.text("log")) > 200, "the engine's log")
    driver.picture(pictures / "window-models.png")
    # The tray says the same: one state, two views.
    item = host.item()
    until(lambda: item.status().startswith("LlamaRunner · serving · 1 model"), "the tray's status line")
    item.click(MODEL, "Stop")
    until(lambda: "installed" in driver.text(f"model-{MODEL}"), "the window follows the tray")

    driver.click("nav-chat")
    driver.keys("message", "ping\ue007")  # Enter
    until(lambda: "pong" in driver.text("answer"), "the model's answer", 30)
    driver.picture(pictures / "window-chat.png")

    # The Speech page takes files, may ask for the microphone, and saves what it made.
    driver.click("nav-speech")
    driver.keys("file", str(AUDIO / "fox.wav"))
    until(lambda: "The quick brown fox" in driver.text("segments"), "the words", 60)
    driver.click("save-srt")
    saved = pathlib.Path(desktop.env["HOME"]) / "fox.srt"
    until(saved.exists, "the file of subtitles")
    until(lambda: saved.read_text().startswith("1\n00:00:00,000 --> "), "its content")
    driver.picture(pictures / "window-speech.png")
    # The window may look for a microphone: it records, or says that there is none.
    driver.click("record")
    until(lambda: re.search("Recording|No microphone was found", driver.text("listen")), "a recording, or why there is none")

    # The page is a browser page: it can neither call into the process nor leave its address.
    refused = driver.awaited("""
        const done = arguments[0];
        const internals = window.__TAURI_INTERNALS__;
        if (!internals || !internals.invoke) return done('no bridge');
        internals.invoke('plugin:event|emit', { event: 'x' }).then(() => done('allowed'), (e) => done('refused: ' + e));
    """)
    assert refused == "no bridge" or refused.startswith("refused"), refused
    here = driver.script("return location.href")
    driver.script("location.href = 'http://127.0.0.1:9/elsewhere'")
    driver.script("location.href = 'file:///etc/passwd'")
    assert driver.script("return location.href") == here
    with urllib.request.urlopen(here.split("/ui/")[0] + "/v1/state") as reply:
        assert json.load(reply)["models"]
