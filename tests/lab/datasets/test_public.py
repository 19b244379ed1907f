"""Public data sets: each publisher's layout, made up and tiny, is read as written; what is wrong with a file is named."""

import gzip
import os
import wave
from pathlib import Path

import numpy as np
import pytest

from riverdelta.core.errors import ConfigurationError, InvalidInput
from riverdelta.lab.datasets.find import NAMES, data_set, folder_of

REAL = Path(os.environ.get("RIVERDELTA_DATA", "/nonexistent")) / "skab"


def written(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def sensors(day, rows, anomaly):
    head = "datetime;Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS"
    lines = [f"2020-0{day} 10:00:{second:02d};" + "0.5;" * 8 + f"{anomaly};0.0" for second in range(rows)]
    return "\n".join([f"{head};anomaly;changepoint", *lines, ""])


def test_electricity_is_half_hours_in_the_order_of_the_file(tmp_path):
    rows = "".join(f"{at % 48 / 47:.6f},0.1,0.2,0.3,0.4,0.5,{at % 2}\n" for at in range(100))
    written(tmp_path / "elec.csv", "period,nswprice,nswdemand,vicprice,vicdemand,transfer,class\n" + rows)
    split = data_set("electricity").load(tmp_path, tmp_path)
    assert (len(split.first), len(split.later)) == (20, 80)
    assert split.later.columns["slot"][:3].tolist() == [20, 21, 22]
    assert split.later.label[:2].tolist() == [0, 1]
    assert np.diff(split.later.time).max() == 1800


def test_skab_is_in_the_order_of_time_and_its_first_day_trains_the_base(tmp_path):
    written(tmp_path / "data" / "valve1" / "0.csv", sensors("3-09", 4, "1.0"))
    written(tmp_path / "data" / "other" / "1.csv", sensors("2-08", 3, "0.0"))
    written(tmp_path / "data" / "anomaly-free" / "anomaly-free.csv", "datetime;Voltage\n2020-02-08 13:30:47;1.0\n")
    split = data_set("skab").load(tmp_path, tmp_path)
    assert (split.first.label.tolist(), split.later.label.tolist()) == ([0, 0, 0], [1, 1, 1, 1])


@pytest.mark.skipif(not REAL.is_dir(), reason="RIVERDELTA_DATA names no folder with skab")
def test_of_the_pumps_last_day_no_label_is_known_in_time(tmp_path):
    split = data_set("skab").load(REAL, tmp_path)
    assert (len(split.first), len(split.later)) == (11_076, 26_325)
    known = split.later.time < split.later.time[-1] - 86_400
    assert known.sum() == 3_853
    assert split.later.time[known].max() < split.later.time[~known].min() - 7 * 86_400
    flows = [rows.columns["Volume Flow RateRMS"] for rows in (split.later[~known], split.later[known], split.first)]
    ends = np.concatenate([np.quantile(flow, [0.05, 0.95]) for flow in flows])
    assert (np.diff(ends) > 0).all()


def test_traffic_has_one_row_an_hour_and_holidays_last_a_day(tmp_path):
    head = "holiday,temp,rain_1h,snow_1h,clouds_all,weather_main,weather_description,date_time,traffic_volume\n"
    hours = [("Labor Day", "2012-10-08 00:00:00", 10), ("None", "2012-10-08 01:00:00", 20), ("None", "2012-10-08 01:00:00", 20)]
    hours += [("None", "2012-10-09 00:00:00", 30), ("None", "2012-10-09 01:00:00", 40)]
    rows = "".join(f"{day},280.0,0.0,0.0,40,Clouds,few clouds,{when},{volume}\n" for day, when, volume in hours)
    written(tmp_path / "Metro_Interstate_Traffic_Volume.csv", head + rows)
    split = data_set("traffic-i94").load(tmp_path, tmp_path)
    assert (split.first.label.tolist(), split.later.label.tolist()) == ([10, 20], [30, 40])
    assert (split.first.columns["holiday"].tolist(), split.later.columns["holiday"].tolist()) == ([1, 1], [0, 0])
    assert split.later.columns["hour_of_week"].tolist() == [24, 25]
    assert (split.later.columns["weekday"].tolist(), split.later.columns["hour"].tolist()) == ([1, 1], [0, 1])
    assert split.later.columns["time"].tolist() == [1_349_740_800, 1_349_744_400]


def recording(file, samples, rate=8000):
    file.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(file), "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", "not compressed"))
        sound.writeframes(samples.astype("<i2").tobytes())


def test_the_last_speaker_is_the_stream_and_the_publishers_test_recordings_train_nothing(tmp_path):
    draw = np.random.default_rng(0)
    for speaker in ("ada", "ben"):
        for index in (0, 4, 5, 6):
            # The shortest is shorter than a window.
            recording(tmp_path / "recordings" / f"7_{speaker}_{index}.wav", draw.normal(0, 900, 100 + 900 * index))
    split = data_set("spoken-digits").load(tmp_path, tmp_path)
    (known,) = split.held_out.values()
    assert (len(split.first), len(split.later), len(known)) == (2, 4, 2)
    assert set(split.later.columns["speaker"]) == {1}
    assert np.isfinite(split.later.columns["features"]).all()
    ((stream, options),) = split.others.values()
    assert (stream is split.later, [type(each).__name__ for each in options["corrections"]]) == (True, ["Head"])


