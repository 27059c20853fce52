"""The tray with nothing on screen: the test is the panel (desktop guide 4)."""
import json
import pathlib
import signal
import subprocess
import time
import urllib.request

import pytest
from desktop import MODELS, alive, binary, descendants, engine_path, taken_port, until

MODEL = "tiny-chat"


def start_model(app, item):
    item.click(MODEL, "Start")
    until(app.engines, "an engine process")
    until(lambda: "serving · 1 model" in item.status(), "the status line says one model is loaded")


def test_hidden_start_shows_a_tray_and_no_window(desktop):
    host = desktop.host()
    app = desktop.app("--hidden")
    item = host.item()
    shown = item.properties()
    assert shown["Title"] == "LlamaRunner"
    assert shown["Status"] == "Active"
    assert [tuple(size[:2]) for size in shown["IconPixmap"]] == [(44, 44)]
    assert item.tooltip() == "LlamaRunner · serving · no model loaded"
    menu = item.menu()
    assert (menu[0].label, menu[0].enabled) == ("LlamaRunner · serving · no model loaded", False)
    labels = item.labels()
    assert labels[1] == "Open LlamaRunner"
    assert MODEL in labels
    assert [entry.label for entry in item.find(MODEL).children] == ["Start", "Stop", "Chat", "Copy name"]
    assert labels[-1] == "Quit"
    port = app.ready["listeners"]["ollama"].rpartition(":")[2]
    assert f"Copy Ollama address ({port})" in labels
    time.sleep(0.5)
    assert desktop.windows() == []
    assert app.engines() == []
    # Only the web view's processes would be children now.
    assert descendants(app.process.pid) == {}


def test_start_and_stop_from_the_menu(desktop):
    host = desktop.host()
    app = desktop.app("--hidden")
    item = host.item()
    idle = item.icon()
    layouts = host.layouts
    assert not item.find(MODEL, "Stop").enabled
    clicked = time.monotonic()
    start_model(app, item)
    took = time.monotonic() - clicked
    assert item.find(MODEL).label.startswith(f"{MODEL} · ")
    assert not item.find(MODEL, "Start").enabled
    assert item.find("Quit (stops 1 model)")
    assert item.tooltip() == item.status()
    loaded = item.icon()
    assert loaded != idle
    item.click(MODEL, "Stop")
    until(lambda: not app.engines_left(), "the engine's end")
    until(lambda: item.status() == "LlamaRunner · serving · no model loaded", "the idle status line")
    until(lambda: item.icon() == idle, "the idle icon")
    until(lambda: item.find(MODEL).label == MODEL, "the model's line as before")
    # Texts change in place: a new layout would close the menu under the pointer.
    assert host.layouts == layouts
    assert took < 20


def test_changes_reach_the_panel_soon_and_not_too_often(desktop):
    host = desktop.host()
    app = desktop.app("--hidden")
    item = host.item()
    before = host.changes
    item.click(MODEL, "Start")
    url = f"{app.management}/v1/models/{MODEL}/status"

    def loaded():
        return json.load(urllib.request.urlopen(url))["status"] == "loaded"

    until(loaded, "the server says it is loaded")
    ready = time.monotonic()
    until(lambda: "serving · 1 model" in item.tooltip(), "the panel says so too")
    assert time.monotonic() - ready < 1.0, "the budget is 250 ms; a busy machine gets four times that"
    # A storm of short requests: at most four updates a second, and no flicker of the busy emblem.
    time.sleep(0.5)
    shown, counted, started = item.icon(), host.changes, time.monotonic()
    for _ in range(60):
        body = json.dumps({"model": MODEL, "prompt": "a", "max_tokens": 1}).encode()
        request = urllib.request.Request(f"{app.management}/v1/completions", body, {"content-type": "application/json"})
        urllib.request.urlopen(request).read()
    seconds = time.monotonic() - started
    assert host.changes - counted <= 4 * (seconds + 1)
    assert host.changes > before
    until(lambda: item.icon() == shown, "the ready icon")


