"""A desktop of its own for a test, and the pieces that stand for its user: panel, window manager, process list."""
import asyncio
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from dbus_fast import BusType, Message, MessageType, PropertyAccess, Variant
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property, dbus_signal
from PIL import Image
from Xlib import X, display as xdisplay, error as xerror
from Xlib.protocol import event as xevent

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
MODELS = ROOT / "crates" / "testkit" / "fixtures" / "models"


def binary(name, variable):
    path = os.environ.get(variable) or str(ROOT / "target" / "debug" / name)
    assert os.path.exists(path), f"{path} is not built: cargo build -p llama-runner-desktop -p headless"
    return path


def engine_path():
    named = os.environ.get("LLAMARUNNER_LLAMA_SERVER")
    if named:
        return named
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "llama-runner"
    built = sorted((cache / "engines" / "llama.cpp").glob("*/llama-server"))
    assert built, "no llama-server: run `cargo xtask setup --test`"
    return str(built[-1])


def speech_python():
    """The Python with the speech engine, as a variable of the environment."""
    named = os.environ.get("LLAMARUNNER_SPEECH_PYTHON")
    if not named:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "llama-runner"
        made = sorted((cache / "python").glob("speech-*/bin/python"))
        assert made, "no speech engine: run `cargo xtask setup --test`"
        named = str(made[-1])
    return {"LLAMARUNNER_SPEECH_PYTHON": named}


def until(probe, what, seconds=15):
    """Polls until the probe gives something true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}; last answer: {value!r}")
        time.sleep(0.02)


class Desktop:
    """A private X server and session bus. `env` is what programs in it are started with."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="desktop-"))
        listing = self.folder / "env"
        script = f'env -0 > "{listing}.part"; mv "{listing}.part" "{listing}"; exec sleep 600'
        self.process = subprocess.Popen([HERE / "desktop-env.sh", "sh", "-c", script], start_new_session=True,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: listing.exists() or self.process.poll() is not None, "the private desktop", 30)
        assert self.process.poll() is None, "the private desktop did not start: are xvfb, xauth and dbus installed?"
        pairs = (item.split("=", 1) for item in listing.read_text().split("\0") if "=" in item)
        # LLAMA_RUNNER_… of the test run would be settings of the product.
        self.env = {key: value for key, value in pairs if not key.startswith("LLAMA_RUNNER_")}
        self.env.update(speech_python(), LLAMARUNNER_LLAMA_SERVER=engine_path())
        self.opened = []
        self._x = None

    def own(self, thing):
        """Closes the thing with the desktop, the last first."""
        self.opened.append(thing)
        return thing

    def host(self):
        return self.own(TrayHost(self.env["DBUS_SESSION_BUS_ADDRESS"]))

    def app(self, *args, **kwargs):
        return self.own(App(self, *args, **kwargs))

    @property
    def x(self):
        if self._x is None:
            os.environ["XAUTHORITY"] = self.env["XAUTHORITY"]
            self._x = xdisplay.Display(self.env["DISPLAY"])
        return self._x

    def windows(self, title="LlamaRunner"):
        """Visible windows with this title."""
        found = []

        def walk(window):
            for child in window.query_tree().children:
                try:
                    if child.get_wm_name() == title and child.get_attributes().map_state == X.IsViewable:
                        found.append(child)
                    walk(child)
                except (xerror.BadWindow, xerror.BadDrawable):
                    pass  # it went away while we looked

        walk(self.x.screen().root)
        return found

    def picture(self, path):
        """The whole screen, as a person sees it."""
        subprocess.run(["import", "-window", "root", str(path)], env=self.env, check=True, timeout=30)
        return Image.open(path)

    def ask_to_close(self, window):
        """What a window manager's close button does (ICCCM 4.2.8.1)."""
        protocols, delete = (self.x.intern_atom(name) for name in ("WM_PROTOCOLS", "WM_DELETE_WINDOW"))
        window.send_event(xevent.ClientMessage(window=window, client_type=protocols, data=(32, [delete, X.CurrentTime, 0, 0, 0])))
        self.x.flush()

    def clipboard(self):
        """The text in the clipboard, asked for as any program would."""
        window = self.x.screen().root.create_window(0, 0, 1, 1, 0, X.CopyFromParent)
        selection, utf8, target = (self.x.intern_atom(name) for name in ("CLIPBOARD", "UTF8_STRING", "TEST_TEXT"))
        window.convert_selection(selection, utf8, target, X.CurrentTime)
        self.x.flush()
        deadline = time.monotonic() + 3
        try:
            while time.monotonic() < deadline:
                if self.x.pending_events() == 0:
                    time.sleep(0.02)
                    continue
                event = self.x.next_event()
                if event.type == X.SelectionNotify:
                    if event.property == X.NONE:
                        return None
                    return window.get_full_property(target, X.AnyPropertyType).value.decode()
            return None
        finally:
            window.destroy()

    def close(self):
        for thing in reversed(self.opened):
            thing.close()
        if self._x is not None:
            self._x.close()
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            pass
        shutil.rmtree(self.folder, ignore_errors=True)