def test_mq2008_shows_ten_documents_by_bm25_and_says_how_likely_each_position_was_examined(tmp_path):
    draw = np.random.default_rng(0)
    rows = np.column_stack([draw.integers(0, 3, 60), np.repeat(np.arange(5), 12), draw.random((60, 46))])
    for name in ("train", "test"):
        np.save(tmp_path / f"{name}.npy", rows)
    split = data_set("mq2008").load(tmp_path, tmp_path)
    shown = split.later[:10]
    assert set(shown.group) == {0}
    assert (np.diff(shown.columns["X"][:, 24]) <= 0).all()
    assert shown.propensity.tolist() == [np.float32(1 / k) for k in range(1, 11)]
    assert split.later.label[split.later.propensity == 1].mean() > 3 * split.later.label[split.later.propensity < 0.11].mean()
    assert split.held_out["test queries"].label.max() == 2
    assert len(split.others) == 8
    unknown, options = split.others["seed 0, no propensities"]
    assert (unknown.propensity, options) == (None, {})
    assert (unknown.label == split.later.label).all()
    assert (split.others["seed 1"][0].label != split.later.label).any()
    assert split.others["seed 2, positions"][1]["task"].positions == 10


@pytest.fixture
def vectors(monkeypatch):
    """Vectors of length 1 instead of those of the encoder, which takes seconds to load."""
    module = pytest.importorskip("riverdelta.lab.similarity")

    def made(texts, work):
        found = np.float32([[len(text), text.count("a"), 1.0] for text in texts])
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    monkeypatch.setattr(module, "vectors", made)


@pytest.mark.usefixtures("vectors")
def test_cranfield_numbers_queries_by_their_place_and_grades_by_the_publishers_code(tmp_path):
    entries = "".join(f".I {3 * at}\n.T\ntitle\n.W\n{'wing ' * at}a\n" for at in range(1, 11))
    written(tmp_path / "cran.all.1400", entries)
    written(tmp_path / "cran.qry", entries)
    written(tmp_path / "cranqrel", "3 2 1 \n\n3 5 4\n3 6 -1\n \n")
    split = data_set("cranfield").load(tmp_path, tmp_path)
    third = split.later[:10]
    grades = dict(zip(third.columns["document"].tolist(), third.label.tolist(), strict=True))
    assert (grades[1], grades[4], grades[5], sum(grades.values())) == (4, 1, 0, 5)
    written(tmp_path / "cranqrel", " \n")
    with pytest.raises(InvalidInput, match="has no judgements"):
        data_set("cranfield").load(tmp_path, tmp_path)


def test_words_in_common_count_more_if_they_are_rare_and_not_at_all_if_the_texts_lack_them():
    bm25 = pytest.importorskip("riverdelta.lab.similarity").bm25
    found = bm25(["wing flutter", "the wing", "xylophone"], ["the wing flutter", "the wing", "the wing " * 9, "the shock"])
    assert found.shape == (3, 4)
    assert found[0].argmax() == 0
    assert found[0, 0] - found[0, 1] > found[1, 1] - found[1, 3] > 0
    assert not found[2].any()


@pytest.mark.usefixtures("vectors")
def test_liveqa_joins_questions_answers_and_judgements(tmp_path):
    question = '<NLM-QUESTION qid="TQ{0}"><NIST-PARAPHRASE>Is {0} a number?</NIST-PARAPHRASE></NLM-QUESTION>'
    written(tmp_path / "test.xml", f"<Set>{''.join(question.format(at) for at in range(1, 9))}</Set>")
    with gzip.open(tmp_path / "answers.csv.gz", "wt") as file:
        file.write('AnswerID,Answer\nADAM_1.txt,"An answer,\nin lines"\nGHR_2.txt,Another\nGHR_3.txt,Not judged\n')
    judged = "".join(
        f"{at} 4-Excellent ADAM_1.txt\n{at} 1-Incorrect GHR_2.txt\n{at} 2-Related ADAM_1.txt\n" for at in range(8, 0, -1)
    )
    written(tmp_path / "qrels.txt", judged)
    split = data_set("medquad").load(tmp_path, tmp_path)
    assert (len(split.first), len(split.later)) == (4, 12)
    assert split.later.label[:2].tolist() == [3, 0]
    assert split.later.columns["source"][:2].tolist() == [0, 1]
    assert split.later.group[::2].tolist() == [2, 3, 4, 5, 6, 7]
    written(tmp_path / "qrels.txt", "1 5-Perfect ADAM_1.txt\n")
    with pytest.raises(InvalidInput, match=r"qrels.txt has '1 5-Perfect ADAM_1.txt' in line 1; expected such as"):
        data_set("medquad").load(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("period,class\n0.0,1\n", "elec.csv has the columns period, class; expected nswprice, nswdemand"),
        ("period,nswprice,nswdemand,vicprice,vicdemand,transfer,class\n1,2\n", "elec.csv has 2 values in line 2; expected 7"),
        ("", "elec.csv cannot be read as"),
    ],
)
def test_a_wrong_table_is_named_with_what_it_lacks(tmp_path, text, said):
    written(tmp_path / "elec.csv", text)
    with pytest.raises(InvalidInput, match=said):
        data_set("electricity").load(tmp_path, tmp_path)


def test_a_recording_at_another_rate_is_refused(tmp_path):
    recording(tmp_path / "7_ada_0.wav", np.zeros(100), rate=16_000)
    with pytest.raises(InvalidInput, match="16000 samples a second; expected 8000"):
        data_set("spoken-digits").load(tmp_path, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_that_is_missing_or_empty_is_named_with_what_to_type(name, tmp_path, vectors):
    with pytest.raises(ConfigurationError, match=f"give it: riverdelta replay --dataset {name} --data FOLDER"):
        folder_of(name, None, {})
    with pytest.raises(ConfigurationError, match=r"is not a folder"):
        folder_of(name, None, {"RIVERDELTA_DATA": str(tmp_path)})
    with pytest.raises(InvalidInput, match=str(tmp_path)):
        data_set(name).load(tmp_path, tmp_path)
