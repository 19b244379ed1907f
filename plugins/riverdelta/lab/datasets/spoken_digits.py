"""Free Spoken Digit Dataset: digits of six speakers, of whom the base has never heard the last."""

from __future__ import annotations

import re
import wave
from dataclasses import replace
from pathlib import Path

import numpy as np

from riverdelta.core.errors import InvalidInput
from riverdelta.core.features import Floats, Schema
from riverdelta.core.losses import Multiclass
from riverdelta.corrections.entity import Entity
from riverdelta.corrections.head import Head
from riverdelta.lab.datasets.dataset import DataSet, Other, Split
from riverdelta.lab.stream import Stream
from riverdelta.learning.definition import Definition

_NAME = re.compile(r"(\d)_(\w+)_(\d+)\.wav")
_RATE, _WINDOW, _HOP, _BANDS, _PARTS = 8_000, 256, 128, 24, 8
#: The publisher's test recordings of each digit and speaker.
_TEST = 5
#: Above the default, as tens of utterances must change answers.
_VARIANCE = 2.0
_LOSS = Multiclass([str(digit) for digit in range(10)])


class SpokenDigits(DataSet):
    """The base is trained on all speakers but the last by name, whose recordings are the stream, each labelled at once.

    Each speaker has a head of their own, so that the others keep the base's answers; beside it, one head for all speakers.
    """

    name = "spoken-digits"
    about = "the digit spoken; base: a small network on log-mel features of five speakers, stream: the sixth"
    measure = "accuracy"
    after = (10, 30, 100)

    def load(self, folder: Path, work: Path) -> Split:
        found = [(match, file) for file in sorted(folder.rglob("*.wav")) if (match := _NAME.fullmatch(file.name))]
        if not found:
            raise InvalidInput(f"{folder} has no recordings; expected files such as recordings/7_jackson_32.wav")
        speakers = sorted({match[2] for match, _ in found})
        digit, speaker, index = (
            np.array(values) for values in zip(*((int(m[1]), speakers.index(m[2]), int(m[3])) for m, _ in found), strict=True)
        )
        columns = {"features": np.stack([features(file) for _, file in found]), "speaker": speaker}
        rows = Stream(self.name, columns, digit.astype(np.float32), np.zeros(len(digit)), loss=_LOSS)
        new, test = speaker == len(speakers) - 1, index < _TEST
        later = rows[np.random.default_rng(0).permutation(np.flatnonzero(new))]
        later = replace(later, time=np.arange(len(later), dtype=np.float64))
        known = {"speakers that the base knows": rows[~new & test]}
        one_head: Other = later, {"corrections": [Head("voice", variance=_VARIANCE)]}
        return Split(rows[~new & ~test], later, known, {"one head for all speakers": one_head})

    def train(self, first: Stream, path: Path) -> None:
        from riverdelta.lab.network import train_network

        train_network(first.columns["features"], first.label, _LOSS.outputs, path)

    def definition(self, base: Path) -> Definition:
        return Definition(
            name="digits",
            base=base,
            output="logits",
            taps={"voice": "hidden"},
            columns=Schema.of({"speaker": "int64"}),
            task=_LOSS,
            corrections=[Entity("speaker", on=["voice"], variance=_VARIANCE)],
        )


def features(file: Path) -> Floats:
    """Return log-mel energies in 24 bands and 8 parts of a recording, float32[192], each recording's mean taken away."""
    try:
        with wave.open(str(file)) as sound:
            if (rate := sound.getframerate()) != _RATE:
                raise InvalidInput(f"{file} has {rate} samples a second; expected {_RATE}")
            signal = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 2**15
    except (wave.Error, EOFError) as error:
        raise InvalidInput(f"{file} is not a WAV file: {error}") from error
    signal = np.pad(signal, (0, max(0, _WINDOW - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, _WINDOW)[::_HOP] * np.hanning(_WINDOW)
    energy = np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ _mel().T
    log = np.log(energy + 1e-6)
    parts = [log[rows].mean(0) if len(rows) else log.mean(0) for rows in np.array_split(np.arange(len(log)), _PARTS)]
    return np.asarray(np.concatenate(parts) - log.mean(), np.float32)


def _mel() -> Floats:
    """Return triangular filters float32[bands, frequencies], equally wide in mel (O'Shaughnessy 1987)."""
    ends = 700.0 * (10.0 ** (np.linspace(0, 2595 * np.log10(1 + _RATE / 1400.0), _BANDS + 2) / 2595) - 1)
    at = np.fft.rfftfreq(_WINDOW, 1.0 / _RATE)
    low, middle, high = (ends[k : k + _BANDS, None] for k in range(3))
    sides = (at - low) / (middle - low), (high - at) / (high - middle)
    return np.asarray(np.clip(np.minimum(*sides), 0, None), np.float32)


DATASET = SpokenDigits()
