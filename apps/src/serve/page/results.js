// What a model says, for a person. In: a prediction as the server gives it. Out: nodes, and a sentence for screen readers.

import { details, el, figure, named, percent, quiet, share, table } from "./dom.js";
import { boxesOver, maskOver } from "./overlay.js";

const COLOURS = 8;

export const colour = (names, name) => `c${Math.max(0, names.indexOf(name)) % COLOURS}`;

const cut = (text, from, to) => Array.from(text).slice(from, to).join("");

// Probabilities as bars in a table; plain numbers where they are values.
export function bars(caption, rows, { name = "Class", figure: measure = "Probability" } = {}) {
  const line = ({ name: text, probability, value, colour: of }) => el("tr", {},
    el("th", { scope: "row", dir: "auto" }, of ? named(of, text) : text),
    probability === undefined ? null : el("td", { class: "bar", "aria-hidden": "true" }, share(el("div", { class: of }), probability)),
    el("td", { class: "number" }, probability === undefined ? figure(value) : percent(probability)));
  const isValue = rows.some((row) => row.probability === undefined);
  return el("table", { class: "bars" }, el("caption", { class: "unseen" }, caption),
    el("thead", { class: "unseen" }, el("tr", {}, el("th", { scope: "col" }, name), !isValue && el("td", {}),
      el("th", { scope: "col" }, isValue ? "Value" : measure))),
    el("tbody", {}, rows.map(line)));
}

const best = ({ name, text, probability, value }) =>
  `${name ?? text ?? ""}, ${probability === undefined ? figure(value) : percent(probability)}`;

function classes(all, { model }) {
  if (!all.length) return [[quiet("No class is likely enough.")], "No class is likely enough."];
  const isValue = all[0].probability === undefined;
  // Where several may be true at once, none is the one.
  const isOne = isValue ? all.length === 1 : model.task !== "labels";
  const headline = isOne && el("p", { class: "headline" }, isValue ? figure(all[0].value) : all[0].name,
    !isValue && el("span", { class: "aside" }, percent(all[0].probability)));
  return [[headline, bars(isValue ? "Values" : "Classes, the likeliest first", all)], best(all[0])];
}

function choices(all) {
  return [[el("p", { class: "headline", dir: "auto" }, all[0].name), bars("Choices, the likeliest first", all, { name: "Choice" })], best(all[0])];
}

// A text with its marked parts on the colours of their names.
function marked(text, all, names, isPlain) {
  const parts = [];
  let at = 0;
  for (const one of [...all].sort((a, b) => a.start - b.start)) {
    if (one.start < at) continue;
    parts.push(cut(text, at, one.start), isPlain?.(one) ? cut(text, one.start, one.end)
      : el("mark", { class: `entity ${colour(names, one.name)}` }, cut(text, one.start, one.end), el("span", { class: "tag" }, one.name)));
    at = one.end;
  }
  return el("p", { class: "marked", dir: "auto" }, parts, cut(text, at));
}

function spans(all, { input }, title) {
  const names = [...new Set(all.map((one) => one.name))].sort();
  const rows = all.map((one) => [one.text, one.name, percent(one.probability)]);
  const text = input.text ?? "";
  // The tag that says that a word is nothing in particular.
  const isPlain = (one) => one.name === "O";
  return [marked(text, all, names, isPlain), all.length > 0 && details("As a table", table(title, ["Text", "Kind", "Probability"], rows))];
}

function entities(all, about) {
  const says = all.length ? `${all.length} found: ${all.map((one) => `${one.text}, ${one.name}`).join("; ")}` : "Nothing is found in this text.";
  return [[!all.length && quiet(says), spans(all, about, "Entities")], says];
}

const tagged = (all, about) => [spans(all, about, "Words"), `${all.length} words tagged`];

function answers(all, { input }) {
  const first = all[0];
  if (!first?.text) return [[el("p", { class: "headline" }, "The text holds no answer"), all.length > 1 && answerBars(all)], "The text holds no answer"];
  const context = el("p", { class: "marked", dir: "auto" }, cut(input.text, 0, first.start),
    el("mark", { class: "entity c0" }, cut(input.text, first.start, first.end)), cut(input.text, first.end));
  return [[el("p", { class: "headline", dir: "auto" }, first.text, el("span", { class: "aside" }, percent(first.probability))), context, answerBars(all)], best(first)];
}

const answerBars = (all) => bars("Answers, the best first", all.map((one) => ({ ...one, name: one.text || "no answer" })), { name: "Answer" });

function texts(all) {
  const item = ({ text, score }) => el("li", { dir: "auto" }, text || el("em", {}, "nothing"),
    score !== undefined && el("span", { class: "aside" }, `score ${figure(score)}`));
  return [[el("ol", { class: all.length > 1 ? "texts" : "texts one" }, all.map(item))], all[0]?.text || "Nothing was written"];
}

const KINDS = { classes, choices, entities, words: tagged, answers, texts, mask: maskOver, boxes: boxesOver };

// - about: {model, input, picture}
export function resultOf(prediction, about) {
  if (prediction.error) throw new Error(`Nothing to say: the input ${prediction.error}.`);
  const kind = Object.keys(KINDS).find((name) => prediction[name] !== undefined);
  if (!kind) throw new Error("The server said something that this page does not know.");
  const [nodes, says] = KINDS[kind](prediction[kind], about);
  return { nodes: nodes.flat().filter(Boolean), says };
}
