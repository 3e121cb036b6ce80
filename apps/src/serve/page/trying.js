// The view to try a model. In: the models that are served. Out: a form for each thing that the chosen one can do.

import * as api from "./api.js";
import { bench, numberInput, numberOf, options } from "./bench.js";
import { chat } from "./chatting.js";
import { el, field, quiet, select, tabs, words } from "./dom.js";
import { embed } from "./embedding.js";
import { explaining } from "./explaining.js";
import { fill } from "./filling.js";
import { inputOf } from "./inputs.js";
import * as place from "./place.js";
import { resultOf } from "./results.js";
import { complete } from "./writing.js";

// What pressing the button does, by task.
const VERBS = {
  classification: "Classify", labels: "Label", regression: "Score", "token-classification": "Find", "question-answering": "Answer",
  "multiple-choice": "Choose", "text-to-text": "Write", segmentation: "Segment", detection: "Detect",
};

// In the order of their tabs.
const WAYS = [
  { id: "predict", title: (model) => VERBS[model.task] ?? "Predict", build: predict },
  { id: "fill-mask", title: () => "Fill the blank", build: fill },
  { id: "complete", title: () => "Complete", build: complete },
  { id: "chat", title: () => "Chat", build: chat },
  { id: "embed", title: () => "Compare", build: embed },
];

const MEANT_MANY = ["classification", "labels", "regression", "multiple-choice", "question-answering", "text-to-text"];

function predict(model) {
  const verb = VERBS[model.task] ?? "Predict";
  const input = inputOf(model, () => form.submit());
  const top = numberInput(5, { min: 1, max: 1000, step: 1 });
  const threshold = numberInput("", { min: 0, max: 1, step: "any", placeholder: "the model's own" });
  const chosen = [];
  if (MEANT_MANY.includes(model.task)) chosen.push(field("Show at most", top));
  if (model.has_threshold) chosen.push(field("From probability", threshold));
  const work = async (output, signal) => {
    const read = input.read();
    const body = { model: model.id, inputs: [read], top: numberOf(top, "How many to show"), threshold: numberOf(threshold, "The probability") };
    const { predictions } = await api.post("/v1/predict", body, signal);
    const { nodes, says } = resultOf(predictions[0], { model, input: read, picture: input.picture?.() });
    const more = model.can.includes("explain") ? [explaining(model, read, predictions[0])] : [];
    output.replaceChildren(...nodes, ...more);
    return says;
  };
  const form = bench({ fields: input.fields, button: verb, work, empty: "What the model says appears here.", options: chosen.length ? [options(...chosen)] : [] });
  return form.node;
}

function facts(model) {
  const n = model.classes?.length ?? 0;
  const list = [["Task", model.task && words(model.task.replaceAll("-", " "))], ["Family", model.family]];
  if (n) list.push(["Classes", n]);
  if (model.max_length) list.push(["Reads up to", `${model.max_length} tokens`]);
  if (model.view) list.push(["Sees", `${model.view[2]} × ${model.view[1]}, ${model.view[0] === 1 ? "grey" : "colour"}`]);
  const terms = list.filter(([, value]) => value).map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, String(value))));
  const names = n > 0 && el("details", { class: "classes" }, el("summary", {}, "Names of the classes"),
    el("ul", { class: "chips" }, model.classes.map((name) => el("li", {}, name))));
  return [el("dl", { class: "facts" }, terms), names];
}

export async function show(signal) {
  const { data: models } = await api.get("/v1/models", signal);
  const title = el("h1", {}, "Try a model");
  if (!models.length) return [title, quiet("No model is served. Name one where the server is started: ", el("code", {}, "apps serve MODEL"))];
  const body = el("div", {});
  const shown = () => models.find((model) => model.id === place.get("model")) ?? models[0];
  const build = () => {
    const model = shown();
    const ways = WAYS.filter((way) => model.can.includes(way.id)).map((way) => ({ id: way.id, title: way.title(model), build: () => way.build(model) }));
    const tried = ways.length ? tabs("What to do with the model", ways, place.get("do"), (id) => place.write({ do: id }))
      : quiet("This model has nothing to try here.");
    body.replaceChildren(el("div", { class: "about" }, facts(model)), tried);
  };
  const picker = select(models.map((model) => [model.id, model.id]), shown().id, (id) => { place.write({ model: id, do: null }); build(); });
  build();
  return [title, el("div", { class: "picker" }, field("Model", picker)), body];
}
