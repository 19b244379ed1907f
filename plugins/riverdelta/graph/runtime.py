"""Providers: which of ONNX Runtime's execution providers work on this machine."""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from riverdelta.core.errors import ConfigurationError, ModelError

try:
    import onnxruntime
except ImportError as error:  # both wheels install this module, and pip may have removed the wrong one
    raise ConfigurationError(
        "ONNX Runtime is not installed; install one of onnxruntime-gpu (Linux x86-64) or onnxruntime, never both"
    ) from error

#: The version of ONNX Runtime.
VERSION: str = onnxruntime.__version__
_log = logging.getLogger(__name__)
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
#: The domains of the operators of onnxruntime-extensions.
EXTENSIONS = ("ai.onnx.contrib", "com.microsoft.extensions")
_INSTALL = "pip install 'riverdelta[text]'"
#: y = x, the smallest model that shows whether a device works (ONNX IR 8, opset 13).
SMALLEST = bytes.fromhex(
    "08083a3b0a120a017812017922084964656e746974793a001201675a100a0178120b0a09080112050a0312014e62100a0179120b0a09080112050a03"
    "12014e42040a00100d"
)


@functools.cache
def choose_providers() -> tuple[str, ...]:
    """Return CUDA and CPU if a CUDA device works, else CPU only; the choice is logged once.

    A wheel that lists CUDA may still find no device: a small session is opened on it to find out.
    """
    if _CUDA in onnxruntime.get_available_providers() and _works(_CUDA):
        _log.info("scoring on CUDA (ONNX Runtime %s)", VERSION)
        return (_CUDA, _CPU)
    _log.info("scoring on the CPU (ONNX Runtime %s; no CUDA device works here)", VERSION)
    return (_CPU,)


def open_session(
    model: Path | bytes, providers: Sequence[str] | None = None, threads: int = 1, source: Path | None = None
) -> Any:
    """Open an `onnxruntime.InferenceSession`; raises `ModelError` with the reason when the model does not load.

    `threads` is the number of threads inside one operator; 0 leaves it to ONNX Runtime. One thread uses the least CPU time at
    any size, and has the lowest latency up to about 500 rows of a model of DeepFM's size; a large base may need more. `source`
    is the file of a model that is given as bytes, beside which its external data is. Operators of onnxruntime-extensions are
    loaded where a model has any; they run on the CPU whatever the provider is.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # tables are graph inputs on purpose, which ONNX Runtime would warn about
    options.intra_op_num_threads = threads
    # A thread that spins while it waits takes the core from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if source is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(source.parent.resolve()))
    given, chosen = model if isinstance(model, bytes) else str(model), list(providers or choose_providers())
    name = source or ("the model" if isinstance(model, bytes) else model)
    try:
        try:
            return onnxruntime.InferenceSession(given, options, providers=chosen)
        except Exception as error:  # ONNX Runtime's errors share no base class but Exception
            if not any(f"{domain}:" in str(error) for domain in EXTENSIONS):
                raise
            options.register_custom_ops_library(extensions())
            return onnxruntime.InferenceSession(given, options, providers=chosen)
    except Exception as error:
        hint = _LOCALE.format(found[1]) if (found := re.search(r"locale with name:(.*?):locale::", str(error))) else ""
        raise ModelError(f"ONNX Runtime cannot open {name}: {str(error).strip()}{hint}") from error


_LOCALE = (
    "; its StringNormalizer needs the locale {}, which this machine lacks: install it, or export the model with one that every "
    "Linux has: to_onnx(model, ..., options={{TfidfVectorizer: {{'locale': 'C.UTF-8'}}}})"
)


def quiet() -> Any:
    """Return the options of a run whose failure is expected, and not logged."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    return options


@functools.cache
def extensions() -> str:
    """Return the path of the operators of onnxruntime-extensions; raises `ModelError` if it is not installed.

    It is only imported for a model that has them: that takes a second.
    """
    try:
        return str(importlib.import_module("onnxruntime_extensions").get_library_path())
    except ImportError:
        raise ModelError(f"the operators are those of onnxruntime-extensions, which is not installed: {_INSTALL}") from None


def check_opens(model: Path) -> None:
    """Raise `ModelError`, with the reason, where no device here can open the model.

    The CPU is tried first: a session on another device would occupy it until this process ends.
    """
    try:
        open_session(model, (_CPU,))
    except ModelError:
        if choose_providers() == (_CPU,):
            raise


def _works(provider: str) -> bool:
    try:
        ctypes.CDLL("libcuda.so.1" if os.name == "posix" else "nvcuda.dll")
    except OSError:  # without a driver ONNX Runtime would only log errors
        return False
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(SMALLEST, options, providers=[provider])
    except Exception:  # a missing driver or library: the reason differs by machine, the result does not
        return False
    return provider in session.get_providers()
