"""Small figures as inline SVG: an interval on a track, and the leakage-accuracy plot.

Colours come from the page's CSS variables, so the figures follow the light or dark theme. Numbers are
rounded to 0.1 px. Every figure has a `<title>` that says in words what it shows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

Interval = tuple[float, float]


def _x(value: float, scale: Interval, width: float, pad: float) -> float:
    low, high = scale
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return round(pad + share * (width - 2 * pad), 1)


def whisker(
    value: float, interval: Interval | None, chance: float | None, scale: Interval, tone: str, title: str
) -> str:
    """A dot with its interval on a track; `chance` is a dashed mark. tone: a CSS class (bad, good, plain)."""
    width, height, pad = 170.0, 22.0, 7.0
    mid = height / 2
    parts = [f'<line class="track" x1="{pad}" y1="{mid}" x2="{width - pad}" y2="{mid}"/>']
    if chance is not None:
        at = _x(chance, scale, width, pad)
        parts.append(f'<line class="chance" x1="{at}" y1="3" x2="{at}" y2="{height - 3}"/>')
    if interval is not None:
        a, b = (_x(v, scale, width, pad) for v in interval)
        parts.append(f'<line class="ci {tone}" x1="{a}" y1="{mid}" x2="{b}" y2="{mid}"/>')
    parts.append(f'<circle class="dot {tone}" cx="{_x(value, scale, width, pad)}" cy="{mid}" r="5"/>')
    return (
        f'<svg class="whisker" viewBox="0 0 {width:g} {height:g}" role="img">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


@dataclass(frozen=True)
class Point:
    """One mechanism in the plot: x with interval, y with interval, a label and a tone."""

    label: str
    x: float
    x_ci: Interval
    y: float
    y_ci: Interval
    tone: str


class _Axes:
    """The plot's frame: from data units to pixels in a fixed view box."""

    width, height, left, right, top, bottom = 640.0, 380.0, 66.0, 18.0, 16.0, 56.0

    def __init__(self, x_range: Interval, y_range: Interval) -> None:
        self.x_range, self.y_range = x_range, y_range

    def x(self, value: float) -> float:
        low, high = self.x_range
        return round(self.left + (value - low) / (high - low) * (self.width - self.left - self.right), 1)

    def y(self, value: float) -> float:
        low, high = self.y_range
        inner = self.height - self.top - self.bottom
        return round(self.height - self.bottom - (value - low) / (high - low) * inner, 1)

    def draw(self, x_title: str, y_title: str) -> str:
        """Grid, tick labels and the two titles."""
        floor, wall, out = self.height - self.bottom, self.width - self.right, []
        for t in _ticks(*self.x_range):
            at = self.x(t)
            out.append(f'<line class="grid" x1="{at}" y1="{self.top}" x2="{at}" y2="{floor}"/>')
            out.append(f'<text class="tick" x="{at}" y="{floor + 20}" text-anchor="middle">{t:.2g}</text>')
        for t in _ticks(*self.y_range):
            at = self.y(t)
            out.append(f'<line class="grid" x1="{self.left}" y1="{at}" x2="{wall}" y2="{at}"/>')
            out.append(
                f'<text class="tick" x="{self.left - 8}" y="{at + 5}" text-anchor="end">{t:.2g}</text>'
            )
        middle, centre = (self.top + floor) / 2, (self.left + wall) / 2
        out.append(
            f'<text class="axis" x="{centre}" y="{self.height - 10}" text-anchor="middle">'
            f"{escape(x_title)} &#8594;</text>"
            f'<text class="axis" x="16" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 16 {middle})">'
            f"{escape(y_title)} &#8594;</text>"
        )
        return "".join(out)


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    return [low + (high - low) * i / (count - 1) for i in range(count)]


def frontier(
    points: Sequence[Point],
    x_title: str,
    y_title: str,
    x_range: Interval = (0.0, 1.0),
    y_range: Interval = (0.0, 1.0),
) -> str:
    """Leakage (right is worse) against recognition (up is better), with both intervals of every point."""
    axes = _Axes(x_range, y_range)
    body = [axes.draw(x_title, y_title)]
    body += [_point(p, axes, up) for p, up in zip(points, _label_rows(points))]
    return (
        f'<svg class="frontier" viewBox="0 0 {axes.width:g} {axes.height:g}" role="img">'
        f"<title>{escape(y_title)} against {escape(x_title)}</title>{''.join(body)}</svg>"
    )


def _label_rows(points: Sequence[Point]) -> list[int]:
    """How many lines further up each label goes, so that coinciding points do not hide each other."""
    rows: list[int] = []
    for i, p in enumerate(points):
        near = [rows[j] for j in range(i) if abs(points[j].x - p.x) < 0.2 and abs(points[j].y - p.y) < 0.06]
        rows.append(max(near) + 1 if near else 0)
    return rows


def _point(p: Point, axes: _Axes, up: int) -> str:
    x, y = axes.x(p.x), axes.y(p.y)
    (x1, x2), (y1, y2) = (axes.x(v) for v in p.x_ci), (axes.y(v) for v in p.y_ci)
    anchor, shift = ("end", -12) if p.x > sum(axes.x_range) * 0.6 else ("start", 12)
    return (
        f'<line class="ci {p.tone}" x1="{x1}" y1="{y}" x2="{x2}" y2="{y}"/>'
        f'<line class="ci {p.tone}" x1="{x}" y1="{y1}" x2="{x}" y2="{y2}"/>'
        f'<circle class="dot {p.tone}" cx="{x}" cy="{y}" r="7"/>'
        f'<text class="name" x="{x + shift}" y="{y - 12 - 18 * up}" text-anchor="{anchor}">'
        f"{escape(p.label)}</text>"
    )
