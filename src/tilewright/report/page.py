"""The page of a report: one HTML file with its pictures, its ladder and its numbers, that asks for nothing else."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator, Mapping

from tilewright.report.canvas import duration, figure_of, percent
from tilewright.report.evidence import Evidence
from tilewright.report.series import median_error, pairs, spearman
from tilewright.report.tree import failures
from tilewright.report.words import ENDED, choice_words

CAPTIONS = {
    "ladder": "From the naive kernel to the best, one mutation a step. Every rung was compiled, checked against the "
    "float64 reference and timed; the axis is logarithmic.",
    "best": "The fastest design known after each trial, beside a search that draws legal designs at random. Dots are "
    "single trials.",
    "predicted": "Every design that was timed. The model orders them well where dots rise along the diagonal; what "
    "counts for a search is the order, not the distance.",
    "roofline": "Williams, Waterman and Patterson, CACM 52(4), 2009. A rung moves right when it takes less from that "
    "level of memory, by the cost model, and up when it wastes less. On the dashed line every operand moves once.",
    "graph": "Designs under the one they were made from, fastest first; one that was not made from another stands, "
    "dotted, under the nearest that was tried before it. Bold: the way to the winner (star). Blue is fast, red slow.",
}

_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2430; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
p.lead { font-size: 1.05rem } p.faint, figcaption { color: #5d6475; font-size: .9rem }
table { border-collapse: collapse; font-size: .88rem; width: 100% }
th { text-align: left; border-bottom: 2px solid #cfd4de; padding: .3rem .6rem .3rem 0 }
td { border-bottom: 1px solid #e3e6ec; padding: .3rem .6rem .3rem 0; vertical-align: top }
td.n, th.n { text-align: right; white-space: nowrap }
code { font-size: .88em; background: #f3f4f7; padding: .1em .3em; border-radius: 3px }
figure { margin: 1rem 0 } img { max-width: 100%; height: auto }
"""


def page(evidence: Evidence, pictures: Mapping[str, bytes]) -> str:
    """The HTML of a report; `pictures` are PNG files by the names of `figures.FIGURES`."""
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{_text(evidence.topic.title)}</title>',
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>',
            *_summary(evidence),
            *_ladder(evidence, pictures),
            *(_figure(name, data) for name, data in pictures.items() if name != "ladder"),
            *_design(evidence),
            *_method(evidence),
            "</body></html>",
            "",
        ]
    )


def _text(text: object) -> str:
    return html.escape(str(text))


def _summary(evidence: Evidence) -> Iterator[str]:
    topic = evidence.topic
    yield f"<h1>{_text(topic.title)}</h1>"
    threads = "1 thread" if topic.threads == 1 else f"{topic.threads} threads"
    yield f'<p class="faint">{_text(topic.machine)}, {threads}</p>'
    yield f'<p class="lead">{_text(headline(evidence))}</p>'


def headline(evidence: Evidence) -> str:
    """What came out, in a sentence or two."""
    topic, seconds = evidence.topic, evidence.seconds
    text = f"The best design takes {duration(seconds)} a call, {figure_of(topic.rate(seconds))} {topic.unit}"
    text += f": {evidence.default_seconds / seconds:.2f}x the default design"
    share = topic.of_vendor(evidence.rung_seconds)
    text += "." if share is None else f" and {share:.2f}x {topic.vendor}."
    if topic.roof_seconds:
        text += f" The roofline allows {duration(topic.roof_seconds)}."
    return text


def _ladder(evidence: Evidence, pictures: Mapping[str, bytes]) -> Iterator[str]:
    if not evidence.ladder:
        return
    topic, before = evidence.topic, None
    yield "<h2>The ladder</h2>"
    if "ladder" in pictures:
        yield _figure("ladder", pictures["ladder"])
    vendor = f'<th class="n">of {_text(topic.vendor)}</th>' if topic.vendor_seconds else ""
    yield (
        f'<table><tr><th class="n"></th><th>mutation</th><th class="n">time</th><th class="n">{topic.unit}</th>'
        f'{vendor}<th class="n">gain</th><th>what the cost model says</th></tr>'
    )
    for n, rung in enumerate(evidence.ladder):
        cells = [f'<td class="n">{n}</td><td>{_text(rung.mutation)}</td>']
        if rung.seconds is None:
            cells.append(f'<td class="n">{_text(rung.outcome.status)}</td><td></td>' + "<td></td>" * bool(vendor))
        else:
            cells.append(
                f'<td class="n">{duration(rung.seconds)}</td><td class="n">{figure_of(topic.rate(rung.seconds))}</td>'
            )
            share = topic.of_vendor(rung.seconds)
            cells += [] if share is None else [f'<td class="n">{percent(share)}</td>']
        gain = f"{before / rung.seconds:.2f}x" if before and rung.seconds else ""
        why = rung.reason or f"{rung.bound} bounds"
        yield "<tr>" + "".join(cells) + f'<td class="n">{gain}</td><td>{_text(why)}</td></tr>'
        before = rung.seconds or before
    yield "</table>"


def _figure(name: str, data: bytes) -> str:
    image = base64.b64encode(data).decode()
    caption = _text(CAPTIONS[name])
    return f'<figure><img alt="{name}" src="data:image/png;base64,{image}"><figcaption>{caption}</figcaption></figure>'


def _design(evidence: Evidence) -> Iterator[str]:
    yield f"<h2>The design</h2><p>{_text(evidence.winner.hash)}</p><p>"
    yield " ".join(f"<code>{_text(n)}={_text(choice_words(c))}</code>" for n, c in evidence.winner.decisions) + "</p>"


def _method(evidence: Evidence) -> Iterator[str]:
    values = pairs(evidence.trials)
    yield "<h2>How this was found</h2>"
    text = f"{len(evidence.trials)} trials by strategy {evidence.strategy}, seed {evidence.seed}"
    text += f", {ENDED.get(evidence.stopped, evidence.stopped)}."
    if not evidence.trials:
        text = f"Nothing was searched: the rungs were given, up to {evidence.stopped}."
    if evidence.random:
        text += f" {len(evidence.random)} random designs beside them."
    if values:
        text += f" Rank correlation of prediction and measurement {spearman(values):.2f}, "
        text += f"median error {median_error(values):.0%}."
    if lost := failures(evidence.trials):
        text += " Refused: " + ", ".join(f"{count} {status}" for status, count in lost.items()) + "."
    text += f" Noise of the finals {evidence.noise:.1%}."
    yield f"<p>{_text(text)}</p>"
    if evidence.command:
        yield f"<p>To do it again: <code>{_text(evidence.command)}</code></p>"