def descendants(pid):
    """Pid → command name of every living descendant."""
    parents, names = {}, {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = pathlib.Path(entry.path, "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            name, rest = stat[stat.index("(") + 1:stat.rindex(")")], stat[stat.rindex(")") + 2:].split()
            if rest[0] not in "ZX":
                parents[int(entry.name)], names[int(entry.name)] = int(rest[1]), name
    found, layer = {}, [pid]
    while layer:
        layer = [child for child, parent in parents.items() if parent in layer]
        found.update({child: names[child] for child in layer})
    return found


def memory(pid):
    """Resident bytes of a process and all its descendants."""
    page = os.sysconf("SC_PAGE_SIZE")
    tree = [pid, *descendants(pid)]
    return sum(int(pathlib.Path(f"/proc/{each}/statm").read_text().split()[1]) * page for each in tree)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class App:
    """The desktop application on free ports."""

    def __init__(self, desktop, *args, env=None, models=MODELS, ports=True, wait=True):
        self.log_path = desktop.folder / f"app-{len(desktop.opened)}.log"
        command = [binary("llama-runner-desktop", "LLAMA_RUNNER_DESKTOP_BIN"), *args]
        if models:
            command += ["--models-dir", str(models)]
        if ports:
            command += ["--ollama-port", "0", "--lmstudio-port", "0", "--management-port", "0"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(command, env={**desktop.env, **(env or {})}, stdout=subprocess.PIPE, stderr=log)
        self.engines_seen = set()
        if wait:
            line = self._line(30)
            self.ready = json.loads(line)
            self.management = "http://" + (self.ready["listeners"]["management"] or "")

    def _line(self, seconds):
        lines = []
        reader = threading.Thread(target=lambda: lines.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(seconds)
        if not lines or not lines[0]:
            self.process.kill()
            raise AssertionError("no ready line:\n" + self.log())
        return lines[0]

    def log(self):
        return self.log_path.read_text(errors="replace")

    def engines(self):
        found = [pid for pid, name in descendants(self.process.pid).items() if name.startswith("llama-server")]
        self.engines_seen.update(found)
        return found

    def engines_left(self):
        """Engines that this application had and that still live."""
        return [pid for pid in self.engines_seen if alive(pid)]

    def running(self):
        return self.process.poll() is None

    def wait(self, seconds=20):
        return self.process.wait(seconds)

    def close(self):
        if self.running():
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()


class Watcher(ServiceInterface):
    """org.kde.StatusNotifierWatcher, as a panel owns it."""

    def __init__(self, host):
        super().__init__("org.kde.StatusNotifierWatcher")
        self.host = host

    @dbus_method()
    def RegisterStatusNotifierItem(self, service: "s"):  # noqa: F821, N802
        # A bus name (the item is at the usual path), or a path on the sender.
        sender = self.host.sender
        name, path = (sender, service) if service.startswith("/") else (service, "/StatusNotifierItem")
        self.host.items.append(Item(self.host, name, path))
        self.StatusNotifierItemRegistered(service)

    @dbus_method()
    def RegisterStatusNotifierHost(self, service: "s"):  # noqa: F821, N802
        pass

    @dbus_property(access=PropertyAccess.READ)
    def RegisteredStatusNotifierItems(self) -> "as":  # noqa: F722, N802
        return [item.name + item.path for item in self.host.items]

    @dbus_property(access=PropertyAccess.READ)
    def IsStatusNotifierHostRegistered(self) -> "b":  # noqa: F821, N802
        return True

    @dbus_property(access=PropertyAccess.READ)
    def ProtocolVersion(self) -> "i":  # noqa: F821, N802
        return 0

    @dbus_signal()
    def StatusNotifierItemRegistered(self, service) -> "s":  # noqa: F821, N802
        return service


class Notifications(ServiceInterface):
    """org.freedesktop.Notifications, as a desktop owns it: keeps what it was told."""

    def __init__(self):
        super().__init__("org.freedesktop.Notifications")
        self.told = []

    @dbus_method()
    def Notify(self, name: "s", replaces: "u", icon: "s", summary: "s", body: "s", actions: "as", hints: "a{sv}",  # noqa: F821, F722, N802
               timeout: "i") -> "u":  # noqa: F821
        self.told.append((summary, body))
        return 1


class TrayHost:
    """Plays the panel: owns the watcher's name, takes items, reads and clicks their menus. Runs its own event loop."""

    def __init__(self, address):
        self.address, self.items, self.sender, self.layouts, self.changes = address, [], None, 0, 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self._open())

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    async def _open(self):
        self.bus = await MessageBus(bus_address=self.address, bus_type=BusType.SESSION).connect()
        self.bus.add_message_handler(self._watch)
        self.bus.export("/StatusNotifierWatcher", Watcher(self))
        self.notifications = Notifications()
        self.bus.export("/org/freedesktop/Notifications", self.notifications)
        await self.bus.request_name("org.freedesktop.Notifications")
        await self.bus.request_name("org.kde.StatusNotifierWatcher")
        for match in ("interface='com.canonical.dbusmenu',member='LayoutUpdated'", "interface='org.kde.StatusNotifierItem'"):
            await self.bus.call(Message(destination="org.freedesktop.DBus", path="/org/freedesktop/DBus",
                                        interface="org.freedesktop.DBus", member="AddMatch", signature="s",
                                        body=["type='signal'," + match]))

    def _watch(self, message):
        if message.member == "RegisterStatusNotifierItem":
            self.sender = message.sender
        elif message.member == "LayoutUpdated":
            self.layouts += 1
        elif message.member == "NewToolTip":
            self.changes += 1
        return None

    def call(self, name, path, interface, member, signature="", body=()):
        message = Message(destination=name, path=path, interface=interface, member=member, signature=signature, body=list(body))
        reply = self.run(self.bus.call(message))
        assert reply.message_type == MessageType.METHOD_RETURN, f"{member}: {reply.error_name} {reply.body}"
        return reply.body

    def item(self, seconds=15):
        return until(lambda: self.items and self.items[-1], "a registered tray item", seconds)

    def close(self):
        if self.loop.is_closed():
            return
        self.run(self._close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()

    async def _close(self):
        self.bus.disconnect()


class Item:
    """One tray item: what it shows, and its menu."""

    def __init__(self, host, name, path):
        self.host, self.name, self.path = host, name, path

    def properties(self):
        [values] = self.host.call(self.name, self.path, "org.freedesktop.DBus.Properties", "GetAll", "s", ["org.kde.StatusNotifierItem"])
        return {key: value.value for key, value in values.items()}

    def icon(self):
        """The pixels, as something to compare."""
        return bytes(self.properties()["IconPixmap"][0][2])

    def tooltip(self):
        return self.properties()["ToolTip"][3]

    def menu(self):
        """Entries in order: (label, enabled, checked, children, id)."""
        menu_path = self.properties()["Menu"]
        [_, layout] = self.host.call(self.name, menu_path, "com.canonical.dbusmenu", "GetLayout", "iias", [0, -1, []])

        def entry(node):
            if isinstance(node, Variant):
                node = node.value
            number, properties, children = node
            value = lambda key, default: properties[key].value if key in properties else default  # noqa: E731
            label = value("label", "").replace("__", "\0").replace("_", "").replace("\0", "_")
            return Entry(label, value("enabled", True), value("toggle-state", -1), [entry(c) for c in children], number,
                         value("type", "standard") == "separator")

        return entry(layout).children

    def labels(self):
        return [entry.label for entry in self.menu() if not entry.separator]

    def status(self):
        return self.menu()[0].label

    def find(self, *labels):
        """The entry under these labels; each is the label's beginning."""
        entries, found = self.menu(), None
        for label in labels:
            found = next((entry for entry in entries if entry.label.startswith(label)), None)
            assert found, f"no entry {label!r} in {[entry.label for entry in entries]}"
            entries = found.children
        return found

    def click(self, *labels):
        entry = self.find(*labels)
        assert entry.enabled, f"{labels} is disabled"
        menu_path = self.properties()["Menu"]
        self.host.call(self.name, menu_path, "com.canonical.dbusmenu", "Event", "isvu", [entry.id, "clicked", Variant("s", ""), 0])

    def activate(self):
        self.host.call(self.name, self.path, "org.kde.StatusNotifierItem", "Activate", "ii", [0, 0])


class Entry:
    def __init__(self, label, enabled, checked, children, number, separator):
        self.label, self.enabled, self.checked, self.children, self.id, self.separator = label, enabled, checked, children, number, separator


def taken_port():
    """A listening socket of ours on a free port."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    return taken
