"""The plots of report.py."""

import matplotlib
import numpy

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator  # noqa

# Okabe and Ito's palette, told apart by colour-blind readers. The policy
# gives colour and marker, the trainer the line style, so that no method
# depends on its colour alone.
POLICY_STYLE = {
    "nearest": ("#56B4E9", "o"),
    "top_m": ("#009E73", "v"),
    "responsibility": ("#0072B2", "s"),
    "closure": ("#E69F00", "D"),
    "air": ("#D55E00", "^"),
    "soar": ("#CC79A7", "P"),
}
TRAINER_LINE = {"kmeans": (0, (4, 1.6)), "gmm": "-"}
# Grey steps for what is not known here (later policies).
UNKNOWN = ("#777777", "*")

RECALL_TICKS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998,
                0.999, 0.9995)
# A recall of one has no place on the axis.
LAST_RECALL = 0.9997
# Curves that come near to one are drawn from here on: below, all methods are
# much the same and nobody runs them.
FIRST_RECALL = 0.7

plt.rcParams.update({
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.06,
    "svg.hashsalt": "faiss_flash",  # the same file for the same data
})


def style(method):
    if method == "faiss":
        return {"color": "black", "marker": "x", "linestyle": "-",
                "linewidth": 2.2, "markersize": 5.5, "zorder": 5}
    trainer, _, policy = method.partition("+")
    color, marker = POLICY_STYLE.get(policy, UNKNOWN)
    return {"color": color, "marker": marker,
            "linestyle": TRAINER_LINE.get(trainer, ":"), "zorder": 3,
            # k-means hollow, mixture filled: visible without colour too
            "markerfacecolor": "white" if trainer == "kmeans" else color}


def plain_number(value, _=None):
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def set_log_ticks(axis, low, high):
    """1, 2, 5 per decade, as plain numbers."""
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [m * 10.0 ** e for e in range(-2, 10) for m in steps]
    axis.set_major_locator(
        FixedLocator([t for t in ticks if low * 0.999 <= t <= high * 1.001]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(plain_number))


def stretch_recall(ax, direction):
    """Scale an axis of recalls: equal room for every halving of what is
    missed."""
    getattr(ax, f"set_{direction}scale")("function", functions=(
        lambda r: -numpy.log(numpy.clip(1 - r, 1e-9, None)),
        lambda y: 1 - numpy.exp(-y)))
    axis = getattr(ax, direction + "axis")
    axis.set_major_locator(FixedLocator(RECALL_TICKS))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda r, _: f"{r:g}"))


def mean_curve(section, codec, method, cost):
    """The points that can be drawn: costs, recalls, lowest and highest
    recall of a seed."""
    points = [p for p in section.curve(codec, method, cost)
              if p[2] < LAST_RECALL]
    return [numpy.array(c) for c in list(zip(*points))[1:]] if points else None


def draw_curves(ax, section, codec, cost):
    """Recall over a cost: a line per method, the range of the seeds
    shaded."""
    curves = {m: mean_curve(section, codec, m, cost)
              for m in section.methods_of(codec)}
    curves = {m: c for m, c in curves.items() if c}
    if not curves:
        return
    highest = max(c[1].max() for c in curves.values())
    lowest = min(c[1].min() for c in curves.values())
    bottom = max(FIRST_RECALL, lowest) if highest > 0.9 else lowest
    shown = []
    for method, (costs, recalls, low, high) in curves.items():
        looks = style(method)
        ax.plot(costs, recalls, label=method, **looks)
        if section.seeds > 1:
            ax.fill_between(costs, low, numpy.minimum(high, LAST_RECALL),
                            color=looks["color"], alpha=0.18, linewidth=0)
        # Points just outside the frame still belong to a line inside.
        shown += list(costs[recalls >= bottom - 0.02])
    if highest > 0.9:
        stretch_recall(ax, "y")
        ax.set_ylim(bottom, 1 - (1 - highest) * 0.8)
    else:
        ax.set_ylim(bottom - 0.02, highest + 0.04)
    ax.set_xscale("log")
    low, high = min(shown) * 0.95, max(shown) * 1.05
    ax.set_xlim(low, high)
    set_log_ticks(ax.xaxis, low, high)


