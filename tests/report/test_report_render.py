"""The report as a file: drawn from study.json alone, self-contained, escaped, small, the same every time."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser

import pytest
import torch

from tangrams.study.report import Finding, findings, png, render

FIVE_MEGABYTES = 5 * 2**20
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Elements, text by element, and whether every element is closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes {self.open[-1]}"
        self.open.pop()

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def text(self):
        return " ".join(data for tag, data in self.texts if tag not in ("script", "style"))


def drawn_page(study, tmp_path):
    text = render(study, tmp_path / "report.html").read_text(encoding="utf-8")
    return text, Page(text)


def test_a_report_is_one_well_formed_file_below_five_megabytes(any_study, tmp_path):
    text, page = drawn_page(any_study, tmp_path)
    assert len(text.encode()) < FIVE_MEGABYTES
    assert len(page.ids) == len(set(page.ids))
    assert {
        "glance",
        "explanations",
        "labels",
        "redundancy",
        "richness",
        "fragility",
        "layers",
        "next",
        "again",
    } <= set(page.ids)
    targets = [a["href"][1:] for tag, a in page.elements if tag == "a" and a.get("href", "").startswith("#")]
    assert set(targets) <= set(page.ids) | set(any_study["samples"])


def test_a_report_names_no_other_place_to_load_from(any_study, tmp_path):
    text, page = drawn_page(any_study, tmp_path)
    for tag, attributes in page.elements:
        for key in ("src", "srcset", "action", "data", "poster"):
            assert attributes.get(key, "data:").startswith("data:"), (tag, attributes)
        if tag == "link":
            assert attributes["href"] == "data:,"
        if tag == "a":
            href = attributes["href"]
            assert href.startswith("#") or re.fullmatch(r"[\w./-]+", href), href
    assert not re.search(r"url\((?!data:)|@import|https?://", re.sub(r"<script.*?</script>", "", text, flags=re.S))
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_users_text_is_text_and_never_markup(example, tmp_path):
    study = example.hostile()
    _, page = drawn_page(study, tmp_path)
    names = [tag for tag, _ in page.elements]
    assert names.count("script") == 2
    assert "b" not in [tag for tag, a in page.elements if "onclick" in a]
    assert not [a for _, a in page.elements if any(key.startswith("on") for key in a)]
    assert study["model"]["name"] in page.text()
    assert study["data"]["name"] in page.text()
    assert study["again"]["command"] in page.text()
    assert "{{ 7 * 7 }}" in page.text()
    (data,) = [data for tag, data in page.texts if tag == "script" and data.startswith("{")]
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(data)["classes"][:2] == study["data"]["classes"][:2]
    assert "javascript:" not in [a.get("href", "")[:11] for _, a in page.elements]


def test_drawing_again_from_the_file_gives_the_same_bytes(any_study, tmp_path):
    source = tmp_path / "study.json"
    source.write_text(json.dumps(any_study), encoding="utf-8")
    first = render(any_study, tmp_path / "a" / "report.html").read_bytes()
    assert render(str(source), tmp_path / "b.html").read_bytes() == first
    assert render(source, str(tmp_path / "b.html")).read_bytes() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b.html", "study.json"]


def test_drawing_does_not_change_the_study(any_study, tmp_path):
    before = copy.deepcopy(any_study)
    render(any_study, tmp_path / "report.html")
    assert any_study == before


@pytest.mark.parametrize("content", ["not json", '{"version": "1.0"', "[]", '{"version": "0.3"}', "{}"])
def test_what_is_no_study_is_refused_and_an_old_report_stays(content, tmp_path):
    source, target = tmp_path / "study.json", tmp_path / "report.html"
    source.write_text(content)
    target.write_text("old")
    with pytest.raises(ValueError, match=r"study\.json"):
        render(source, target)
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "study.json"]


def test_lists_that_do_not_pair_are_refused(example, tmp_path):
    study = example.classification()
    study["richness"]["spectrum"]["ranks"].pop()
    with pytest.raises(ValueError, match=r"ranks and eigenvalues hold .* which should be pairs"):
        render(study, tmp_path / "report.html")


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        render(tmp_path / "nothing.json", tmp_path / "report.html")


def test_three_findings_stand_out_and_link_to_sections(example):
    found = findings(example.classification())
    assert [type(f) for f in found] == [Finding] * 3
    assert found[0].section == "labels"
    assert "33 training labels look wrong; about 87" in found[0].text
    assert len({f.section for f in found}) == 3
    assert findings(example.absent()) == []
    assert len(findings(example.classification(), most=1)) == 1


def test_what_stands_out_more_comes_first(example):
    study = example.classification()
    study["labels"].update(count=1, suspects=study["labels"]["suspects"][:1], precision=[])
    for row in study["layers"]["layers"]:
        row["flags"] = [{"measure": "norm", "direction": "high"}]
    assert findings(study)[0].section == "layers"


def answers(study, tmp_path):
    text, _ = drawn_page(study, tmp_path)
    return re.findall(r'class="answer">(.*?)</(?:p|span)>', text, flags=re.S)


def test_sentences_carry_the_numbers_of_the_study(example, tmp_path):
    said = " ".join(answers(example.classification(), tmp_path))
    for words in (
        "On 144 of 150 test samples",
        "33 of 600 training labels look wrong",
        "87 % (82 to 92 %)".replace(" %", "\u202f%"),
        "29 of the 30 planted errors are among them",
        "10 training samples repeat another exactly, 1 pair of samples is nearly the same and 18\u202f% (12 to",
        "166 effective dimensions of 600 at δ = 0.05",
        "2 of 4 layers with weights look unlike a healthy one",
        "Not measured: no pool of unlabelled samples was given",
    ):
        assert words in said, words


def test_a_list_of_mostly_false_alarms_is_called_a_disagreement(example, tmp_path):
    study = example.classification()
    for point in study["labels"]["precision"]:
        point["precision"] = {"value": 0.1, "interval": [0.02, 0.3], "how": "95 % Wilson"}
    said = " ".join(answers(study, tmp_path))
    assert "The clean-up model disagrees with 33 of 600 training labels" in said
    assert "labels look wrong" not in said
    assert "look wrong" not in findings(study)[0].text


def test_a_precision_that_could_be_anything_is_not_told(example, tmp_path):
    study = example.classification()
    for point in study["labels"]["precision"]:
        point["precision"] = {"value": 1.0, "interval": [0.0, 1.0], "how": "95 % bootstrap"}
    text, page = drawn_page(study, tmp_path)
    assert "how many really are cannot be told, the estimate is 100\u202f% (0 to 100\u202f%)" in text
    assert "how many are real cannot be told" in page.text()
    assert "Relabel or drop" not in page.text()
    assert not any("really are" in f.text and "told" not in f.text for f in findings(study, most=9))
    assert findings(study)[0].section != "labels"


def test_disagreements_that_the_models_own_error_explains_are_not_called_wrong_labels(example, tmp_path):
    study = example.classification()
    study["labels"].update(count=318, precision=[])
    for name in ("cleanup", "tuned_cleanup"):
        study["surrogates"].setdefault(name, {"delta": 1.0})["accuracy"] = {
            "value": 0.3,
            "interval": [0.25, 0.35],
            "how": "95 % Wilson",
        }
    text, page = drawn_page(study, tmp_path)
    assert "disagrees with 318 of 600 training labels, no more than its own test error of 70\u202f% explains" in text
    assert "look wrong" not in " ".join(answers(study, tmp_path))
    assert "Do not relabel on this" in page.text()


def test_data_of_which_no_part_is_enough_are_said_to_be_needed(example, tmp_path):
    study = example.classification()
    study["redundancy"]["keep"] = {"value": 1.0, "interval": [1.0, 1.0], "how": "90 % bootstrap"}
    _, page = drawn_page(study, tmp_path)
    assert "no smaller part that was tried keeps the clean-up model within one point of accuracy" in page.text()
    assert "all of the data" in page.text()
    assert "100\u202f% of the" not in page.text()


def test_layers_are_named_with_their_kind_and_say_on_which_side_they_lie(example, tmp_path):
    study = example.classification()
    rows = study["layers"]["layers"]
    for row in rows:
        row["flags"] = []
    rows[1]["flags"] = [{"measure": "exponent", "direction": "high"}]
    _, page = drawn_page(study, tmp_path)
    assert "Conv2d 2 (tail exponent 0.520 times a fresh layer's, hardly changed for a trained one)" in page.text()
    assert "trained at all" not in page.text()
    place = [f.section for f in findings(study, most=9)].index("layers")
    rows[1]["flags"].append({"measure": "norm", "direction": "low"})
    _, page = drawn_page(study, tmp_path)
    assert "check that it was trained at all" in page.text()
    assert [f.section for f in findings(study, most=9)].index("layers") < place


def test_where_most_layers_are_flagged_the_band_itself_is_doubted(example, tmp_path):
    study = example.classification()
    doubt = "may also mean that the healthy band, drawn from small networks, does not fit this one"
    assert doubt not in drawn_page(study, tmp_path)[1].text()
    for row in study["layers"]["layers"][:3]:
        row["flags"] = [{"measure": "norm", "direction": "low"}]
    assert doubt in drawn_page(study, tmp_path)[1].text()


def test_a_regression_speaks_of_targets_and_never_of_labels_or_classes(example, tmp_path):
    study = example.regression()
    study["redundancy"]["conflicting"] = 2
    study["labels"]["precision"] = []
    study["layers"]["layers"][3]["flags"] = [{"measure": "norm", "direction": "high"}]
    text, page = drawn_page(study, tmp_path)
    assert "Which targets look wrong?" in text
    assert "the scale of the targets" in page.text()
    told = re.sub(r"(?s)<(style|script).*?</\1>|<details class=.how.*?</details>", "", text)
    assert [m for m in re.findall(r".{30}\b(?:labels?|class|classes|labelled)\b.{30}", told) if "=" not in m] == []


def test_explanations_of_another_class_on_most_samples_are_not_taken_for_the_network(example, tmp_path):
    study = example.classification()
    for row in study["explanations"]["samples"]:
        row["explained"] = (row["predicted"] + 1) % 10
    _, page = drawn_page(study, tmp_path)
    assert "not how this network decides" in page.text()


def test_a_network_without_mistakes_is_not_said_to_have_none_of_each(example, tmp_path):
    study = example.classification()
    for row in study["explanations"]["samples"]:
        row.update(predicted=row["label"], explained=row["label"])
    told = {f.section: f.text for f in findings(study, most=9)}
    assert told["explanations"] == "No wrong prediction among 150 test samples shown."


def test_a_sample_without_picture_is_named_once_among_its_twins(example, tmp_path):
    study = example.regression()
    text, _ = drawn_page(study, tmp_path)
    twins = re.search(r'(?s)<div class="twins">.*?</div>', text)[0]
    first = study["redundancy"]["exact"][0][0].replace("/", " ")
    assert twins.count(f">{first}<") == 1


def test_the_fitted_law_is_drawn_straight_on_log_axes(example, tmp_path):
    study = example.classification()
    richness = study["richness"]
    ranks = list(range(1, 301))
    richness["spectrum"] = {"ranks": ranks, "eigenvalues": [30.0 / (1 + (r / 20) ** 2) for r in ranks]}
    richness["exponent"]["value"] = 2.0
    richness["windows"] = [{"from": 1, "to": 300, "exponent": 2.0}]
    text, _ = drawn_page(study, tmp_path)
    text = text[text.index('<section id="richness"') :]
    path = re.search(r'<path d="M([\d.,L]+)" class="line fit"', text)[1]
    (x0, y0), (x1, y1) = ([float(v) for v in point.split(",")] for point in path.split("L"))
    curve = re.search(r'<path d="M([\d.,L]+)" class="line method"', text)[1]
    points = [[float(v) for v in point.split(",")] for point in curve.split("L")]
    middle = min(points, key=lambda point: abs(point[0] - (points[0][0] + points[-1][0]) / 2))  # where it is anchored
    assert y0 + (y1 - y0) * (middle[0] - x0) / (x1 - x0) == pytest.approx(middle[1], abs=3)


def test_samples_that_were_left_out_are_counted(example, tmp_path):
    study = example.classification()
    study["data"]["totals"] = {"train": 50_000, "test": 150}
    _, page = drawn_page(study, tmp_path)
    assert "600 of 50\u202f000 training and 150 test samples" in page.text()


def test_quiet_sections_fold_and_say_nothing_unusual(example, tmp_path):
    text, _ = drawn_page(example.quiet(), tmp_path)
    assert text.count('<details class="quiet">') == 3
    assert text.count("Nothing unusual: ") == 3


def test_an_estimate_without_interval_says_why_and_precision_is_never_invented(example, tmp_path):
    study = example.classification()
    study["labels"]["precision"] = []
    study["network"]["accuracy"] = {"value": 0.95, "interval": None, "how": "a single test sample each: no interval"}
    _, page = drawn_page(study, tmp_path)
    assert "how many really are is not estimated" in page.text()
    assert "a single test sample each: no interval" in page.text()


def test_advice_promises_nothing_where_the_interval_contains_no_change(example, tmp_path):
    study = example.classification()
    _, page = drawn_page(study, tmp_path)
    assert "cannot promise anything from more data" in page.text()
    for point in study["richness"]["risk"]["extrapolation"]:
        point["risk"] = {"value": 0.1, "interval": [0.09, 0.11], "how": "95 % bootstrap"}
    _, page = drawn_page(study, tmp_path)
    assert "More data of the same kind should help" in page.text()
    for point in study["richness"]["risk"]["extrapolation"]:
        point["risk"]["interval"] = None
    _, page = drawn_page(study, tmp_path)
    assert "do not decide on it alone" in page.text()


def test_more_features_are_promised_only_where_they_were_measured_or_predicted(example, tmp_path):
    study = example.classification()
    text = drawn_page(study, tmp_path)[1].text()
    assert "256 random mixtures of its features would do" in text
    assert "more of these features would gain little" in text
    assert "from 120 samples the eigenframework foretold a risk of 0.19" in text
    assert "so it was 3\u202f% too high" in text
    study["richness"]["features"].update(enough=None, foreseen=4096)
    study["richness"]["risk"]["check"] = None
    text = drawn_page(study, tmp_path)[1].text()
    assert "256 random mixtures of its 38\u202f282 gradient features still have 3\u202f% more risk" in text
    assert "about 4096 are predicted to come within 5\u202f%" in text
    assert "would do" not in text
    assert "foretold" not in text
    study["richness"]["features"].update(rows=[])
    assert "random mixtures of its" not in drawn_page(study, tmp_path)[1].text()


def test_distance_is_said_not_to_beat_confidence_only_when_it_does_not(example, tmp_path):
    study = example.classification()
    assert "it does not beat confidence" in drawn_page(study, tmp_path)[1].text()
    study["fragility"]["error_detection"]["value"]["value"] = 0.99
    assert "it does not beat confidence" not in drawn_page(study, tmp_path)[1].text()


def test_every_score_stands_beside_its_baselines(example, tmp_path):
    _, page = drawn_page(example.classification(), tmp_path)
    for words in ("loss ranking 0.723", "input neighbours 0.943", "input cosine 0.256", "confidence 0.966"):
        assert words in page.text(), words


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def at(study, path):
    for key in path:
        study = study[key]
    return study


@pytest.mark.parametrize("name", ["with_pool", "regression"])
def test_a_report_is_drawn_whatever_the_schema_lets_be_empty_null_or_absent(example, name):
    from tangrams.study.report.render import load, to_html

    def cut(value, most):
        if isinstance(value, dict):
            return {k: cut(v, most) for k, v in value.items()}
        return [cut(v, most) for v in value[:most]] if isinstance(value, list) else value

    base = cut(example.STUDIES[name](), 2)
    base["samples"] = dict(list(base["samples"].items())[:3])
    seen, drawn = set(), 0
    for path in list(places(base)):
        kind = tuple(0 if isinstance(key, int) else key for key in path)
        if not path or kind in seen or path[:1] == ("samples",):
            continue
        seen.add(kind)
        for change in ("empty", "null", "absent"):
            study = copy.deepcopy(base)
            owner = at(study, path[:-1])
            if change == "absent":
                owner.pop(path[-1])
            else:
                owner[path[-1]] = [] if change == "empty" else None
            try:
                load(study)
            except ValueError:
                continue
            assert to_html(study).endswith("</html>")
            drawn += 1
    assert drawn > 40


def test_a_study_of_many_large_pictures_stays_small_and_keeps_the_wrong_predictions(example, tmp_path):
    """Pictures that no compression makes smaller: 750 of 48 × 48 noise in colour, over seven megabytes of them."""
    study = example.classification()
    generator = torch.Generator().manual_seed(0)
    for sample in study["samples"].values():
        sample["image"] = png(torch.rand(3, 48, 48, generator=generator))
    study["labels"]["suspects"] = study["labels"]["suspects"][:20]
    text, page = drawn_page(study, tmp_path)
    assert len(text.encode()) < 5_000_000
    (data,) = [json.loads(data) for tag, data in page.texts if tag == "script" and data.startswith("{")]
    rows = study["explanations"]["samples"]
    shown = {row["id"] for row in data["explanations"]}
    assert {row["id"] for row in rows if row["predicted"] != row["label"]} <= shown
    assert len(shown) < len(rows)
    assert f"{len(shown)} of {len(rows)} test samples are in this file" in page.text()
    named = {w["id"] for row in data["explanations"] for side in ("supporters", "opposers") for w in row[side]}
    assert named | shown <= set(data["samples"])
