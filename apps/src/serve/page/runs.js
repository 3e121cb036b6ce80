// The view of runs. In: what the server knows of its folder of runs. Out: curves that grow, comparisons, mistakes, samples.

import * as api from "./api.js";
import { announce, el, figure, named, problem, quiet, select, tabs, words } from "./dom.js";
import { chart } from "./curves.js";
import * as place from "./place.js";
import { comparison, confusion, fetched, legend, samples } from "./run_parts.js";

const EVERY = 2000;
const COLOURS = 8;
const AXES = { step: "step", epoch: "epoch", minutes: "minutes" };

const isRunning = (run) => run.state === "running";
const at = { step: (record) => record.step, epoch: (record) => record.epoch, minutes: (record) => record.seconds / 60 };

class RunsView {
  constructor(signal) {
    this.signal = signal;
    this.runs = [];
    // Records by run, and the byte up to which they were read.
    this.read = new Map();
    this.charts = new Map();
    this.axis = place.get("axis") in AXES ? place.get("axis") : "step";
    this.isLog = place.get("log") === "1";
    this.list = el("ul", { class: "runs" });
    this.body = el("div", {});
    this.wrong = el("div", {});
  }

  chosen() {
    const names = place.read().getAll("run");
    const chosen = this.runs.filter((run) => names.includes(run.name));
    if (chosen.length || names.length) return chosen;
    return [this.runs.find(isRunning) ?? this.runs[0]].filter(Boolean);
  }

  // A run keeps its colour as long as it is chosen.
  colour(name) {
    this.colours ??= new Map();
    const names = this.chosen().map((run) => run.name);
    for (const known of [...this.colours.keys()]) if (!names.includes(known)) this.colours.delete(known);
    if (names.includes(name) && !this.colours.has(name)) {
      const taken = [...this.colours.values()];
      this.colours.set(name, [...Array(COLOURS).keys()].find((one) => !taken.includes(one)) ?? taken.length % COLOURS);
    }
    return this.colours.has(name) ? `c${this.colours.get(name)}` : "";
  }

  async load() {
    const { data } = await api.get("/v1/runs", this.signal);
    for (const run of data) {
      const before = this.runs.find((one) => one.name === run.name);
      if (before && isRunning(before) && !isRunning(run)) announce(`${run.name}: ${words(run.state)}`);
    }
    // What grows comes first: a narrow window shows few of them at once.
    this.runs = [...data.filter(isRunning), ...data.filter((run) => !isRunning(run))];
    await Promise.all(this.chosen().map((run) => this.loadRecords(run)));
  }

  async loadRecords(run) {
    const known = this.read.get(run.name) ?? { records: [], next: 0, isWhole: false };
    if (known.isWhole) return;
    const { records, next } = await api.get(`/v1/runs/${encodeURIComponent(run.name)}/metrics?from=${known.next}`, this.signal);
    // A resumed run forgets what came after its checkpoint: its file is shorter, and the server starts it again.
    const all = next < known.next ? records : [...known.records, ...records];
    this.read.set(run.name, { records: all, next, isWhole: !records.length && !isRunning(run) });
    // An answer holds no more than a few MiB.
    if (records.length) await this.loadRecords(run);
  }

  shown() {
    return this.chosen().map((run) => ({ ...run, colour: this.colour(run.name), records: this.read.get(run.name)?.records ?? [] }));
  }

  metrics() {
    const names = this.shown().flatMap((run) => run.records.flatMap((record) => Object.keys(record.metrics ?? {})));
    const main = this.chosen()[0]?.metric;
    const rank = (name) => (name === main ? 0 : name === "loss" ? 1 : 2);
    return [...new Set(names)].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  }

  drawList() {
    const names = this.chosen().map((run) => run.name);
    const known = new Map([...this.list.children].map((item) => [item.dataset.run, item]));
    const items = this.runs.map((run) => {
      const item = known.get(run.name) ?? this.item(run.name);
      item.querySelector("input").checked = names.includes(run.name);
      item.querySelector(".swatch").className = `swatch ${this.colour(run.name) || "off"}`;
      const best = typeof run.best === "number" && `${words(run.metric)} ${figure(run.best)}`;
      const epochs = typeof run.epochs === "number" && `${+run.epochs.toFixed(1)} epochs`;
      item.querySelector(".quiet").textContent = [run.command, epochs, best].filter(Boolean).join(" · ");
      const badge = item.querySelector(".badge");
      badge.textContent = words(run.state);
      badge.className = `badge ${["running", "failed"].includes(run.state) ? run.state : ""}`;
      return item;
    });
    // Left alone where nothing is new, so that the focus stays.
    if (items.some((item, number) => item !== this.list.children[number]) || items.length !== this.list.children.length) this.list.replaceChildren(...items);
  }

  item(name) {
    const choose = async () => {
      place.write({ run: [...this.list.querySelectorAll("input:checked")].map((input) => input.value) });
      if (!place.read().has("run")) place.write({ run: "-" });
      await this.refresh(true);
    };
    return el("li", { "data-run": name }, el("label", {}, el("input", { type: "checkbox", value: name, onchange: choose }), el("span", { class: "swatch off", "aria-hidden": "true" }),
      el("span", { class: "run-name" }, name), el("span", { class: "badge" }), el("span", { class: "quiet small" })));
  }

