"""Voice engines: espeak-ng, the platform's own, Kokoro and Piper (audio contract 8).

An engine that is a program gets its text on standard input, never on its command line, where every user of the machine
could read it.
"""

from __future__ import annotations

import importlib
import io
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from speech_jobs import Job, Refused

#: Words per minute of espeak-ng and of macOS at speed 1, and what they may become.
_WORDS_PER_MINUTE = 175
_SLOWEST, _FASTEST = 80, 450
#: Seconds that an engine may take to list its voices.
_LISTING_S = 20
#: Names of OpenAI's voices.
OPENAI = (
    "alloy",
    "ash",
    "ballad",
    "coral",
    "echo",
    "fable",
    "onyx",
    "nova",
    "sage",
    "shimmer",
    "verse",
    "marin",
    "cedar",
)


class NoEngine(Exception):
    """The engine cannot be used here; the text is a sentence for people."""


@dataclass(frozen=True)
class Voice:
    """A voice: `domain::audio::Voice`."""

    id: str
    name: str
    language: str | None = None
    gender: str | None = None


@dataclass(frozen=True)
class Sound:
    """Mono sound of 16 bit."""

    rate: int
    samples: NDArray[np.int16]


class VoiceEngine(Protocol):
    """What speaks."""

    #: The backend's name.
    backend: str

    def voices(self) -> list[Voice]:
        """The voices to choose from."""

    def voice(self, asked: str) -> str | None:
        """The engine's own name for a voice that is asked for, be it one of OpenAI's; `None`: it has none such."""

    def say(self, sentence: str, voice: str, speed: float, job: Job) -> Iterator[Sound]:
        """Speak one sentence in a voice that `voice` returned."""


def open_engine(model: str, device: str) -> VoiceEngine:
    """The engine that `--model` names: `espeak-ng`, `platform`, or a folder with a model. Raises `NoEngine`."""
    if model == "espeak-ng":
        return Espeak()
    if model == "platform":
        if sys.platform == "darwin":
            return MacSay()
        if sys.platform == "win32":
            return Sapi()
        raise NoEngine("This system has no voices of its own. Use espeak-ng.")
    folder = Path(model)
    if not folder.is_dir():
        raise NoEngine(f"There is no voice engine '{model}' and no folder of that name.")
    if any(folder.glob("*.onnx.json")):
        return Piper(folder, device)
    if any(folder.glob("*.onnx")) and any(folder.glob("voices*.bin")):
        return Kokoro(folder)
    raise NoEngine(
        f"The folder {folder} holds no voices: neither `*.onnx` with `voices*.bin` (Kokoro) nor `*.onnx.json` (Piper)."
    )


# Programs.


def _run(command: list[str], text: bytes, job: Job, env: dict[str, str] | None = None) -> bytes:
    """Run a program with `text` on its standard input and return its output. It is killed when the client leaves."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, **_NO_WINDOW
    ) as process:
        try:
            with job.while_running(process.kill):
                output, complaint = process.communicate(text)
        finally:
            process.kill()
    job.sign()
    if process.returncode != 0:
        said = bytes(complaint).decode(errors="replace").strip()[-300:]
        raise RuntimeError(f"{Path(command[0]).name} ended with {process.returncode}: {said}")
    return bytes(output)


def _list(command: list[str]) -> str:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LISTING_S, check=True, **_NO_WINDOW
    )
    return bytes(done.stdout).decode("utf-8", errors="replace")


_NO_WINDOW: dict[str, Any] = {"creationflags": 0x08000000} if sys.platform == "win32" else {}


def _wav(data: bytes) -> Sound:
    """Read a WAV file whose length may not be known. The engines here write mono sound of 16 bit."""
    file = io.BytesIO(data)
    rate = 0
    if file.read(12)[8:] != b"WAVE":
        raise RuntimeError("the voice engine made no sound")
    while len(head := file.read(8)) == 8:
        kind, size = struct.unpack("<4sI", head)
        if kind == b"data":
            sound = file.read(size)
            return Sound(rate, np.frombuffer(sound[: len(sound) // 2 * 2], dtype="<i2"))
        body = file.read(size + size % 2)
        if kind == b"fmt ":
            rate = int(struct.unpack_from("<I", body, 4)[0])
    return Sound(rate or 16_000, np.zeros(0, dtype=np.int16))


def _words_per_minute(speed: float) -> int:
    return min(_FASTEST, max(_SLOWEST, round(_WORDS_PER_MINUTE * speed)))


def _spread(voices: list[Voice]) -> dict[str, str]:
    """OpenAI's names spread over the voices there are, English ones first."""
    english = [each for each in voices if (each.language or "").lower().startswith("en")] or voices
    return {name: english[number % len(english)].id for number, name in enumerate(OPENAI)} if english else {}


