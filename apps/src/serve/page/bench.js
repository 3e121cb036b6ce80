// A form beside its result. In: fields and what to do with them. Out: the two, with waiting, stopping and errors taken care of.

import { announce, el, problem, quiet } from "./dom.js";

// Of the person's input: shown at the field that is meant.
export class Missing extends Error {
  constructor(message, input) {
    super(message);
    this.input = input;
  }
}

// - fields: nodes of the form
// - work(output, signal): fills the output and returns a sentence for screen readers
export function bench({ fields, button, work, empty, canStop = false, options = [] }) {
  const output = el("div", { class: "output" }, quiet(empty));
  const start = el("button", { class: "main" }, button);
  const stop = el("button", { type: "button", hidden: true, onclick: () => leaving?.abort() }, "Stop");
  let leaving;
  // The focus never stays on a button that is gone.
  const setBusy = (isBusy) => {
    const [from, to] = isBusy ? [start, stop] : [stop, start];
    const hadFocus = document.activeElement === from;
    start.classList.toggle("busy", isBusy);
    start.disabled = isBusy && canStop;
    stop.hidden = !(isBusy && canStop);
    if (hadFocus && canStop) to.focus();
  };
  const submit = async (event) => {
    event?.preventDefault();
    leaving?.abort();
    const mine = leaving = new AbortController();
    form.querySelectorAll("[aria-invalid]").forEach((input) => input.removeAttribute("aria-invalid"));
    result.setAttribute("aria-busy", "true");
    setBusy(true);
    try {
      announce(await work(output, mine.signal));
    } catch (error) {
      if (error.name === "AbortError") return;
      output.replaceChildren(problem(error.message));
      error.input?.setAttribute("aria-invalid", "true");
      error.input?.focus();
    } finally {
      if (leaving === mine) {
        result.removeAttribute("aria-busy");
        setBusy(false);
      }
    }
  };
  const onkeydown = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !start.disabled) submit(event);
  };
  const form = el("form", { class: "card", novalidate: true, onsubmit: submit, onkeydown }, fields, options,
    el("div", { class: "buttons" }, start, stop));
  const result = el("section", { class: "card", "aria-label": "Result" }, el("h2", {}, "Result"), output);
  const node = el("div", { class: "bench" }, form, result);
  return { node, form, submit };
}

// Options side by side, out of the way until they are wanted.
export const options = (...fields) => el("details", { class: "options" }, el("summary", {}, "Options"), el("div", { class: "grid" }, fields));

export function numberInput(value, attributes) {
  return el("input", { type: "number", value, inputmode: "decimal", ...attributes });
}

export function numberOf(input, name) {
  const value = input.value.trim() === "" ? undefined : Number(input.value);
  const { min, max } = input;
  if (input.validity.badInput || Number.isNaN(value) || (value !== undefined && ((min !== "" && value < min) || (max !== "" && value > max)))) {
    throw new Missing(`${name} is a number from ${min || "0"}${max === "" ? "" : ` to ${max}`}.`, input);
  }
  return value;
}
