// The page's start: shows the view that the address names. In: the address. Out: the view in <main>.

import * as api from "./api.js";
import { el, problem } from "./dom.js";
import * as place from "./place.js";
import * as runs from "./runs.js";
import * as trying from "./trying.js";

const VIEWS = { try: { show: trying.show, title: "Try" }, runs: { show: runs.show, title: "Runs" } };

let leave;

async function show() {
  leave?.abort();
  leave = new AbortController();
  const { signal } = leave;
  const name = place.get("view", "try") in VIEWS ? place.get("view", "try") : "try";
  for (const link of document.querySelectorAll("nav [data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${VIEWS[name].title} – Hearth`;
  const main = document.getElementById("main");
  try {
    const view = await VIEWS[name].show(signal);
    if (!signal.aborted) main.replaceChildren(...view);
  } catch (error) {
    if (signal.aborted) return;
    if (!(error instanceof api.ServerError)) throw error;
    const again = el("button", { type: "button", onclick: show }, "Try again");
    main.replaceChildren(el("h1", {}, VIEWS[name].title), problem(error.message), again);
  }
}

addEventListener("hashchange", show);
show();