class Espeak:
    """espeak-ng: the system's program, else the library of the wheel `espeakng-loader` in a process of its own."""

    backend = "espeak-ng"

    #: Audio contract 8.
    _OPENAI = {
        "alloy": "en-us",
        "ash": "en-us+m1",
        "ballad": "en-gb+m2",
        "coral": "en-us+f2",
        "echo": "en-us+m3",
        "fable": "en-gb",
        "onyx": "en-us+m7",
        "nova": "en-us+f3",
        "sage": "en-gb+f4",
        "shimmer": "en-us+f5",
        "verse": "en-us+m4",
        "marin": "en-us+f1",
        "cedar": "en-us+m5",
    }
    _LINE = re.compile(
        r"^\s*\d+\s+(?P<language>\S+)\s+[^/\s]*/(?P<gender>\S)\s+(?P<name>\S+)\s+(?P<file>\S+)(?P<others>.*)$",
        re.MULTILINE,
    )
    _OTHER = re.compile(r"\((\S+) (\d+)\)")

    def __init__(self) -> None:
        program = shutil.which("espeak-ng")
        if program is not None:
            self._command = [program]
        else:
            self._command = [sys.executable, "-I", str(Path(__file__).with_name("speech_espeak.py"))]
        try:
            # Those in `mb` need another program's data.
            listed = self._LINE.finditer(_list([*self._command, "--voices"]))
            lines = [each for each in listed if not each["file"].startswith("mb/")]
            variants = self._LINE.finditer(_list([*self._command, "--voices=variant"]))
            self._variants = {found["file"].rsplit("/", 1)[-1] for found in variants}
        except (OSError, subprocess.SubprocessError) as error:
            raise NoEngine(
                f"espeak-ng cannot be run: {error}. Install espeak-ng, or run `llama-runner engine whisper install`."
            ) from error
        if not lines:
            raise NoEngine("espeak-ng has no voices. Install it again.")
        self._voices = [
            Voice(each["language"], each["name"].replace("_", " "), each["language"], _gender(each["gender"]))
            for each in lines
        ]
        # What a voice may be asked for by: its language, its name, and the further languages it is the best one for.
        # What the program is told is the voice's file: it does not take a variant with every language.
        names: list[tuple[int, str, str]] = []
        for each in lines:
            names += [(0, each["language"], each["file"]), (0, each["name"].replace("_", " "), each["file"])]
            names += [(int(number), language, each["file"]) for language, number in self._OTHER.findall(each["others"])]
        self._files: dict[str, str] = {}
        for _, name, file in sorted(names, key=lambda each: each[0]):
            self._files.setdefault(name.lower(), file)

    def voices(self) -> list[Voice]:
        return self._voices

    def voice(self, asked: str) -> str | None:
        name, plus, variant = self._OPENAI.get(asked.lower(), asked).partition("+")
        file = self._files.get(name.lower())
        if file is None or (plus and variant not in self._variants):
            return None
        return f"{file}+{variant}" if plus else file

    def say(self, sentence: str, voice: str, speed: float, job: Job) -> Iterator[Sound]:
        command = [*self._command, "--stdin", "--stdout", "-b", "1", "-v", voice, "-s", str(_words_per_minute(speed))]
        # Two brackets would begin phonemes.
        yield _wav(_run(command, sentence.replace("[[", "[ [").encode(), job))


def _gender(letter: str) -> str | None:
    return {"M": "male", "F": "female"}.get(letter)