def curves_figure(section, costs, heading):
    """A grid: one row per cost (column of curves.csv, axis label), one
    column per codec."""
    codecs = section.codecs
    fig, axes = plt.subplots(
        len(costs), len(codecs), squeeze=False,
        figsize=(1.2 + 3.3 * max(len(codecs), 1.6), 0.9 + 3.0 * len(costs)))
    for row, (cost, label) in enumerate(costs):
        for column, codec in enumerate(codecs):
            ax = axes[row][column]
            draw_curves(ax, section, codec, cost)
            ax.set_xlabel(label)
            if row == 0:
                ax.set_title(f"codec {codec}")
        axes[row][0].set_ylabel("recall@10")
    finish(fig, axes, heading)
    return fig


def factors(section, codec, method, cost):
    """Recalls and how many times fewer distances than stock FAISS (raw) the
    method needs there, where both curves are known; linear in the logarithm
    of the distances, as in summary.json."""
    stock = mean_curve(section, codec, "faiss", "dco_raw")
    own = mean_curve(section, codec, method, cost)
    if not stock or not own:
        return None
    low = max(FIRST_RECALL, stock[1].min(), own[1].min())
    high = min(stock[1].max(), own[1].max(), 0.995)
    if low >= high:
        return None
    recalls = 1 - numpy.geomspace(1 - low, 1 - high, 60)
    logs = [numpy.interp(recalls, numpy.maximum.accumulate(c[1]),
                         numpy.log(c[0])) for c in (stock, own)]
    return recalls, numpy.exp(logs[0] - logs[1])


def draw_factors(ax, section, codec, cost):
    for method in section.methods_of(codec):
        line = factors(section, codec, method, cost)
        if line:
            looks = style(method)
            ax.plot(*line, label=method, markevery=(3, 9), **looks)
    stretch_recall(ax, "x")
    ax.set_xlim(FIRST_RECALL, 0.9955)
    ax.set_xlabel("recall@10")


def overview_figure(section):
    """The result at a glance, for the first codec stock FAISS was measured
    with: the curves, and what they say about the work saved."""
    codec = next((c for c in section.codecs
                  if "faiss" in section.methods_of(c)
                  and section.main_target(c) is not None), None)
    if codec is None:
        return None
    fig, axes = plt.subplots(1, 3, squeeze=False, figsize=(10.4, 3.7))
    curves, raw, unique = axes[0]
    draw_curves(curves, section, codec, "dco_unique")
    curves.set_xlabel("distances computed per query")
    curves.set_ylabel("recall@10")
    draw_factors(raw, section, codec, "dco_raw")
    raw.set_title("times fewer entries scanned (raw)")
    draw_factors(unique, section, codec, "dco_unique")
    unique.set_title("times fewer distances (unique)")
    limits = raw.get_ylim() + unique.get_ylim()
    for ax in (raw, unique):
        ax.set_ylim(min(limits + (0.98,)), max(limits))
    finish(fig, axes, f"{section.dataset}: same recall with fewer distances "
                      f"than stock FAISS ({section.nlist} lists, {codec})")
    return fig


