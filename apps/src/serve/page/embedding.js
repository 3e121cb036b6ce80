// How alike texts are. In: texts, one a line. Out: the cosine of each pair as a heat table, and the closest pairs.

import * as api from "./api.js";
import { Missing, bench } from "./bench.js";
import { brief, el, field, share } from "./dom.js";
import * as place from "./place.js";

const MOST = 40;

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, at) => sum + value * y[at], 0);
  return dot(a, b) / (Math.sqrt(dot(a, a) * dot(b, b)) || 1);
}

function matrix(texts, vectors) {
  const cell = (a, b) => share(el("td", { class: "heat number" }, cosine(a, b).toFixed(2)), cosine(a, b));
  const row = (text, at) => el("tr", {}, el("th", { scope: "row", dir: "auto", title: text }, `${at + 1}. ${brief(text, 32)}`),
    vectors.map((other) => cell(vectors[at], other)));
  return el("div", { class: "wide", role: "region", "aria-label": "Similarity of each pair", tabindex: "0" }, el("table", { class: "matrix" },
    el("caption", {}, "Similarity of each pair (cosine, 1 is the same direction)"),
    el("thead", {}, el("tr", {}, el("td", {}), texts.map((_, at) => el("th", { scope: "col" }, String(at + 1))))), el("tbody", {}, texts.map(row))));
}

export function embed(model) {
  const area = el("textarea", { rows: 7, dir: "auto", spellcheck: "false", placeholder: "A bird that sings\nAn animal with feathers\nA machine that flies", oninput: () => place.write({ lines: area.value }) });
  area.value = place.get("lines");
  const work = async (output, signal) => {
    const texts = area.value.split("\n").map((line) => line.trim()).filter(Boolean);
    if (texts.length < 2) throw new Missing("At least two texts are needed, one a line.", area);
    if (texts.length > MOST) throw new Missing(`At most ${MOST} texts fit on the page.`, area);
    const { data } = await api.post("/v1/embeddings", { model: model.id, input: texts }, signal);
    const vectors = data.toSorted((a, b) => a.index - b.index).map((one) => one.embedding);
    const pairs = texts.flatMap((a, i) => texts.slice(i + 1).map((b, j) => ({ a, b, alike: cosine(vectors[i], vectors[i + 1 + j]) })));
    pairs.sort((a, b) => b.alike - a.alike);
    const item = ({ a, b, alike }) => el("li", { dir: "auto" }, el("strong", {}, alike.toFixed(2)), ` ${brief(a)} ↔ ${brief(b)}`);
    output.replaceChildren(matrix(texts, vectors), el("h3", {}, "Closest pairs"), el("ol", { class: "plain" }, pairs.slice(0, 3).map(item)),
      el("p", { class: "hint" }, `Vectors of ${vectors[0].length} numbers.`));
    return `The closest are ${brief(pairs[0].a)} and ${brief(pairs[0].b)}, ${pairs[0].alike.toFixed(2)}`;
  };
  return bench({ fields: [field("Texts, one a line", area)], button: "Compare", work, empty: "How alike the texts are appears here." }).node;
}
