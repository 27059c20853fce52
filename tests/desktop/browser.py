"""The real window through WebKitWebDriver, and pictures that are not blank (desktop guide 5)."""
import base64
import io
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

from PIL import Image

from desktop import until

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class WindowDriver:
    """Starts the application through the driver; the session is its window."""

    def __init__(self, desktop, program, *args):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        env = {**desktop.env, "TAURI_WEBVIEW_AUTOMATION": "true"}
        self.log_path = desktop.folder / "driver.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(["WebKitWebDriver", f"--port={self.port}", "--host=127.0.0.1"], env=env,
                                            stdout=log, stderr=log, start_new_session=True)
        until(self._listening, "the driver", 15)
        capabilities = {"webkitgtk:browserOptions": {"binary": program, "args": list(args)}}
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}}, 60)
        self.session = answer["sessionId"]

    def _listening(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def call(self, method, path, body=None, seconds=20):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()}") from None

    def do(self, method, path, body=None):
        return self.call(method, f"/session/{self.session}{path}", body)

    def script(self, text, *args):
        return self.do("POST", "/execute/sync", {"script": text, "args": list(args)})

    def awaited(self, text):
        """Runs a script whose last argument is the callback."""
        return self.do("POST", "/execute/async", {"script": text, "args": []})

    def find(self, test_id, seconds=15):
        def probe():
            try:
                return self.do("POST", "/element", {"using": "css selector", "value": f'[data-testid="{test_id}"]'})[ELEMENT]
            except AssertionError:
                return None

        return until(probe, f"an element {test_id}", seconds)

    def click(self, test_id):
        self.do("POST", f"/element/{self.find(test_id)}/click", {})

    def text(self, test_id):
        return self.do("GET", f"/element/{self.find(test_id)}/text")

    def keys(self, test_id, text):
        self.do("POST", f"/element/{self.find(test_id)}/value", {"text": text})

    def picture(self, path):
        """A screenshot after two frames, taken again while it is one single colour."""
        deadline = time.monotonic() + 5
        while True:
            self.awaited("const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(1)))")
            image = Image.open(io.BytesIO(base64.b64decode(self.do("GET", "/screenshot"))))
            if colours(image) > 1:
                image.save(path)
                return image
            assert time.monotonic() < deadline, "the window stays blank"
            time.sleep(0.2)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def close(self):
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(10)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self.process.pid, signal.SIGKILL)


def colours(image):
    found = image.convert("RGB").getcolors(1 << 24)
    return len(found)


def brightness(image):
    """0 black to 255 white, of the middle of a picture."""
    small = image.convert("L").resize((1, 1))
    return small.getpixel((0, 0))
