"""The pictures of spaces: valid SVG, with a bar for each bin that has something and a point for each place."""

import xml.etree.ElementTree as ET

import numpy as np

from loadtests.portraits import Portrait, histograms, maps

SVG = "{http://www.w3.org/2000/svg}"


def portrait(name: str) -> Portrait:
    return Portrait(
        name=name,
        verdict="watch",
        cosines=np.array([0, 5, 10]),
        own=np.array([0, 0, 3]),
        others=np.array([2, 0, 0]),
        occurrences=([0, 1, 2], [4, 2]),
        places=np.array([[0.0, 0.0], [1.0, 2.0], [-1.0, 1.0]]),
        shown=(0.1, 0.05),
    )


def test_bars_are_as_high_as_their_counts_say() -> None:
    drawn = ET.fromstring(histograms([portrait("a <b>"), portrait("c")]))
    bars = [one for one in drawn.findall(f"{SVG}rect") if one.find(f"{SVG}title") is not None]
    assert len(bars) == 2 * (2 + 1 + 1 + 2)
    half, full = (float(one.get("height", "nan")) for one in bars[:2])
    assert full == 2 * half
    words = [one.text for one in drawn.findall(f"{SVG}text")]
    assert "a <b>" in words
    assert words.count("watch") == 2


def test_a_map_has_its_points_inside_the_frame_and_up_is_more() -> None:
    drawn = ET.fromstring(maps([portrait("a")]))
    points = [(float(one.get("cx", "nan")), float(one.get("cy", "nan"))) for one in drawn.findall(f"{SVG}circle")]
    assert len(points) == 3
    assert points[1][1] < points[2][1] < points[0][1]
    assert points[2][0] < points[0][0] < points[1][0]
    assert "15% of the variance" in [one.text for one in drawn.findall(f"{SVG}text")]
