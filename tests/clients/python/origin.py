"""A fake Ollama registry and Hugging Face hub on loopback (`fake-origin` of testkit), and split model files for it."""
import json
import os
import pathlib
import struct
import subprocess
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Origin:
    """A running `fake-origin`; `config` is what a server needs to ask it instead of the internet."""

    def __init__(self):
        binary = os.environ.get("FAKE_ORIGIN_BIN") or ROOT / "target" / "debug" / "fake-origin"
        # It ends with its standard input, so also with us.
        self.process = subprocess.Popen([str(binary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready = json.loads(self.process.stdout.readline())
        self.url, self.host = ready["url"], ready["host"]
        self.config = {"downloads": {"huggingface_base_url": self.url, "ollama_registry_base_url": self.url,
                                     "allow_private_hosts": True}}

    def _ask(self, path, body=None):
        with urllib.request.urlopen(self.url + path, body and json.dumps(body).encode(), timeout=10) as answer:
            return json.loads(answer.read())

    def set_up(self, **setup):
        """Adds `files`, `models`, `repos`, `faults` (see testkit's OriginSetup)."""
        return self._ask("/__fake/setup", setup)

    def requests(self):
        """Every request so far: `host`, `method`, `path`, `headers`, `status`, `leak`."""
        return self._ask("/__fake/requests")

    def stop(self):
        self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(10)


def split_gguf(path, count):
    """A GGUF file as the parts of a split model, with all tensors where they were in order."""
    data, at = path.read_bytes(), 4

    def take(form):
        nonlocal at
        value = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value[0] if len(value) == 1 else value  # a form of padding gives nothing

    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def skip(kind):
        nonlocal at
        if kind == 8:
            take(f"{take('Q')}x")
        elif kind == 9:
            kind, length = take("IQ")
            for _ in range(length):
                skip(kind)
        else:
            at += sizes[kind]

    version, tensors, keys = take("IQQ")
    first_key = at
    for _ in range(keys):
        skip(8)
        skip(take("I"))
    pairs, infos = data[first_key:at], []
    for _ in range(tensors):
        name = take(f"{take('Q')}s")
        shape = [take("Q") for _ in range(take("I"))]
        infos.append((name, shape, *take("IQ")))
    base = at + -at % 32
    ends = sorted(offset for *_, offset in infos)[1:] + [len(data) - base]
    end_of = dict(zip(sorted(offset for *_, offset in infos), ends))
    share = -(-tensors // count)
    parts = []
    for number in range(count):
        own = infos[number * share:(number + 1) * share]
        split = b"".join(struct.pack("<Q", len(key)) + key + struct.pack("<I" + form, kind, value) for key, kind, form, value in
                         [(b"split.no", 2, "H", number), (b"split.count", 2, "H", count),
                          (b"split.tensors.count", 5, "i", tensors)])
        head = b"GGUF" + struct.pack("<IQQ", version, len(own), 3 + (0 if number else keys))
        head += split if number else pairs + split
        body = b""
        for name, shape, kind, offset in own:
            head += struct.pack("<Q", len(name)) + name + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            head += struct.pack("<IQ", kind, len(body))
            tensor = data[base + offset:base + end_of[offset]]
            body += tensor + bytes(-len(tensor) % 32)
        parts.append(head + bytes(-len(head) % 32) + body)
    return parts