def test_free_all_memory(desktop):
    host = desktop.host()
    app = desktop.app("--hidden")
    item = host.item()
    assert not item.find("Free all memory").enabled
    start_model(app, item)
    item.click("Free all memory")
    until(lambda: not app.engines_left(), "the engine's end")


def test_window_opens_and_closes_and_the_tray_lives_on(desktop):
    host = desktop.host()
    app = desktop.app("--hidden")
    item = host.item()
    item.click("Open LlamaRunner")
    [window] = until(desktop.windows, "a visible window", 30)
    desktop.ask_to_close(window)
    until(lambda: not desktop.windows(), "the window's end")
    time.sleep(0.3)
    assert app.running()
    assert item.status() == "LlamaRunner · serving · no model loaded"
    # The web view went with it: a hidden one would cost hundreds of megabytes.
    until(lambda: not any("WebKitWeb" in name for name in descendants(app.process.pid).values()), "the web process's end")
    item.activate()
    [window] = until(desktop.windows, "the window again, by a left click", 30)
    desktop.ask_to_close(window)
    until(lambda: not desktop.windows(), "the window's end")
    # It says once, not each time, that it goes on serving.
    until(lambda: host.notifications.told, "the notice")
    time.sleep(0.3)
    [(summary, _)] = host.notifications.told
    assert summary == "LlamaRunner keeps serving"


def test_second_start_shows_the_window_of_the_first(desktop):
    desktop.host()
    app = desktop.app("--hidden")
    started = time.monotonic()
    second = desktop.app("--hidden", wait=False)
    assert second.wait(10) == 0
    assert time.monotonic() - started < 3
    time.sleep(0.5)
    assert desktop.windows() == []
    assert desktop.app(wait=False).wait(10) == 0
    until(desktop.windows, "the first one's window", 30)
    assert app.running()


@pytest.mark.parametrize("way", ["quit", "sigterm", "sigint", "sigkill"])
def test_every_end_takes_the_engines_along(desktop, way):
    host = desktop.host()
    app = desktop.app("--hidden")
    item = host.item()
    start_model(app, item)
    assert app.engines()
    if way == "quit":
        item.click("Quit")
    else:
        app.process.send_signal({"sigterm": signal.SIGTERM, "sigint": signal.SIGINT, "sigkill": signal.SIGKILL}[way])
    assert app.wait(20) == (-signal.SIGKILL if way == "sigkill" else 0)
    until(lambda: not app.engines_left(), "the engines' end", 2)


def test_quit_with_an_open_window(desktop):
    host = desktop.host()
    app = desktop.app()
    until(desktop.windows, "the window", 30)
    host.item().click("Quit")
    assert app.wait(20) == 0
    until(lambda: not desktop.windows(), "the window's end")


def test_without_a_tray_host_the_window_shows_and_a_later_host_gets_the_item(desktop):
    app = desktop.app("--hidden")
    until(desktop.windows, "the window instead of the tray", 30)
    host = desktop.host()
    item = host.item()
    assert item.status().startswith("LlamaRunner · serving")
    # The panel crashes and comes back.
    host.close()
    again = desktop.host()
    item = again.item()
    start_model(app, item)


def test_a_panel_that_starts_after_us_gets_the_item_and_no_window_pops_up(desktop):
    desktop.app("--hidden")
    time.sleep(1)
    item = desktop.host().item()
    assert item.status().startswith("LlamaRunner · serving")
    time.sleep(4)
    assert desktop.windows() == []


