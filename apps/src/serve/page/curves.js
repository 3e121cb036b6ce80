// Curves over the steps of runs. In: points. Out: a drawing that can be drawn again as points arrive.

import { details, el, figure, svg, table, words } from "./dom.js";

const [WIDTH, HEIGHT] = [440, 230];
const EDGE = { left: 52, right: 10, top: 10, bottom: 40 };
// Points of a curve past which it is thinned: each part keeps its lowest and its highest.
const MOST = 300;

function ticks(least, most, n, isLog) {
  if (isLog) {
    const all = [];
    for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power += 1) all.push(...[1, 2, 5].map((one) => one * 10 ** power));
    const inside = all.filter((one) => one >= least && one <= most);
    return inside.length > n + 2 ? inside.filter((_, at) => at % Math.ceil(inside.length / n) === 0) : inside;
  }
  const raw = (most - least) / n;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((one) => one * power >= raw) * power;
  const all = [];
  for (let at = Math.ceil(least / step) * step; at <= most + step * 1e-6; at += step) all.push(Math.abs(at) < step * 1e-6 ? 0 : at);
  return all;
}

function label(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toFixed(2)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toFixed(2)}k`;
  if (size !== 0 && size < 1e-3) return value.toExponential(0);
  return String(+value.toPrecision(4));
}

function thinned(points) {
  if (points.length <= MOST) return points;
  const size = Math.ceil(points.length / (MOST / 2));
  const kept = [];
  for (let from = 0; from < points.length; from += size) {
    const part = points.slice(from, from + size);
    const [low, high] = [part.reduce((a, b) => (b.y < a.y ? b : a)), part.reduce((a, b) => (b.y > a.y ? b : a))];
    kept.push(...(low.x <= high.x ? [low, high] : [high, low]));
  }
  return kept;
}

function range(values, isLog) {
  let [least, most] = [Math.min(...values), Math.max(...values)];
  if (least === most) [least, most] = isLog ? [least / 2, most * 2] : [least - Math.abs(least || 1) / 10, most + Math.abs(most || 1) / 10];
  const space = isLog ? 0 : (most - least) * 0.04;
  return [least - space, most + space];
}

// What the drawing shows, in a sentence a curve.
function told(curves) {
  return curves.map(({ name, points }) => {
    const low = Math.min(...points.map((point) => point.y));
    const high = Math.max(...points.map((point) => point.y));
    return `${name}: from ${figure(points[0].y)} to ${figure(points.at(-1).y)}, lowest ${figure(low)}, highest ${figure(high)}`;
  }).join(". ");
}

// - curves: [{name, colour, isDashed, isPoint, points: [{x, y}]}], no curve empty
export function chart(title, axis) {
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "curves" });
  const reading = el("p", { class: "hint reading", "aria-hidden": "true" });
  const numbers = el("div", {});
  const more = details("Last numbers", numbers);
  const node = el("figure", { class: "card plot" }, el("figcaption", {}, words(title)), drawing, reading, more);
  let scale;
  let shown = [];
  const read = (event) => {
    if (!scale) return;
    const box = drawing.getBoundingClientRect();
    const x = scale.back((event.clientX - box.left) * WIDTH / box.width);
    const near = shown.map(({ name, points }) => ({ name, ...points.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a)) }));
    const closest = near.reduce((a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a));
    cursor.setAttribute("x1", scale.x(closest.x));
    cursor.setAttribute("x2", scale.x(closest.x));
    cursor.classList.add("on");
    reading.textContent = `${axis} ${figure(closest.x)}: ${near.map(({ name, y }) => `${name} ${figure(y)}`).join(" · ")}`;
  };
  const cursor = svg("line", { class: "cursor", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
  drawing.addEventListener("pointermove", read);
  drawing.addEventListener("pointerleave", () => { cursor.classList.remove("on"); reading.textContent = ""; });
  const draw = (curves, isLog) => {
    const usable = curves.map((curve) => ({ ...curve, points: curve.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y) && (!isLog || y > 0)) }));
    shown = usable.filter((curve) => curve.points.length);
    node.hidden = !shown.length;
    if (!shown.length) return;
    const all = shown.flatMap((curve) => thinned(curve.points));
    const [x0, x1] = range(all.map((point) => point.x), false);
    const [y0, y1] = range(all.map((point) => point.y), isLog);
    const high = (y) => (isLog ? Math.log(y) : y);
    const x = (value) => EDGE.left + (value - x0) / (x1 - x0) * (WIDTH - EDGE.left - EDGE.right);
    const y = (value) => HEIGHT - EDGE.bottom - (high(value) - high(y0)) / (high(y1) - high(y0)) * (HEIGHT - EDGE.top - EDGE.bottom);
    scale = { x, back: (at) => x0 + (at - EDGE.left) / (WIDTH - EDGE.left - EDGE.right) * (x1 - x0) };
    const grid = ticks(y0, y1, 5, isLog).map((value) => [svg("line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(value), y2: y(value) }),
      svg("text", { x: EDGE.left - 8, y: y(value) + 4, class: "end" }, label(value))]);
    const feet = ticks(x0, x1, 5, false).map((value) => svg("text", { x: x(value), y: HEIGHT - EDGE.bottom + 16, class: "middle" }, label(value)));
    const line = ({ colour, isDashed, isPoint, points }) => {
      if (isPoint) return points.map((point) => svg("circle", { class: `ring ${colour}`, cx: x(point.x), cy: y(point.y), r: 4.5 }));
      const kept = thinned(points);
      const place = (point) => `${x(point.x).toFixed(1)},${y(point.y).toFixed(1)}`;
      const path = kept.length > 1 ? svg("polyline", { class: `curve ${colour} ${isDashed ? "dashed" : ""}`, points: kept.map(place).join(" ") }) : null;
      const last = points.at(-1);
      return [path, !isDashed && svg("circle", { class: `dot ${colour}`, cx: x(last.x), cy: y(last.y), r: 3 })];
    };
    const name = svg("text", { x: WIDTH - EDGE.right, y: HEIGHT - 2, class: "end" }, axis);
    drawing.replaceChildren(...[grid, feet, name, shown.map(line), cursor].flat(3).filter(Boolean));
    drawing.setAttribute("aria-label", `${words(title)} over ${axis}. ${told(shown)}.`);
    const rows = shown.map((curve) => [curve.name, curve.points.at(-1).x, curve.points.at(-1).y]);
    numbers.replaceChildren(table(`Last numbers of ${words(title)}`, ["Curve", axis, words(title)], rows, { hideCaption: true }));
  };
  return { node, draw };
}
