"""Loading a model: what must be there, and on which device it runs (audio contract 7.1)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from speech_decoding import RATE
from speech_hearing import Hearing
from speech_lines import emit, log


class LoadFailed(Exception):
    """The model cannot be used; the text is a sentence for people."""


def _name(folder: Path) -> str:
    """The model's name; in a Hugging Face cache the folder itself is named after a revision."""
    return folder.parent.parent.name if folder.parent.name == "snapshots" else folder.name


def check_folder(folder: Path) -> None:
    """Raises `LoadFailed` unless everything is there; faster-whisper would try to download what is missing."""
    if not folder.is_dir():
        raise LoadFailed(f"The model folder {folder} does not exist.")
    wanted = ["model.bin", "config.json", "tokenizer.json"]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in ("vocabulary.json", "vocabulary.txt")):
        missing.append("vocabulary.json")
    if missing:
        raise LoadFailed(f"The model folder {folder} lacks {', '.join(missing)}. Download the model again.")


def load(folder: Path, device: str, compute_type: str, threads: int, beam_size: int, batch_size: int) -> Hearing:
    """Import faster-whisper and load a model, with `loading` lines. Raises `LoadFailed`."""
    check_folder(folder)
    emit("loading", progress=0.05)
    try:
        import ctranslate2
        import faster_whisper
    except (ImportError, OSError) as error:
        raise LoadFailed(
            f"faster-whisper is not installed properly: {error}. Run `llama-runner engine whisper install`."
        ) from error
    emit("loading", progress=0.4)

    def attempt(on: str) -> Hearing:
        kind = _compute_type(compute_type, on, ctranslate2)
        model = faster_whisper.WhisperModel(
            str(folder), device=on, compute_type=kind, cpu_threads=threads, local_files_only=True
        )
        model.alignment_heads = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("alignment_heads")
        if on == "cuda":
            # The libraries of CUDA are looked for only when they are used first.
            model.encode(model.feature_extractor(np.zeros(RATE, dtype=np.float32))[:, :3000])
        return Hearing(model, _name(folder), on, kind, beam_size, batch_size)

    wanted = device
    if wanted == "auto":
        wanted = "cuda" if _has_cuda(ctranslate2) else "cpu"
    try:
        if wanted == "cuda":
            try:
                return attempt("cuda")
            except (RuntimeError, ValueError) as error:
                log("warn", f"The GPU cannot be used ({error}). The CPU is used instead.")
        return attempt("cpu")
    except Exception as error:
        raise LoadFailed(f"The model {folder} cannot be loaded: {error}.") from error


def _has_cuda(ctranslate2: Any) -> bool:
    try:
        return bool(ctranslate2.get_cuda_device_count() > 0)
    except RuntimeError:
        return False


def _compute_type(asked: str, device: str, ctranslate2: Any) -> str:
    """What is asked if the device can do it, else the best that it can."""
    try:
        supported = ctranslate2.get_supported_compute_types(device)
    except (RuntimeError, ValueError):
        supported = set()
    if asked not in ("auto", "default"):
        if not supported or asked in supported:
            return asked
        log("warn", f"The {device} cannot compute with {asked}. It is chosen by the program.")
    preferred = ("float16", "int8_float16", "int8", "float32") if device == "cuda" else ("int8", "float32")
    return next((each for each in preferred if each in supported), preferred[0])