def test_without_a_session_bus_the_window_shows(desktop):
    env = {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"}
    app = desktop.app("--hidden", env=env)
    until(desktop.windows, "the window instead of the tray", 30)
    # A second one finds the data folder in use, even without a bus.
    second = desktop.app("--hidden", env=env, wait=False)
    assert second.wait(10) == 1
    assert "already" in second.log().lower() or "in use" in second.log().lower()
    app.process.terminate()
    assert app.wait(20) == 0


def test_without_a_display_it_names_the_headless_binary(desktop):
    env = {key: value for key, value in desktop.env.items() if key != "DISPLAY"}
    for more in ({}, {"DISPLAY": ""}, {"DISPLAY": ":4242"}):
        done = subprocess.run([binary("llama-runner-desktop", "LLAMA_RUNNER_DESKTOP_BIN")], env={**env, **more},
                              capture_output=True, text=True, timeout=20)
        assert done.returncode == 2
        assert "llama-runner serve" in done.stderr
        assert done.stdout == ""


def failing_engine(folder):
    """An engine that answers what it is asked about itself, and refuses to start in a way that is not tried again."""
    script = folder / "llama-server"
    script.write_text(f"""#!/bin/sh
case "$1" in --version|--help|--list-devices) exec {engine_path()} "$@" ;; esac
echo "error: invalid argument: --broken" >&2
exit 1
""")
    script.chmod(0o755)
    return str(script)


def test_a_failed_start_is_shown_until_seen(desktop):
    host = desktop.host()
    app = desktop.app("--hidden", env={"LLAMARUNNER_LLAMA_SERVER": failing_engine(desktop.folder)})
    item = host.item()
    idle = item.icon()
    item.click(MODEL, "Start")
    until(lambda: f"problem · {MODEL} did not start" in item.status(), "the status line names the problem", 40)
    assert item.icon() != idle
    assert item.find(MODEL).label == f"{MODEL} · failed"
    assert item.find(MODEL, "Start").enabled
    item.click("Show last problem")
    until(desktop.windows, "the window with the problem", 30)
    until(lambda: "problem" not in item.status(), "the emblem goes once seen")
    assert item.find("Show last problem").enabled
    assert app.running()


def test_a_taken_port_is_a_warning(desktop):
    host = desktop.host()
    with taken_port() as taken:
        port = taken.getsockname()[1]
        desktop.app("--hidden", "--ollama-port", str(port), "--lmstudio-port", "0", "--management-port", "0", ports=False)
        item = host.item()
        assert item.status().startswith("LlamaRunner · attention · ")
        assert str(port) in item.status()
        assert not item.find("Copy Ollama address").enabled


def test_start_at_login(desktop):
    host = desktop.host()
    desktop.app("--hidden")
    item = host.item()
    folder = pathlib.Path(desktop.env["XDG_CONFIG_HOME"]) / "autostart"
    config = pathlib.Path(desktop.env["XDG_CONFIG_HOME"]) / "llama-runner" / "config.json"
    assert item.find("Start at login").checked == 0
    item.click("Start at login")
    until(lambda: item.find("Start at login").checked == 1, "the switch is on")
    [entry] = until(lambda: list(folder.glob("*.desktop")), "the autostart entry")
    assert "--hidden" in entry.read_text()
    assert binary("llama-runner-desktop", "LLAMA_RUNNER_DESKTOP_BIN") in entry.read_text()
    until(lambda: json.loads(config.read_text()).get("desktop", {}).get("autostart") is True, "the choice in config.json")
    item.click("Start at login")
    until(lambda: item.find("Start at login").checked == 0, "the switch is off")
    until(lambda: not list(folder.glob("*.desktop")), "the entry is gone")


def test_copying_from_the_menu(desktop):
    host = desktop.host()
    app = desktop.app("--hidden")
    item = host.item()
    item.click("Copy Ollama address")
    assert until(desktop.clipboard, "something in the clipboard") == "http://" + app.ready["listeners"]["ollama"]
    item.click(MODEL, "Copy name")
    until(lambda: desktop.clipboard() == MODEL, "the model's name in the clipboard")


def test_probes_work():
    """The harness itself: the process list sees what it must."""
    child = subprocess.Popen(["sleep", "30"])
    import os

    assert child.pid in descendants(os.getpid())
    child.kill()
    child.wait()
    assert not alive(child.pid)
    assert engine_path()
