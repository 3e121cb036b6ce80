// Why a model says a class. In: an input and its prediction. Out: its tokens or its image coloured, with the numbers.

import * as api from "./api.js";
import { announce, details, el, field, figure, percent, problem, select, share, table } from "./dom.js";

const METHODS = {
  "integrated-gradients": "Integrated gradients", occlusion: "Occlusion", "attention-rollout": "Attention rollout", "grad-cam": "Grad-CAM",
};

const methodsOf = (model) => Object.entries(METHODS).filter(([method]) => method !== (model.reads === "image" ? "attention-rollout" : "grad-cam"));

// As the text has it; a special token by its name.
const spelling = ({ text, token }) => text.trim() || token;

// The tokens in a row, spaced as their text is.
function coloured(tokens) {
  const most = Math.max(...tokens.map((token) => Math.abs(token.score)), Number.MIN_VALUE);
  const parts = tokens.flatMap((token, at) => {
    const before = tokens[at - 1];
    const joined = before && token.start !== null && before.part === token.part && before.end === token.start;
    const mark = el("mark", { class: token.score < 0 ? "token against" : "token for" }, spelling(token));
    return [joined ? "" : " ", share(mark, Math.abs(token.score) / most)];
  });
  return el("p", { class: "marked", dir: "auto" }, parts);
}

function shown(answer) {
  const nodes = [el("p", {}, "For ", el("strong", {}, answer.class), answer.probability !== undefined && `, ${percent(answer.probability)}`)];
  if (answer.tokens) {
    const rows = answer.tokens.map((token) => [token.token, token.score]);
    nodes.push(coloured(answer.tokens), details("Numbers of all tokens", table("Tokens", ["Token", "Score"], rows)));
  } else {
    nodes.push(el("img", { src: answer.picture, class: "explained", alt: `What the model sees, and what speaks for and against ${answer.class}` }));
  }
  nodes.push(el("p", { class: "hint legend" }, el("mark", { class: "token for full" }, "Blue"), " speaks for it, ",
    el("mark", { class: "token against full" }, "orange"), " against it."));
  if (typeof answer.completeness === "number") nodes.push(el("p", { class: "hint" }, `Completeness: the scores sum to what they should, with a relative error of ${figure(answer.completeness)}.`));
  return nodes;
}

export function explaining(model, input, prediction) {
  let [method] = methodsOf(model)[0];
  const said = prediction.classes?.map((one) => one.name) ?? [];
  const names = [...said, ...(model.classes ?? []).filter((name) => !said.includes(name))];
  let name = names[0];
  const output = el("div", {});
  const work = async (event) => {
    event.preventDefault();
    button.classList.add("busy");
    try {
      const answer = await api.post("/v1/explain", { model: model.id, input, method, class: name });
      output.replaceChildren(...shown(answer));
      announce(`Explained: ${answer.class}`);
    } catch (error) {
      output.replaceChildren(problem(error.message));
    } finally {
      button.classList.remove("busy");
    }
  };
  const button = el("button", {}, "Explain");
  const classes = names.length > 1 && field("Class", select(names.map((one) => [one, one]), name, (chosen) => { name = chosen; }));
  const form = el("form", { class: "explain", onsubmit: work }, field("Method", select(methodsOf(model), method, (chosen) => { method = chosen; })), classes, button);
  return el("section", { class: "more", "aria-label": "Explanation" }, el("h3", {}, "Why does it say so?"), form, output);
}