  curvesOf(metric) {
    const splits = ["train", "valid", "test"];
    const isMany = this.shown().length > 1;
    return this.shown().flatMap((run) => splits.map((split) => ({
      name: isMany ? `${run.name} ${split}` : split, colour: run.colour, isDashed: split === "train", isPoint: split === "test",
      points: run.records.filter((record) => record.split === split && Number.isFinite(record.metrics?.[metric])).map((record) => ({ x: at[this.axis](record), y: record.metrics[metric] })),
    })));
  }

  rates() {
    return this.shown().map((run) => ({ name: run.name, colour: run.colour, points: run.records.filter((record) => Number.isFinite(record.lr)).map((record) => ({ x: at[this.axis](record), y: record.lr })) }));
  }

  drawCurves() {
    const plots = [...this.metrics().map((metric) => [metric, this.curvesOf(metric)]), ["learning rate", this.rates()]];
    for (const [name, curves] of plots) {
      if (!this.charts.has(name)) this.charts.set(name, chart(name, AXES[this.axis]));
      this.charts.get(name).draw(curves, this.isLog && curves.every((curve) => curve.points.every((point) => point.y > 0)));
    }
    const nodes = plots.map(([name]) => this.charts.get(name).node);
    if (nodes.some((node, number) => node !== this.grid.children[number])) this.grid.replaceChildren(...nodes);
    const splits = ["train", "valid", "test"].filter((split) => this.shown().some((run) => run.records.some((record) => record.split === split)));
    this.key.replaceChildren(legend(this.shown(), splits));
    this.nothing.hidden = this.metrics().length > 0;
  }

  buildCurves() {
    this.grid = el("div", { class: "plots" });
    this.key = el("div", {});
    this.nothing = quiet("No figures yet: the first come after a few steps.");
    const axis = select(Object.entries(AXES).map(([id, name]) => [id, `${name}${id === "minutes" ? "" : "s"}`]), this.axis, (id) => {
      this.axis = id;
      this.charts.clear();
      place.write({ axis: id });
      this.drawCurves();
    });
    const log = el("input", { type: "checkbox", checked: this.isLog, onchange: () => {
      this.isLog = log.checked;
      place.write({ log: log.checked ? "1" : null });
      this.drawCurves();
    } });
    this.charts.clear();
    this.drawCurves();
    return el("div", {}, el("div", { class: "controls" }, el("label", { class: "inline" }, "Over ", axis), el("label", { class: "inline" }, log, " Logarithmic"), this.key), this.nothing, this.grid);
  }

  buildComparison() {
    this.compared = el("div", {});
    this.drawComparison();
    return this.compared;
  }

  drawComparison() {
    // Not while a person is choosing.
    if (this.compared.contains(document.activeElement)) return;
    const metrics = this.metrics();
    if (!metrics.length) return this.compared.replaceChildren(quiet("No figures yet."));
    const metric = metrics.includes(place.get("metric")) ? place.get("metric") : metrics[0];
    this.compared.replaceChildren(...comparison(this.shown(), metrics, metric, (chosen) => {
      place.write({ metric: chosen });
      document.activeElement.blur();
      this.drawComparison();
      this.compared.querySelector("select").focus();
    }));
  }

  each(part, build, nothing) {
    const runs = this.shown();
    return el("div", {}, runs.map((run) => [runs.length > 1 && el("h2", {}, named(run.colour, run.name)), fetched(run.name, part, build, nothing)]));
  }

  build() {
    if (!this.runs.length) return this.body.replaceChildren(quiet("There are no runs. Say where they are as the server is started: ", el("code", {}, "apps serve MODEL --runs runs")));
    if (!this.chosen().length) return this.body.replaceChildren(quiet("Choose one run or several."));
    const entries = [
      { id: "curves", title: "Curves", build: () => this.buildCurves() },
      { id: "compare", title: "Compare", build: () => this.buildComparison() },
      { id: "confusion", title: "Mistakes", build: () => this.each("confusion", confusion, "This run has no confusion matrix.") },
      { id: "samples", title: "Samples", build: () => this.each("samples", samples, "This run has drawn or written no samples.") },
    ];
    this.body.replaceChildren(tabs("What to see of the runs", entries, place.get("show"), (show) => place.write({ show })));
  }

  async refresh(isNew) {
    try {
      await this.load();
      this.wrong.replaceChildren();
    } catch (error) {
      if (this.signal.aborted || !(error instanceof api.ServerError)) throw error;
      if (!this.wrong.children.length) this.wrong.replaceChildren(problem(error.message));
      return;
    }
    this.drawList();
    if (isNew || !this.body.children.length) return this.build();
    const show = place.get("show", "curves");
    if (show === "curves" && this.grid) this.drawCurves();
    if (show === "compare" && this.compared) this.drawComparison();
  }

  async watch() {
    while (!this.signal.aborted) {
      await new Promise((resolve) => { setTimeout(resolve, EVERY); });
      if (this.signal.aborted) return;
      try {
        if (!document.hidden) await this.refresh(false);
      } catch (error) {
        if (!this.signal.aborted) throw error;
      }
    }
  }
}

export async function show(signal) {
  const view = new RunsView(signal);
  await view.load();
  view.drawList();
  view.build();
  view.watch();
  const list = view.runs.length > 0 && el("section", { class: "card side", "aria-label": "Runs to look at" }, view.list);
  return [el("h1", {}, "Runs"), view.wrong, el("div", { class: view.runs.length ? "watch" : "" }, list || "", view.body)];
}