def finish(fig, axes, heading):
    """One legend below all panels."""
    entries = {}
    for ax in fig.axes:
        for handle, label in zip(*ax.get_legend_handles_labels()):
            entries.setdefault(label, handle)
    fig.suptitle(heading, fontsize=11, x=0.02, ha="left")
    columns = min(len(entries), 2 + 2 * len(axes[0])) or 1
    lines = -(-len(entries) // columns)
    fig.tight_layout(rect=(0, 0.012 + 0.24 * lines / fig.get_figheight(),
                           1, 1))
    fig.legend(entries.values(), entries.keys(), loc="lower center",
               ncol=columns, handlelength=3.2)


def gain_figure(section):
    """What memory buys: factor against copies, and against bytes. Filled:
    distances computed (unique); hollow: list entries scanned (raw)."""
    codecs = [c for c in section.codecs if "faiss" in section.methods_of(c)
              and section.main_target(c) is not None]
    if not codecs:
        return None
    fig, axes = plt.subplots(
        2, len(codecs), squeeze=False, sharey="col",
        figsize=(1.2 + 3.3 * max(len(codecs), 1.6), 6.6))
    for column, codec in enumerate(codecs):
        target = section.main_target(codec)
        for row, (key, label) in enumerate((
                ("copies", "posting-list entries per vector"),
                ("bytes_per_vector", "bytes per vector"))):
            ax = axes[row][column]
            draw_gains(ax, section, codec, target, key)
            ax.set_xlabel(label)
            if row == 0:
                ax.set_title(f"codec {codec}, recall@10 = {target:g}")
        axes[0][0].set_ylabel("times fewer distances than faiss")
        axes[1][0].set_ylabel("times fewer distances than faiss")
    finish(fig, axes, "Gain against memory: filled marker unique, hollow raw")
    return fig


def draw_gains(ax, section, codec, target, key):
    entries = [section.entry(codec, m, target)
               for m in section.methods_of(codec)]
    entries = [e for e in entries if e and e["factor_raw"] is not None]
    middle = (min(e[key] for e in entries) + max(e[key] for e in entries)) / 2
    for entry in entries:
        method = entry["method"]
        looks = style(method)
        color, marker = looks["color"], looks["marker"]
        x, raw, uniq = entry[key], entry["factor_raw"], entry["factor_unique"]
        line = "--" if method.startswith("kmeans") else "-"
        ax.plot([x, x], [raw, uniq], color=color, linestyle=line,
                linewidth=1.2, zorder=2)
        ax.errorbar(x, uniq, yerr=entry.get("factor_unique_std") or 0,
                    color=color, linewidth=0.8, capsize=2, zorder=2)
        ax.plot([x], [raw], linestyle="", color=color, marker=marker,
                markerfacecolor="white", markersize=7, zorder=4)
        ax.plot([x], [uniq], linestyle=line, color=color, marker=marker,
                markersize=7, label=method, zorder=5)
        # More names would cover each other; k-means at the lower end, where
        # fewer of the others are.
        if len(entries) <= 6 and method != "faiss":
            left = x > middle
            y = raw if method.startswith("kmeans") else uniq
            ax.annotate(method, (x, y), xytext=(-8 if left else 8, 0),
                        textcoords="offset points", va="center",
                        ha="right" if left else "left", fontsize=8)
    ax.axhline(1, color="black", linewidth=0.8, zorder=1)
    ax.margins(x=0.15, y=0.12)


def save(fig, folder, name):
    """Both formats; returns the SVG's text."""
    path = folder / f"{name}.svg"
    fig.savefig(path, metadata={"Date": None})
    fig.savefig(folder / f"{name}.png", dpi=160)
    plt.close(fig)
    return path.read_text(encoding="utf-8")


def draw(section, folder, several):
    """All plots of a section; returns {name: SVG text}."""
    suffix = f"-{section.dataset}-{section.nlist}" if several else ""
    figures = {
        "overview": overview_figure(section),
        "recall_dco": curves_figure(
            section,
            (("dco_raw", "list entries scanned per query (raw)"),
             ("dco_unique", "distances computed per query (unique)")),
            "Recall against distance computations"),
        "recall_qps": curves_figure(
            section, (("qps", "queries per second"),),
            "Recall against speed"),
        "gain": gain_figure(section),
    }
    return {name: save(fig, folder, name + suffix)
            for name, fig in figures.items() if fig is not None}
