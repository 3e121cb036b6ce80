// Elements of the page. In: names, attributes, children. Out: nodes. What comes from data becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return node;
}

export const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);

export const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

// A number of 0 to 1 that the style sheet turns into a length or a shade.
export function share(node, value) {
  node.style.setProperty("--share", Math.max(0, Math.min(1, value || 0)).toFixed(4));
  return node;
}

let ids = 0;
export const newId = (of) => `${of}-${++ids}`;

// An input under its label.
export function field(label, input, hint) {
  input.id ||= newId("field");
  const under = hint && el("p", { class: "hint", id: `${input.id}-hint` }, hint);
  if (under) input.setAttribute("aria-describedby", under.id);
  return el("div", { class: "field" }, el("label", { for: input.id }, label), input, under);
}

export function select(options, chosen, onchange) {
  const option = ([value, text]) => el("option", { value, selected: value === chosen }, text);
  return el("select", { onchange: onchange && ((event) => onchange(event.target.value)) }, options.map(option));
}

export const problem = (text) => el("p", { class: "problem", role: "alert" }, text);

export const quiet = (...text) => el("p", { class: "quiet" }, ...text);

const isAligned = (value) => typeof value === "number" || /^[\d.]+%$/.test(value);

// Something with its colour before it.
export const named = (colour, ...text) => el("span", { class: "named" }, el("span", { class: `swatch ${colour}`, "aria-hidden": "true" }), ...text);

// A wide table that scrolls by itself and can be reached by keyboard.
export function table(caption, head, rows, { hideCaption = false } = {}) {
  const cell = (value, at) => {
    const text = typeof value === "number" ? figure(value) : value;
    return at === 0 ? el("th", { scope: "row" }, text) : el("td", { class: isAligned(value) && "number" }, text);
  };
  const columns = el("thead", {}, el("tr", {}, head.map((name, at) => el("th", { scope: "col", class: at > 0 && isAligned(rows[0]?.[at]) && "number" }, name))));
  const lines = rows.map((row) => el("tr", {}, row.map(cell)));
  return el("div", { class: "wide", role: "region", "aria-label": caption, tabindex: "0" },
    el("table", {}, el("caption", { class: hideCaption && "unseen" }, caption), columns, el("tbody", {}, lines)));
}

export const details = (summary, ...inside) => el("details", {}, el("summary", {}, summary), ...inside);

// Tabs that arrow keys move between; each entry is {id, title, build}, where build makes the panel.
export function tabs(label, entries, chosen, onchoose) {
  const panel = el("div", { role: "tabpanel", id: newId("panel"), class: "panel" });
  const buttons = entries.map(({ id, title }) => el("button", {
    type: "button", role: "tab", id: newId(`tab-${id}`), "aria-controls": panel.id, onclick: () => choose(id, true),
  }, title));
  const choose = (id, isNew) => {
    const at = Math.max(0, entries.findIndex((entry) => entry.id === id));
    buttons.forEach((button, number) => {
      button.setAttribute("aria-selected", String(number === at));
      button.tabIndex = number === at ? 0 : -1;
    });
    panel.setAttribute("aria-labelledby", buttons[at].id);
    if (isNew) onchoose?.(entries[at].id);
    panel.replaceChildren(entries[at].build());
  };
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  const onkeydown = (event) => {
    const at = buttons.indexOf(event.target);
    const to = event.key === "Home" ? 0 : event.key === "End" ? buttons.length - 1
      : event.key in step ? (at + step[event.key] + buttons.length) % buttons.length : -1;
    if (at < 0 || to < 0) return;
    event.preventDefault();
    choose(entries[to].id, true);
    buttons[to].focus();
  };
  choose(chosen, false);
  if (entries.length < 2) return panelAlone(panel);
  return el("div", { class: "tabs" }, el("div", { role: "tablist", "aria-label": label, onkeydown }, buttons), panel);
}

function panelAlone(panel) {
  panel.removeAttribute("role");
  panel.removeAttribute("aria-labelledby");
  return panel;
}

// Read aloud by a screen reader when it is idle.
export function announce(text) {
  const announcer = document.getElementById("announcer");
  announcer.textContent = "";
  setTimeout(() => { announcer.textContent = text; }, 50);
}

export function figure(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en");
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2);
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4);
}

export const percent = (value) => `${(100 * value).toFixed(1)}%`;

export const words = (name) => String(name ?? "").replaceAll("_", " ");

export const brief = (text, length = 40) => {
  const letters = Array.from(text);
  return letters.length > length ? `${letters.slice(0, length - 1).join("").trimEnd()}…` : text;
};
