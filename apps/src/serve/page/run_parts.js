// Parts of the view of runs. In: records, matrices, samples. Out: tables and pictures.

import * as api from "./api.js";
import { details, el, figure, named, problem, quiet, select, share, svg, table, words } from "./dom.js";

// Names of metrics of which less is better.
const LOWER = /loss|perplexity|error|bits|mse|mae|brier|distance|(^|_)[wc]er($|_)/;

export const isLower = (metric) => LOWER.test(metric);

// Of a validation where there is one, else of training.
export function bestOf(records, metric) {
  const having = records.filter((record) => Number.isFinite(record.metrics?.[metric]));
  const valid = having.filter((record) => record.split === "valid");
  const all = valid.length ? valid : having;
  if (!all.length) return undefined;
  const isBetter = (a, b) => (isLower(metric) ? a.metrics[metric] < b.metrics[metric] : a.metrics[metric] > b.metrics[metric]);
  const best = all.reduce((a, b) => (isBetter(b, a) ? b : a));
  return { best: best.metrics[metric], step: best.step, last: all.at(-1).metrics[metric], split: all[0].split };
}

export function comparison(runs, metrics, metric, onchoose) {
  const rows = runs.map((run) => ({ run, ...bestOf(run.records, metric) })).filter((row) => row.best !== undefined);
  rows.sort((a, b) => (isLower(metric) ? a.best - b.best : b.best - a.best));
  const most = Math.max(...rows.map((row) => Math.abs(row.best)), Number.MIN_VALUE);
  const line = ({ run, best, step, last, split }) => el("tr", {}, el("th", { scope: "row" }, named(run.colour, run.name)),
    el("td", { class: "number" }, figure(best)), el("td", { class: "bar", "aria-hidden": "true" }, share(el("div", { class: run.colour }), Math.abs(best) / most)),
    el("td", { class: "number" }, figure(step)), el("td", { class: "number" }, figure(last)), el("td", {}, split));
  const column = (name, isNumber) => el("th", { scope: "col", class: isNumber && "number" }, name);
  const head = [column("Run"), column(`Best ${words(metric)}`, true), el("td", {}), column("At step", true), column("Last", true), column("Split")];
  const caption = `${words(metric)}, ${isLower(metric) ? "the lowest" : "the highest"} first`;
  const picker = el("label", { class: "inline" }, "Compare by ", select(metrics.map((one) => [one, words(one)]), metric, onchoose));
  const body = rows.length ? el("div", { class: "wide", role: "region", "aria-label": caption, tabindex: "0" }, el("table", { class: "compare" }, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows.map(line)))) : quiet("None of the chosen runs has this metric.");
  const all = runs.map((run) => [run.name, ...metrics.map((one) => bestOf(run.records, one)?.best ?? NaN)]);
  return [picker, body, details("Best of every metric", table("Best of every metric", ["Run", ...metrics.map(words)], all))];
}

// Names across a matrix stand upright unless all are short, so that many fit.
export function confusion({ classes, matrix }, run) {
  const names = classes ?? matrix.map((_, at) => String(at));
  const isLong = names.some((name) => name.length > 3);
  const sums = matrix.map((row) => row.reduce((sum, value) => sum + value, 0));
  const right = matrix.reduce((sum, row, at) => sum + row[at], 0);
  const total = sums.reduce((sum, value) => sum + value, 0);
  const cell = (count, truth, said) => share(el("td", { class: `heat number ${truth === said ? "right" : ""} ${count ? "" : "none"}`,
    title: `${names[truth]} taken for ${names[said]}: ${count}` }, count ? String(count) : "·"), sums[truth] ? count / sums[truth] : 0);
  const row = (counts, truth) => el("tr", {}, el("th", { scope: "row" }, names[truth]), counts.map((count, said) => cell(count, truth, said)));
  const wrong = matrix.flatMap((counts, truth) => counts.map((count, said) => ({ count, truth, said }))).filter(({ count, truth, said }) => count && truth !== said);
  wrong.sort((a, b) => b.count - a.count);
  const caption = `Rows are the truth, columns what the model says; ${total ? `${(100 * right / total).toFixed(1)}% of ${total.toLocaleString("en")} are right` : "nothing is counted"}.`;
  return [el("div", { class: "wide tall", role: "region", "aria-label": `Confusion matrix of ${run}`, tabindex: "0" }, el("table", { class: "matrix confusion" }, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, el("td", {}), names.map((name) => el("th", { scope: "col" }, isLong ? el("span", {}, name) : name)))), el("tbody", {}, matrix.map(row)))),
  wrong.length > 0 && details("Most frequent mistakes", table(`Most frequent mistakes of ${run}`, ["Truth", "Taken for", "Times"],
    wrong.slice(0, 10).map(({ count, truth, said }) => [names[truth], names[said], count])))].filter(Boolean);
}

function sample(text) {
  if (text === null || typeof text !== "object") return el("p", { class: "prose", dir: "auto" }, String(text));
  const entry = ([name, value]) => el("div", {}, el("dt", {}, words(name)), el("dd", { dir: "auto" }, typeof value === "object" ? JSON.stringify(value) : String(value)));
  return el("dl", { class: "sample" }, Object.entries(text).map(entry));
}

export function samples({ pictures = [], texts = [] }) {
  const picture = ({ name, data }) => el("figure", { class: "sampled" }, el("img", { src: data, alt: words(name), loading: "lazy" }), el("figcaption", {}, words(name)));
  return [pictures.length > 0 && el("div", { class: "pictures" }, pictures.map(picture)),
    texts.length > 0 && el("ul", { class: "samples" }, texts.map((text) => el("li", {}, sample(text))))].filter(Boolean);
}

// Of one run: asked for when it is looked at, in a node that is there at once.
export function fetched(run, part, build, nothing) {
  const node = el("div", {}, quiet("Loading…"));
  api.get(`/v1/runs/${encodeURIComponent(run)}/${part}`).then((answer) => {
    const nodes = build(answer, run);
    node.replaceChildren(...(nodes.length ? nodes : [quiet(nothing)]));
  }).catch((error) => {
    if (!(error instanceof api.ServerError)) throw error;
    node.replaceChildren(error.status === 404 ? quiet(nothing) : problem(error.message));
  });
  return node;
}

// The key of the curves.
export function legend(runs, splits) {
  const drawn = (split) => (split === "test" ? svg("circle", { cx: 14, cy: 6, r: 4.5, class: "ring" })
    : svg("line", { x1: 0, x2: 28, y1: 6, y2: 6, class: `curve ${split === "train" ? "dashed" : ""}` }));
  const stroke = (split) => svg("svg", { viewBox: "0 0 28 12", class: "stroke", "aria-hidden": "true" }, drawn(split));
  return el("ul", { class: "key" }, runs.length > 1 && runs.map((run) => el("li", {}, named(run.colour, run.name))),
    splits.map((split) => el("li", {}, stroke(split), split)));
}
