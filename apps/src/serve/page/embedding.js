// How alike texts or images are. In: texts, one a line, or files. Out: the cosine of each pair as a heat table, and the closest pairs.

import * as api from "./api.js";
import { Missing, bench } from "./bench.js";
import { brief, el, field, share } from "./dom.js";
import { readFile } from "./picture.js";
import * as place from "./place.js";

const MOST = 40;

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, at) => sum + value * y[at], 0);
  return dot(a, b) / (Math.sqrt(dot(a, a) * dot(b, b)) || 1);
}

// - things: [{name, url}], where images have a URL
function matrix(things, vectors) {
  const cell = (a, b) => share(el("td", { class: "heat number" }, cosine(a, b).toFixed(2)), cosine(a, b));
  const picture = (url) => url && el("img", { src: url, alt: "", class: "thumb" });
  const row = ({ name, url }, at) => el("tr", {}, el("th", { scope: "row", dir: "auto", title: name }, picture(url), `${at + 1}. ${brief(name, 32)}`),
    vectors.map((other) => cell(vectors[at], other)));
  const head = things.map(({ url }, at) => el("th", { scope: "col" }, picture(url), String(at + 1)));
  return el("div", { class: "wide", role: "region", "aria-label": "Similarity of each pair", tabindex: "0" }, el("table", { class: "matrix" },
    el("caption", {}, "Similarity of each pair (cosine, 1 is the same direction)"),
    el("thead", {}, el("tr", {}, el("td", {}), head)), el("tbody", {}, things.map(row))));
}

function texts() {
  const area = el("textarea", { rows: 7, dir: "auto", spellcheck: "false", placeholder: "A bird that sings\nAn animal with feathers\nA machine that flies", oninput: () => place.write({ lines: area.value }) });
  area.value = place.get("lines");
  const read = async () => area.value.split("\n").map((line) => line.trim()).filter(Boolean).map((name) => ({ name, input: name }));
  return { fields: [field("Texts, one a line", area)], input: area, what: "texts, one a line", read };
}

function images() {
  const file = el("input", { type: "file", accept: "image/*", multiple: true });
  const read = () => Promise.all([...file.files].map(async (one) => {
    const { url, name } = await readFile(one);
    return { name, url, input: { image: url } };
  }));
  return { fields: [field("Images", file, "Choose several at once.")], input: file, what: "images", read };
}

export function embed(model) {
  const { fields, input, what, read } = model.view ? images() : texts();
  const work = async (output, signal) => {
    const things = await read();
    if (things.length < 2) throw new Missing(`At least two ${what} are needed.`, input);
    if (things.length > MOST) throw new Missing(`At most ${MOST} fit on the page.`, input);
    const { data } = await api.post("/v1/embeddings", { model: model.id, input: things.map((thing) => thing.input) }, signal);
    const vectors = data.toSorted((a, b) => a.index - b.index).map((one) => one.embedding);
    const pairs = things.flatMap((a, i) => things.slice(i + 1).map((b, j) => ({ a: a.name, b: b.name, alike: cosine(vectors[i], vectors[i + 1 + j]) })));
    pairs.sort((a, b) => b.alike - a.alike);
    const item = ({ a, b, alike }) => el("li", { dir: "auto" }, el("strong", {}, alike.toFixed(2)), ` ${brief(a)} ↔ ${brief(b)}`);
    output.replaceChildren(matrix(things, vectors), el("h3", {}, "Closest pairs"), el("ol", { class: "plain" }, pairs.slice(0, 3).map(item)),
      el("p", { class: "hint" }, `Vectors of ${vectors[0].length} numbers.`));
    return `The closest are ${brief(pairs[0].a)} and ${brief(pairs[0].b)}, ${pairs[0].alike.toFixed(2)}`;
  };
  return bench({ fields, button: "Compare", work, empty: "How alike they are appears here." }).node;
}
