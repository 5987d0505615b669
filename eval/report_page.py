"""The page of report.py: one HTML file that needs nothing else."""

import re
from html import escape

CSS = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
  max-width: 72rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; }
h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem; }
.result { font-size: 1.15rem; border-left: 4px solid #D55E00;
  padding: .2rem 0 .2rem .9rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums;
  font-size: .92rem; margin: .4rem 0; }
th, td { text-align: right; padding: .2rem .7rem; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 2px solid #444; vertical-align: bottom; }
tbody tr:nth-child(even) { background: #f5f5f5; }
td.best { font-weight: 700; }
figure { margin: 1rem 0 1.6rem; }
figure svg { max-width: 100%; height: auto; }
figcaption { font-size: .92rem; color: #444; max-width: 48rem; }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 1.2rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
.note { color: #555; font-size: .92rem; max-width: 48rem; }
@media print { body { margin: 0; max-width: none; font-size: 12px; }
  figure, table { break-inside: avoid; } }
"""

CAPTIONS = {
    "overview": "Left: further left is less work for the same recall. "
                "Middle and right: how many times fewer distances each "
                "method needs than stock FAISS (black) at every recall.",
    "recall_dco": "Further left is less work for the same recall; the "
                  "horizontal distance to the black line is the factor. The "
                  "upper row counts every list entry a query passes over, "
                  "the lower one only those whose distance it computes. "
                  "The recall axis gives every halving of what is "
                  "missed the same room.",
    "recall_qps": "Further right is faster. Times depend on the machine and "
                  "on the number of threads, distances do not.",
    "gain": "Above the line at 1: fewer distances than stock FAISS at the "
            "same recall. Further right costs more memory.",
}

DEFINITIONS = (
    "<b>Raw</b> distance computations are the posting-list entries a query "
    "passes over, copies of a vector counted each time; <b>unique</b> ones "
    "are the distances really computed, a vector met twice in one query "
    "counted once; exact re-ranking adds its distances to both, and the "
    "distances to the centroids (coarse) are counted apart. "
    "<b>Recall@10</b> is the share of the ten true neighbours (or of vectors "
    "tied with the tenth) among a query's first ten results.")


def svg_element(text, prefix):
    """The <svg> alone, without the XML prologue; figures number their
    elements alike, so `prefix` keeps them apart within one page."""
    svg = text[text.index("<svg"):]
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", svg)


def number(value, digits=2):
    return "\u2013" if value is None else f"{value:,.{digits}f}".replace(
        ",", "\u202f")


def with_spread(value, std, digits=2):
    if value is None:
        return "\u2013"
    text = number(value, digits)
    return f"{text} \u00b1 {std:.{digits}f}" if std is not None else text


def table(head, lines):
    """`lines` of cells that are HTML already; a cell may be (text, class)."""
    html = ["<div class=scroll><table><thead><tr>"]
    html += [f"<th>{cell}</th>" for cell in head]
    html.append("</tr></thead><tbody>")
    for line in lines:
        html.append("<tr>")
        for cell in line:
            text, name = cell if isinstance(cell, tuple) else (cell, "")
            html.append(f'<td class="{name}">{text}</td>' if name
                        else f"<td>{text}</td>")
        html.append("</tr>")
    html.append("</tbody></table></div>")
    return "".join(html)


def best_of(section, codec, target):
    """The method with the largest unique factor there, or None."""
    entries = [section.entry(codec, m, target)
               for m in section.methods_of(codec) if m != "faiss"]
    entries = [e for e in entries if e and e["factor_unique"] is not None]
    return max(entries, key=lambda e: e["factor_unique"], default=None)


def factor_table(section, codec):
    targets = section.targets()
    best = {t: best_of(section, codec, t) for t in targets}
    head = ["method", "copies"] + [f"recall {t:g}" for t in targets]
    lines = []
    for method in section.methods_of(codec):
        cells = [escape(method)]
        for target in targets:
            entry = section.entry(codec, method, target)
            if len(cells) == 1:
                cells.append(number(entry["copies"]) if entry else "\u2013")
            if not entry:
                cells.append("\u2013")
            elif method == "faiss":
                cells.append(number(entry["dco_raw"], 0))
            elif entry["factor_raw"] is None:
                cells.append("\u2013")
            else:
                text = (with_spread(entry["factor_raw"],
                                    entry.get("factor_raw_std")) + " / " +
                        with_spread(entry["factor_unique"],
                                    entry.get("factor_unique_std")))
                cells.append((text, "best" if entry is best[target] else ""))
        lines.append(cells)
    return table(head, lines)


def detail_table(section, codec, target):
    head = ["method", "nprobe", "raw", "unique", "coarse",
            "factor with coarse,<br>raw / unique",
            "recall at<br>faiss's raw count", "bytes per<br>vector",
            "queries/s", "training, s"]
    lines = []
    for method in section.methods_of(codec):
        e = section.entry(codec, method, target)
        if not e:
            continue
        total = "\u2013" if e["factor_total_raw"] is None else (
            number(e["factor_total_raw"]) + " / " +
            number(e["factor_total_unique"]))
        lines.append([
            escape(method), number(e["nprobe"], 1), number(e["dco_raw"], 0),
            number(e["dco_unique"], 0), number(e["dco_coarse"], 0), total,
            number(e["recall_at_equal_dco"], 4),
            number(e["bytes_per_vector"], 0), number(e["qps"], 0),
            number(e["train_s"], 1)])
    return table(head, lines)


def headline(section):
    """The result in a sentence, for the first codec that has one."""
    for codec in section.codecs:
        target = section.main_target(codec)
        best = target and best_of(section, codec, target)
        if not best:
            continue
        text = (
            f"At recall@10 = {target:g} (codec {codec}), {best['method']} "
            f"computes {best['factor_unique']:.2f} times fewer distances "
            f"than stock FAISS with as many lists, and scans "
            f"{best['factor_raw']:.2f} times fewer list entries, with "
            f"{best['copies']:.2f} entries stored per vector.")
        return f"<p class=result>{escape(text)}</p>"
    return ""


def figure_html(figures, name, number_of_section):
    svg = svg_element(figures[name], f"s{number_of_section}-{name}-")
    return (f"<figure>{svg}<figcaption>{CAPTIONS[name]}</figcaption>"
            "</figure>")


def section_html(section, figures, number_of_section):
    html = [f"<h2>{escape(section.title())}</h2>", headline(section)]
    if "overview" in figures:
        html.append(figure_html(figures, "overview", number_of_section))
    seeds = (f"mean \u00b1 standard deviation over {section.seeds} seeds"
             if section.seeds > 1 else "one seed")
    html.append("<h3>Times fewer distances than stock FAISS, "
                "raw / unique</h3>")
    html.append(
        f"<p class=note>Same number of lists, same recall@10; {seeds}. "
        "Line faiss: distances per query it needs itself. Bold: the most "
        "saved (unique). \u2013: recall not reached.</p>")
    for codec in section.codecs:
        html.append(f"<h3>codec {escape(codec)}</h3>")
        if section.reaches_a_target(codec):
            html.append(factor_table(section, codec))
        else:
            html.append("<p class=note>No method reaches a recall@10 of "
                        f"{section.targets()[0]:g}; see the curves.</p>")
    for name in ("recall_dco", "gain", "recall_qps"):
        if name in figures:
            html.append(figure_html(figures, name, number_of_section))
    for codec in section.codecs:
        target = section.main_target(codec)
        if target:
            html.append(f"<h3>codec {escape(codec)} at recall@10 = "
                        f"{target:g}, per query</h3>")
            html.append(detail_table(section, codec, target))
    return "\n".join(html)


def run_html(sections, run):
    first = sections[0].rows[0]
    machine = run.get("machine", {})
    facts = [
        ("Command", f"<code>{escape(run['command'])}</code>"
         if "command" in run else None),
        ("Machine", escape(", ".join(
            str(part) for part in (
                machine.get("cpu"),
                f"{machine['cores']} cores" if "cores" in machine else None,
                f"{machine['memory_gib']} GiB"
                if "memory_gib" in machine else None,
                machine.get("os")) if part)) or None),
        ("BLAS", escape(machine.get("blas", "")) or None),
        ("Threads", f"{first['threads']:.0f}"),
        ("FAISS", escape(first.get("faiss_version", "?"))),
        ("faiss_flash", escape(run.get("faiss_flash_version", "")) +
         f" (commit {escape(first.get('commit', '?'))})"),
        ("Time", escape(f"{run['started']} to {run['finished']}")
         if "finished" in run else None),
        ("Parameters", "<br>".join(
            f"{escape(m)}: <code>{escape(p)}</code>" for m, p in sorted(
                {(r["method"], r.get("params", ""))
                 for s in sections for r in s.rows
                 if r["codec"] == s.codecs[0]}))),
    ]
    return "<dl>" + "".join(
        f"<dt>{name}</dt><dd>{value}</dd>"
        for name, value in facts if value) + "</dl>"


def make(sections, figures, run):
    partial = "" if run.get("complete", True) else (
        "<p class=note><b>The run was interrupted;</b> this is what it had "
        "measured by then.</p>")
    body = "\n".join(section_html(s, f, i) for i, (s, f) in
                     enumerate(zip(sections, figures)))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>faiss_flash: recall against distance computations</title>
<style>{CSS}</style>
</head>
<body>
<h1>Recall against distance computations</h1>
<p class=note>Stock FAISS IVF indexes beside soft-trained, multi-assigned
ones with the same number of lists.</p>
{partial}
<p class=note>{DEFINITIONS}</p>
{body}
<h2>How this was made</h2>
{run_html(sections, run)}
</body>
</html>
"""
