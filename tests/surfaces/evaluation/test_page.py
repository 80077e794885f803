"""The page: whole, self-contained, the same for the same report, and safe whatever names come in."""

from __future__ import annotations

import copy
import json
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest
import yaml

from foundation.engine.torch import TorchEngine
from prompts.errors import ConfigError
from surfaces.evaluation.bootstrap import Interval
from surfaces.evaluation.page import mark, page, routing_text
from surfaces.evaluation.suite import Asked, Suite
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry

VOID = {"meta", "link", "br", "hr", "img", "input", "col"}


class Parsed(HTMLParser):
    """Every tag that opens closes; texts, and what is loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text, self.loads, self.tags = "", list[str](), set[str]()
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def told(network: Ledger, tiny_engine: TorchEngine) -> dict[str, Any]:
    """A real report as JSON."""
    asked = Asked("jobs", against=("random", "popular", "co_visitation", "fused"), budget=1)
    report = Suite(asked, Registry.shipped(), network, tiny_engine).run().told
    found: dict[str, Any] = json.loads(json.dumps(report))
    return found


def test_the_page_tells_it_all_and_loads_nothing(told: dict[str, Any]) -> None:
    parsed = Parsed(page(told))
    for name in (*told["methods"], *told["segments"], *told["coverage"], told["split"]["digest"]):
        assert name in parsed.text, name
    assert "simulated" in parsed.text
    assert told["advice"]["reason"] in parsed.text
    assert "script" not in parsed.tags
    assert all(load.startswith("#") for load in parsed.loads)
    assert parsed.tags >= {"svg", "table", "details", "style"}


def test_the_same_report_gives_the_same_page(told: dict[str, Any]) -> None:
    assert page(told) == page(copy.deepcopy(told))


EVIL = ("<script>alert(1)</script>", "$x_$", "a&b \u202e", "{{ 7 * 7 }}")


def test_names_from_outside_are_text(told: dict[str, Any]) -> None:
    report = copy.deepcopy(told)
    for name in EVIL:
        for part in (report, *report["segments"].values()):
            part["methods"][name] = part["methods"]["random"]
        report["differences"][name] = report["differences"]["random"]
        report["costs"][name] = report["costs"]["random"]
        report["coverage"][name] = report["coverage"]["popular"]
        report["notes"].append(f"note {name}")
    report["surface"] = EVIL[0]
    text = page(report)
    parsed = Parsed(text)
    assert "<script>alert" not in text
    assert "alert(1)" in parsed.text
    assert "{{ 7 * 7 }}" in parsed.text
    assert "$x_$" in parsed.text
    assert "script" not in parsed.tags


def test_a_minimal_report(told: dict[str, Any]) -> None:
    """One classical method, no model, and nothing that an evaluation can do without."""
    needed = ("surface", "protocol", "candidates", "members", "rankings", "split", "advice")
    report = {name: told[name] for name in needed}
    report |= {"methods": {"popular": told["methods"]["popular"]}, "subject": "popular"}
    assert "popular" in Parsed(page(report)).text


def test_the_routing_is_the_yaml_that_a_surface_takes(told: dict[str, Any]) -> None:
    routing = {
        "rules": [{"when": {"history": {"max": 5}}, "to": "classical"}],
        "default": "fused",
        "fused": {"foundation": 1.0, "popular": 0.25},
    }
    assert yaml.safe_load(str(routing_text(routing))) == {"routing": routing}
    text = Parsed(page({**told, "routing": routing})).text
    assert "default: fused" in text
    assert routing_text(None) is None


@pytest.mark.parametrize(
    ("difference", "where"),
    [
        ((0.1, 0.01, 0.2), "above"),
        ((-0.1, -0.2, -0.01), "below"),
        ((0.1, -0.01, 0.2), "even"),
        ((0.0, 0.0, 0.0), "even"),
    ],
)
def test_differences_beyond_chance_are_marked(difference: tuple[float, float, float], where: str) -> None:
    assert mark(Interval(*difference)) == where


def test_pictures_are_the_same_everywhere_and_carry_no_date(told: dict[str, Any]) -> None:
    svgs = re.findall(r"<svg.*?</svg>", page(told), re.DOTALL)
    assert len(svgs) >= 4
    for svg in svgs:
        assert "<dc:date>" not in svg
        assert "<text" in svg or "<path" in svg


def test_without_matplotlib_it_says_what_to_install(told: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"--html needs the package matplotlib: pip install 'prismrank\[evaluate\]'"):
        page(told)
