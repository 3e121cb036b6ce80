// A talk with a model. In: what a person says. Out: what the model answers, with all that was said before in its sight.

import { announce, el, field, problem, quiet } from "./dom.js";
import { sampling, write } from "./writing.js";

const WHO = { user: "You", assistant: "Model" };

function turn(role, content = "") {
  const text = el("p", { class: "prose", dir: "auto" }, content);
  return { node: el("li", { class: `turn ${role}` }, el("span", { class: "who" }, WHO[role]), text), text };
}

export function chat(model) {
  const said = [];
  const nothing = quiet("Say something to start.");
  const list = el("ol", { class: "talk", "aria-label": "What was said" });
  const system = el("textarea", { rows: 2, dir: "auto", placeholder: "How the model is to behave" });
  const area = el("textarea", { rows: 2, dir: "auto", placeholder: "Say something" });
  const wrong = el("div", {});
  const { fields, read } = sampling();
  let leaving;
  const setBusy = (isBusy) => {
    send.disabled = fresh.disabled = isBusy;
    stop.hidden = !isBusy;
    send.classList.toggle("busy", isBusy);
    if (isBusy && document.activeElement === send) stop.focus();
    else if (!isBusy) area.focus();
  };
  const ask = async (event) => {
    event.preventDefault();
    const content = area.value.trim();
    if (!content || send.disabled) return area.focus();
    wrong.replaceChildren();
    nothing.remove();
    const [mine, answer] = [turn("user", content), turn("assistant")];
    const below = el("p", { class: "hint" }, "Writing…");
    answer.node.append(below);
    answer.text.classList.add("streaming");
    list.append(mine.node, answer.node);
    area.value = "";
    leaving = new AbortController();
    setBusy(true);
    try {
      const before = system.value.trim() ? [{ role: "system", content: system.value }] : [];
      const messages = [...before, ...said, { role: "user", content }];
      below.textContent = await write("/v1/chat/completions", { model: model.id, messages, ...read() }, leaving.signal, (piece) => {
        answer.text.append(piece);
        answer.node.scrollIntoView({ block: "nearest" });
      });
      said.push({ role: "user", content }, { role: "assistant", content: answer.text.textContent });
      announce(answer.text.textContent);
    } catch (error) {
      // Nothing was said then: the words go back to where they were typed.
      mine.node.remove();
      answer.node.remove();
      area.value = content;
      wrong.replaceChildren(problem(error.message));
    } finally {
      answer.text.classList.remove("streaming");
      setBusy(false);
    }
  };
  const send = el("button", { class: "main" }, "Send");
  const stop = el("button", { type: "button", hidden: true, onclick: () => leaving?.abort() }, "Stop");
  const fresh = el("button", { type: "button", onclick: () => { said.length = 0; list.replaceChildren(); list.before(nothing); area.focus(); } }, "New talk");
  const onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) ask(event); };
  area.addEventListener("keydown", onkeydown);
  const form = el("form", { onsubmit: ask, novalidate: true }, field("Your message", area, "Enter sends, Shift and Enter starts a new line."),
    el("div", { class: "buttons" }, send, stop, fresh));
  const about = el("details", { class: "options" }, el("summary", {}, "Instructions"), field("Instructions for the model", system));
  return el("section", { class: "card chat", "aria-label": "Chat" }, nothing, list, wrong, form, about, fields);
}
