// What a model reads, as a form. In: how it reads. Out: fields, and what they hold as the server wants it.

import { Missing } from "./bench.js";
import { details, el, field } from "./dom.js";
import { pictureInput } from "./picture.js";
import * as place from "./place.js";

// A text that is kept in the address.
function textArea(key, rows, placeholder) {
  const area = el("textarea", { rows, placeholder, dir: "auto", spellcheck: "false", oninput: () => place.write({ [key]: area.value }) });
  area.value = place.get(key);
  return area;
}

function needed(input, what) {
  if (!input.value.trim()) throw new Missing(`${what} is missing.`, input);
  return input.value;
}

function texts() {
  const text = textArea("text", 4, "Type or paste a text");
  const pair = textArea("pair", 2, "");
  // Most models read one text.
  const second = details("Add a second text", field("Second text", pair, "For models that compare two."));
  second.open = pair.value !== "";
  return {
    fields: [field("Text", text), second],
    read: () => {
      const input = { text: needed(text, "The text") };
      return pair.value.trim() ? { ...input, pair: pair.value } : input;
    },
  };
}

function sentence() {
  const text = textArea("text", 4, "Type or paste a sentence");
  return { fields: [field("Sentence", text)], read: () => ({ text: needed(text, "The sentence") }) };
}

function question() {
  const context = textArea("text", 6, "A text that holds the answer");
  const asked = textArea("question", 2, "What do you want to know?");
  return {
    fields: [field("Context", context), field("Question", asked)],
    read: () => ({ text: needed(context, "The context"), question: needed(asked, "The question") }),
  };
}

function choices() {
  const asked = textArea("text", 3, "A question or the start of a story");
  const list = el("div", { class: "choices" });
  const keep = () => place.write({ choice: inputs().map((input) => input.value) });
  const inputs = () => [...list.querySelectorAll("input")];
  const number = () => inputs().forEach((input, at) => {
    input.setAttribute("aria-label", `Choice ${at + 1}`);
    input.nextSibling.setAttribute("aria-label", `Remove choice ${at + 1}`);
    input.nextSibling.disabled = inputs().length <= 2;
  });
  const add = (text = "") => {
    const input = el("input", { type: "text", value: text, dir: "auto", oninput: keep });
    const remove = el("button", { type: "button", class: "small", onclick: () => { row.remove(); number(); keep(); inputs().at(-1).focus(); } }, "Remove");
    const row = el("div", { class: "row" }, input, remove);
    list.append(row);
    number();
    return input;
  };
  const kept = place.read().getAll("choice");
  [...kept, "", ""].slice(0, Math.max(2, kept.length)).forEach(add);
  const more = el("button", { type: "button", class: "small", onclick: () => add().focus() }, "Add a choice");
  return {
    fields: [field("Question", asked), el("fieldset", {}, el("legend", {}, "Choices"), list, more)],
    read: () => {
      const text = needed(asked, "The question");
      const given = inputs().map((input) => input.value).filter((choice) => choice.trim());
      if (given.length < 2) throw new Missing("At least two choices are needed.", inputs().find((input) => !input.value.trim()));
      return { text, choices: given };
    },
  };
}

function source() {
  const text = textArea("text", 6, "The text to work on");
  return { fields: [field("Text", text)], read: () => ({ text: needed(text, "The text") }) };
}

const KINDS = { texts, sentence, question, choices, source };

// - onready: called where an input is whole without a press of the button, as a dropped image is
export function inputOf(model, onready) {
  if (model.reads === "image") return pictureInput(model.view, onready);
  return (KINDS[model.reads] ?? texts)();
}