class MacSay:
    """`say` of macOS."""

    backend = "platform"
    _LINE = re.compile(r"^(?P<name>.+?)\s{2,}(?P<language>[a-z]{2,3}_\w+)\s", re.MULTILINE)

    def __init__(self) -> None:
        try:
            lines = self._LINE.finditer(_list(["/usr/bin/say", "-v", "?"]))
        except (OSError, subprocess.SubprocessError) as error:
            raise NoEngine(f"`say` cannot be run: {error}.") from error
        self._voices = [Voice(found["name"], found["name"], found["language"].replace("_", "-")) for found in lines]
        self._openai = _spread(self._voices)

    def voices(self) -> list[Voice]:
        return self._voices

    def voice(self, asked: str) -> str | None:
        return _by_name(self._voices, self._openai.get(asked.lower(), asked))

    def say(self, sentence: str, voice: str, speed: float, job: Job) -> Iterator[Sound]:
        with tempfile.TemporaryDirectory(prefix="llama-runner-") as folder:
            path = Path(folder) / "sound.wav"
            form = ["--file-format=WAVE", "--data-format=LEI16@24000"]
            _run(
                ["/usr/bin/say", "-v", voice, "-r", str(_words_per_minute(speed)), "-o", str(path), *form, "-f", "-"],
                sentence.encode(),
                job,
            )
            yield _wav(path.read_bytes())


class Sapi:
    """The voices of Windows, through PowerShell."""

    backend = "platform"
    _SPEAK = (
        "[Console]::InputEncoding=[Text.Encoding]::UTF8;Add-Type -AssemblyName System.Speech;"
        "$s=New-Object System.Speech.Synthesis.SpeechSynthesizer;"
        "$s.SelectVoice($env:LR_VOICE);$s.Rate=[int]$env:LR_RATE;"
        "$f=New-Object System.Speech.AudioFormat.SpeechAudioFormatInfo("
        "24000,[System.Speech.AudioFormat.AudioBitsPerSample]::Sixteen,[System.Speech.AudioFormat.AudioChannel]::Mono);"
        "$s.SetOutputToWaveFile($env:LR_FILE,$f);"
        "$s.Speak([Console]::In.ReadToEnd());$s.Dispose()"
    )
    _VOICES = (
        "[Console]::OutputEncoding=[Text.Encoding]::UTF8;Add-Type -AssemblyName System.Speech;"
        "(New-Object System.Speech.Synthesis.SpeechSynthesizer).GetInstalledVoices()|"
        'ForEach-Object{$v=$_.VoiceInfo;"$($v.Name)|$($v.Culture)|$($v.Gender)"}'
    )

    def __init__(self) -> None:
        system = os.environ.get("SYSTEMROOT", r"C:\Windows")
        self._command = [
            rf"{system}\System32\WindowsPowerShell\v1.0\powershell.exe",
            "-NoProfile",
            "-NonInteractive",
            "-Command",
        ]
        try:
            lines = [line.split("|") for line in _list([*self._command, self._VOICES]).splitlines()]
        except (OSError, subprocess.SubprocessError) as error:
            raise NoEngine(f"The voices of Windows cannot be used: {error}.") from error
        self._voices = [Voice(line[0], line[0], line[1], line[2].lower()) for line in lines if len(line) == 3]
        self._openai = _spread(self._voices)

    def voices(self) -> list[Voice]:
        return self._voices

    def voice(self, asked: str) -> str | None:
        return _by_name(self._voices, self._openai.get(asked.lower(), asked))

    def say(self, sentence: str, voice: str, speed: float, job: Job) -> Iterator[Sound]:
        with tempfile.TemporaryDirectory(prefix="llama-runner-") as folder:
            path = Path(folder) / "sound.wav"
            # Its rate goes from -10, a third of the speed, to 10, three times the speed.
            rate = min(10, max(-10, round(10 * math.log(speed, 3))))
            env = {**os.environ, "LR_VOICE": voice, "LR_RATE": str(rate), "LR_FILE": str(path)}
            _run([*self._command, self._SPEAK], sentence.encode(), job, env)
            yield _wav(path.read_bytes())


def _by_name(voices: list[Voice], asked: str) -> str | None:
    return next((each.id for each in voices if each.id.lower() == asked.lower()), None)


# Models.


