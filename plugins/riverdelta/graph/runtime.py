"""Providers: which of ONNX Runtime's execution providers work on this machine."""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from riverdelta.core.errors import ConfigurationError, ModelError

try:
    import onnxruntime
except ImportError as error:  # both wheels install this module, and pip may have removed the wrong one
    raise ConfigurationError(
        "ONNX Runtime is not installed; install one of onnxruntime-gpu (Linux x86-64) or onnxruntime, never both"
    ) from error

_log = logging.getLogger(__name__)
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
#: y = x, the smallest model that shows whether a device works (ONNX IR 8, opset 13).
_IDENTITY = bytes.fromhex(
    "08083a3b0a120a017812017922084964656e746974793a001201675a100a0178120b0a09080112050a0312014e62100a0179120b0a09080112050a03"
    "12014e42040a00100d"
)


@functools.cache
def choose_providers() -> tuple[str, ...]:
    """Return CUDA and CPU if a CUDA device works, else CPU only; the choice is logged once.

    A wheel that lists CUDA may still find no device: a small session is opened on it to find out.
    """
    if _CUDA in onnxruntime.get_available_providers() and _works(_CUDA):
        _log.info("scoring on CUDA (ONNX Runtime %s)", onnxruntime.__version__)
        return (_CUDA, _CPU)
    _log.info("scoring on the CPU (ONNX Runtime %s; no CUDA device works here)", onnxruntime.__version__)
    return (_CPU,)


def open_session(
    model: Path | bytes, providers: Sequence[str] | None = None, threads: int = 1, source: Path | None = None
) -> Any:
    """Open an `onnxruntime.InferenceSession`; raises `ModelError` with the reason when the model does not load.

    `threads` is the number of threads inside one operator; 0 leaves it to ONNX Runtime. One thread uses the least CPU time at
    any size, and has the lowest latency up to about 500 rows of a model of DeepFM's size; a large base may need more. `source`
    is the file of a model that is given as bytes, beside which its external data is.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # tables are graph inputs on purpose, which ONNX Runtime would warn about
    options.intra_op_num_threads = threads
    # A thread that spins while it waits takes the core from the other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if source is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(source.parent.resolve()))
    given = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(given, options, providers=list(providers or choose_providers()))
    except Exception as error:  # ONNX Runtime's errors share no base class but Exception
        name = source or ("the model" if isinstance(model, bytes) else model)
        raise ModelError(f"ONNX Runtime cannot open {name}: {error}") from error


@functools.cache
def newest(domain: str | None) -> int | None:
    """Return the newest opset of a domain that ONNX Runtime opens, or for None the newest IR version; None if it says neither.

    >>> newest("") >= 13 and newest(None) >= 8
    True
    """
    beyond = _IDENTITY[:-1] + b"\x7f"
    if domain is None:
        beyond = b"\x08\x7f" + _IDENTITY[2:]
    elif domain:
        name = domain.encode()
        fields = bytes((0x0A, len(name))) + name + b"\x10\x7f"
        beyond = _IDENTITY + bytes((0x42, len(fields))) + fields
    try:
        open_session(beyond, (_CPU,))
    except ModelError as error:
        found = re.search(r"till opset (\d+)|max supported IR version: (\d+)", str(error))
        return int(found[1] or found[2]) if found else None
    return None


def check_versions(path: Path, ir: int, opsets: Mapping[str, int]) -> None:
    """Raise `ModelError` naming the base, if its IR version or an opset of ONNX is newer than ONNX Runtime supports."""
    here = f"ONNX Runtime {onnxruntime.__version__} supports up to"
    for domain in ("", "ai.onnx.ml"):
        version, most = opsets.get(domain, 0), newest(domain)
        if most is not None and version > most:
            option = f"target_opset={{{domain!r}: {most}}}" if domain else f"opset_version={most}"
            how = "skl2onnx: to_onnx" if domain else "torch.onnx.export"
            raise ModelError(
                f"{path.name} has opset {version} of {domain or 'ai.onnx'}; {here} {most}: export it again with {option} "
                f"({how}), or install a newer ONNX Runtime"
            )
    if (most := newest(None)) is not None and ir > most:
        raise ModelError(
            f"{path.name} has IR version {ir}; {here} {most}: write model = onnx.load({path.name!r}); "
            f"model.ir_version = {most}; onnx.save(model, {path.name!r}), or install a newer ONNX Runtime"
        )


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
        session = onnxruntime.InferenceSession(_IDENTITY, options, providers=[provider])
    except Exception:  # a missing driver or library: the reason differs by machine, the result does not
        return False
    return provider in session.get_providers()
