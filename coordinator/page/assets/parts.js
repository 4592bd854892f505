// What several parts of the page show alike.
import { el } from "./dom.js";
import { number, share } from "./format.js";

const words = { ok: "OK", configuring: "Configuring", failed: "Failed", silent: "Silent" };
const shapes = {
  ok: "M3.5 8.5l3 3 6-7",
  configuring: "M8 2.5a5.5 5.5 0 1 1-5.5 5.5",
  failed: "M4 4l8 8M12 4l-8 8",
  silent: "M3.5 8h9",
  disabled: "M3.5 8h9",
  draining: "M8 3v9M4.5 8.5 8 12l3.5-3.5",
};

export const stateWord = (state) => words[state] ?? state;

// badge is a state by its shape, its colour, and its word.
export function badge(state, word = stateWord(state)) {
  return el("span", { class: `badge ${state}` },
    el("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, el("path", { d: shapes[state] ?? shapes.ok })),
    word);
}

// segments draws parts of a whole, each [class, amount], in a bar. What is not
// nothing is seen.
export function segments(parts, all) {
  const svg = el("svg", { class: "bar", viewBox: "0 0 1000 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(el("rect", { class: "free", width: 1000, height: 10 }));
  let x = 0;
  for (const [name, amount] of parts) {
    if (!amount) continue;
    const width = Math.min(1000 - x, Math.max(6, (1000 * amount) / all));
    svg.append(el("rect", { class: name, x, width, height: 10 }));
    x += width;
  }
  return svg;
}

// space shows an address space: how many of its units are leased, rest, and
// are free.
export function space(units, what, unit) {
  if (!units) return el("span", { class: "none" }, "None");
  const all = units.leased + units.resting + units.free;
  const full = units.free === 0;
  const label = `${number(units.leased)} leased, ${number(units.resting)} resting, ${number(units.free)} free`;
  return el("div", { class: full ? "space full" : "space" },
    el("div", { class: "space-top" }, el("span", { class: "addr" }, what), el("span", { class: "quiet" }, unit)),
    el("div", { role: "img", "aria-label": `${what}: ${label}` },
      segments([["leased", units.leased], ["resting", units.resting]], all)),
    el("div", { class: "space-words", "aria-hidden": "true" },
      el("span", {}, el("b", {}, number(units.leased)), " leased"),
      units.resting ? el("span", {}, el("b", {}, number(units.resting)), " resting") : null,
      el("span", { class: "right" }, full ? el("strong", {}, "none free") : [el("b", {}, number(units.free)), " free"])));
}

// level is how near to its end an amount is.
export function level(used, free) {
  if (free === 0) return "full";
  return used / (used + free) >= 0.85 ? "high" : "";
}

// use shows how many addresses of a part are used.
export function use({ used, free }, name) {
  const all = used + free;
  return el("div", { class: `use ${level(used, free)}` },
    el("div", {
      role: "meter", "aria-label": name, "aria-valuemin": "0", "aria-valuemax": String(all), "aria-valuenow": String(used),
      "aria-valuetext": `${number(used)} of ${number(all)} used`,
    }, segments([["used", used]], all || 1)),
    el("span", { class: "use-words", "aria-hidden": "true" },
      el("b", {}, number(used)), ` of ${number(all)}`, el("span", { class: "quiet" }, ` ${share(used, all)}`)));
}
