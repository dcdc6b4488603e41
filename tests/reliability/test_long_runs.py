"""The long runs go on where they were stopped, and end in the page."""

import csv
import json

from reliability import faults, fuzz_runs, large, model, page


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_cases_that_failed_are_tried_again(tmp_path):
    out = tmp_path / "model.csv"
    assert model.run(out, 3, 3, seconds=600) == 0
    rows = read(out)
    failed = {**rows[1], "outcome": model.FAILED, "message": "was broken"}
    out.write_text(model._text([rows[0], failed, rows[2]]))
    assert model.move_failed(out) == 1
    assert model.run(out, 3, 3, seconds=600) == 0
    again = {row["number"]: row["outcome"] for row in read(out)}
    assert again == {row["number"]: row["outcome"] for row in rows}
    assert page.summarise_model(out)["mended"] == 1 and page.summarise_model(out)["cases"] == 3


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    spent = []

    def stretch(name, seconds, folder):
        spent.append((name, seconds))
        return {"target": name, "seconds": seconds + 0.5, "crashes": 0}

    monkeypatch.setattr(fuzz_runs, "stretch", stretch)
    for _ in range(2):
        assert fuzz_runs.run(["onnx", "trace"], 5, tmp_path, tmp_path / "fuzz.csv") == 0
    assert fuzz_runs.run(["onnx"], 20, tmp_path, tmp_path / "fuzz.csv") == 0
    assert spent == [("onnx", 5), ("trace", 5), ("onnx", 15)]

    (tmp_path / "faults.json").write_text(json.dumps({"trace": {"kills": 100}}))
    assert faults.run(["trace"], 100, 1, tmp_path / "faults", tmp_path / "faults.json") == 0

    monkeypatch.setattr(large, "SIZES", {"tasks": ((3000,), (300,))})
    for _ in range(2):
        large.run(tmp_path / "large.json", short=True)
    (row,) = json.loads((tmp_path / "large.json").read_text())
    assert row["tasks"] == 300


def test_the_page_is_made_from_the_results(tmp_path, monkeypatch):
    work, results = tmp_path / "work", tmp_path / "results"
    results.mkdir()
    text = page.PAGE.read_text()
    monkeypatch.setattr(page, "RESULTS", results)
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    page.PAGE.write_text(text)
    assert model.run(work / "model.csv", 3, 12, seconds=600) == 0
    (work / "faults.json").write_text('{"run": {"work": "run", "kills": 7, "during": 1, "files": 119, "torn": []}}')
    page.write(work)
    made = page.PAGE.read_text()
    assert made.split(page.BEGIN)[0] == text.split(page.BEGIN)[0]
    assert "12 cases (seeds 3): " in made and "| run | 7 | 1 | 119 | 0 |" in made
    before = made
    page.write(tmp_path / "nothing new")
    assert page.PAGE.read_text() == before