def _package(name: str, what: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise NoEngine(f"{what} is not installed: {error}.") from error


def _to_int16(samples: NDArray[Any]) -> NDArray[np.int16]:
    scaled: NDArray[np.int16] = (np.clip(samples.reshape(-1), -1.0, 1.0) * 32767.0).astype(np.int16)
    return scaled


class Kokoro:
    """Kokoro by `kokoro-onnx`. The folder holds the model `*.onnx` and `voices*.bin`."""

    backend = "kokoro"
    #: The package refuses others.
    _SLOWEST, _FASTEST = 0.5, 2.0
    #: Silence after a sentence, in seconds; the package trims its own.
    _PAUSE_S = 0.25
    #: What the first letter of a voice means to espeak-ng, which finds its phonemes.
    _LANGUAGES = {
        "a": "en-us",
        "b": "en-gb",
        "e": "es",
        "f": "fr-fr",
        "h": "hi",
        "i": "it",
        "j": "ja",
        "p": "pt-br",
        "z": "cmn",
    }
    _OPENAI = {
        "alloy": "af_alloy",
        "ash": "am_adam",
        "ballad": "bm_george",
        "coral": "af_bella",
        "echo": "am_echo",
        "fable": "bm_fable",
        "onyx": "am_onyx",
        "nova": "af_nova",
        "sage": "bf_emma",
        "shimmer": "af_sky",
        "verse": "am_michael",
        "marin": "af_heart",
        "cedar": "am_fenrir",
    }

    def __init__(self, folder: Path) -> None:
        package = _package("kokoro_onnx", "Kokoro")
        model, names = sorted(folder.glob("*.onnx"))[0], sorted(folder.glob("voices*.bin"))[0]
        try:
            self._model = package.Kokoro(str(model), str(names))
            ids = sorted(self._model.get_voices())
        except Exception as error:
            raise NoEngine(f"The Kokoro model in {folder} cannot be loaded: {error}.") from error
        self._voices = [
            Voice(each, each[3:].capitalize() or each, self._language(each), self._gender(each)) for each in ids
        ]
        self._spread = _spread(self._voices)

    def _language(self, voice: str) -> str:
        return self._LANGUAGES.get(voice[:1], "en-us")

    def _gender(self, voice: str) -> str | None:
        return _gender(voice[1:2].upper())

    def voices(self) -> list[Voice]:
        return self._voices

    def voice(self, asked: str) -> str | None:
        name = asked.lower()
        return _by_name(self._voices, self._OPENAI.get(name, name)) or self._spread.get(name)

    def say(self, sentence: str, voice: str, speed: float, job: Job) -> Iterator[Sound]:
        if not any(each.isalnum() for each in sentence):
            # Nothing to pronounce, which the package takes for an error.
            return
        speed = min(self._FASTEST, max(self._SLOWEST, speed))
        samples, rate = self._model.create(sentence, voice=voice, speed=speed, lang=self._language(voice))
        yield Sound(
            rate, _to_int16(np.concatenate([samples, np.zeros(int(rate * self._PAUSE_S), dtype=samples.dtype)]))
        )


class Piper:
    """Piper by `piper-tts`. The folder holds voices, `NAME.onnx` with `NAME.onnx.json`, loaded when first used."""

    backend = "piper"

    def __init__(self, folder: Path, device: str) -> None:
        self._package = _package("piper", "Piper")
        self._folder = folder
        self._cuda = device == "cuda"
        self._loaded: dict[str, Any] = {}
        ids = sorted(path.name.removesuffix(".onnx.json") for path in folder.glob("*.onnx.json"))
        # NAME begins with its language: `en_US-lessac-medium`.
        self._voices = [
            Voice(each, each.replace("_", " ").replace("-", " "), each.split("-")[0].replace("_", "-"))
            for each in ids
            if (folder / f"{each}.onnx").is_file()
        ]
        if not self._voices:
            raise NoEngine(f"The folder {folder} holds no whole Piper voice.")
        self._openai = _spread(self._voices)

    def voices(self) -> list[Voice]:
        return self._voices

    def voice(self, asked: str) -> str | None:
        return _by_name(self._voices, self._openai.get(asked.lower(), asked))

    def say(self, sentence: str, voice: str, speed: float, job: Job) -> Iterator[Sound]:
        model = self._loaded.get(voice)
        if model is None:
            model = self._loaded[voice] = self._package.PiperVoice.load(
                str(self._folder / f"{voice}.onnx"), use_cuda=self._cuda
            )
        usual = model.config.length_scale or 1.0
        for chunk in model.synthesize(sentence, self._package.SynthesisConfig(length_scale=usual / speed)):
            job.sign()
            yield Sound(chunk.sample_rate, np.frombuffer(chunk.audio_int16_bytes, dtype="<i2"))


def not_found(engine: VoiceEngine, asked: str) -> Refused:
    """The answer to a voice that there is not."""
    some = ", ".join(each.id for each in engine.voices()[:8])
    return Refused(
        400, "voice_not_found", f"There is no voice '{asked}'. Use one of OpenAI's, such as alloy, or one of: {some}."
    )
