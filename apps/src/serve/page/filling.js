// Fills the blanks of a text. In: a text with [MASK] in it. Out: the likeliest tokens of each blank.

import * as api from "./api.js";
import { Missing, bench, numberInput, numberOf, options } from "./bench.js";
import { el, field, percent } from "./dom.js";
import * as place from "./place.js";
import { bars } from "./results.js";

const MASK = "[MASK]";
const ANY = /\[MASK\]|<mask>/;

function insert(area) {
  const { selectionStart: from, selectionEnd: to, value } = area;
  const isJoined = (letter) => letter !== undefined && !/\s/.test(letter);
  const before = isJoined(value[from - 1]) ? " " : "";
  const after = isJoined(value[to]) && !/[.,;:!?]/.test(value[to]) ? " " : "";
  area.setRangeText(before + MASK + after, from, to, "end");
  place.write({ masked: area.value });
  area.focus();
}

// A token of the middle of a word as its letters.
const letters = (token) => token.replace(/^##/, "").replace(/^[Ġ▁]/, "");

function filled(text, masks) {
  const parts = text.split(ANY);
  return el("p", { class: "marked big", dir: "auto" }, parts.map((part, at) => [part,
    at < masks.length && at < parts.length - 1 && el("mark", { class: "entity c0" }, letters(masks[at].guesses[0]?.token ?? "…"))]));
}

export function fill(model) {
  const area = el("textarea", { rows: 4, dir: "auto", spellcheck: "false", placeholder: `A small ${MASK} that sings`, oninput: () => place.write({ masked: area.value }) });
  area.value = place.get("masked");
  const top = numberInput(5, { min: 1, max: 1000, step: 1 });
  const button = el("button", { type: "button", class: "small", onclick: () => insert(area) }, `Insert ${MASK}`);
  const work = async (output, signal) => {
    const text = area.value;
    if (!ANY.test(text)) throw new Missing(`The text has no blank: put ${MASK} where a word is wanted.`, area);
    const { masks } = await api.post("/v1/fill-mask", { model: model.id, text, top: numberOf(top, "How many to show") }, signal);
    const lists = masks.map(({ guesses }, at) => [masks.length > 1 && el("h3", {}, `Blank ${at + 1}`),
      bars(`Blank ${at + 1}, the likeliest first`, guesses.map(({ token, probability }) => ({ name: token, probability })), { name: "Token" })]);
    output.replaceChildren(filled(text, masks), ...lists.flat().filter(Boolean));
    return masks.map(({ guesses: [first] }) => first && `${letters(first.token)}, ${percent(first.probability)}`).join("; ");
  };
  const fields = [field("Text with blanks", area), button];
  return bench({ fields, button: "Fill", work, empty: "The likeliest words appear here.", options: [options(field("Show at most", top))] }).node;
}
