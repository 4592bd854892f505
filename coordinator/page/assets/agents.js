// The table of agents, with what narrows it down.
import { byId, el, setText, update } from "./dom.js";
import { address, age, number, plural } from "./format.js";
import { badge, stateWord, use } from "./parts.js";

const states = ["failed", "silent", "configuring", "ok"];
// More subnets than these are counted in a row, and listed in the detail.
const shownSubnets = 2;

const cell = (label, ...children) => el("td", { role: "cell", "data-label": label }, children);

// reason says in one line what is wrong, if anything is.
export function reason(agent, now) {
  if (agent.state === "silent") {
    return agent.silent_since ? `for ${age(now - Date.parse(agent.silent_since))}` : "no report yet";
  }
  if (agent.state === "ok") return "";
  return `${agent.overlay}: ${agent.reason || "not done yet"}`;
}

export class Agents {
  // view holds q, overlay, state, sort, offset and limit; change(part) is
  // called with what the reader changed of it, open(ip) for one agent.
  constructor({ view, change, open }) {
    this.view = view;
    this.change = change;
    this.open = open;
    this.body = byId("agents").tBodies[0];
    this.controls();
  }

  controls() {
    const search = byId("search");
    let typing;
    search.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.change({ q: search.value.trim(), offset: 0 }), 150);
    });
    byId("tools").addEventListener("submit", (e) => e.preventDefault());
    byId("overlay").addEventListener("change", (e) => this.change({ overlay: e.target.value, offset: 0 }));
    byId("limit").addEventListener("change", (e) => this.change({ limit: Number(e.target.value), offset: 0 }));
    for (const state of ["", ...states]) {
      const id = `state-${state || "all"}`;
      byId("states").append(
        el("input", { type: "radio", name: "state", id, value: state, class: "hidden" }),
        el("label", { for: id, class: state }, state ? stateWord(state) : "All", " ", el("span", { class: "count" })));
    }
    byId("states").addEventListener("change", (e) => this.change({ state: e.target.value, offset: 0 }));
    for (const th of byId("agents").querySelectorAll("th[data-sort]")) {
      th.firstElementChild.addEventListener("click", () => this.sortBy(th.dataset.sort));
    }
    for (const button of byId("pages").querySelectorAll("button")) {
      button.addEventListener("click", () => this.turn(button.dataset.page));
    }
    this.body.addEventListener("click", (e) => {
      const link = e.target.closest("a");
      if (e.ctrlKey || e.metaKey || e.shiftKey || (!link && String(getSelection()))) return;
      const ip = e.target.closest("tr")?.dataset.key;
      if (!ip) return;
      e.preventDefault();
      this.open(ip);
    });
    document.addEventListener("keydown", (e) => {
      if (e.key !== "/" || e.ctrlKey || e.metaKey || e.altKey) return;
      if (/^(input|select|textarea)$/i.test(document.activeElement?.tagName) || byId("detail").open) return;
      e.preventDefault();
      search.focus();
      search.select();
    });
  }

  // sortBy sorts up at first; use and state are wanted worst first.
  sortBy(name) {
    const first = name === "use" || name === "state" ? `-${name}` : name;
    const other = first.startsWith("-") ? name : `-${name}`;
    this.change({ sort: this.view.sort === first ? other : first, offset: 0 });
  }

  turn(to) {
    const { limit } = this.view;
    const last = Math.max(0, Math.floor((this.matching - 1) / limit) * limit);
    const offset = { first: 0, previous: Math.max(0, this.offset - limit), next: Math.min(last, this.offset + limit), last }[to];
    this.change({ offset });
    byId("agents").scrollIntoView({ block: "start" });
  }

  show(overview, changed) {
    const now = Date.parse(overview.now);
    this.matching = overview.matching;
    this.offset = overview.offset;
    this.showControls(overview);
    // The time since is words of its own, so that it brings rows up to date.
    const items = overview.agents.map((a) => ({ ...a, words: reason(a, now) }));
    const rows = update(this.body, items, (a) => a.ip, (a) => this.row(a));
    for (const row of rows) row.classList.toggle("fresh", row.changed && changed.has(row.dataset.key));
    byId("scroll").hidden = rows.length === 0;
    this.showEmpty(overview);
    this.showPages(overview);
  }

  showControls({ states: counts, overlays, total, matching }) {
    const { view } = this;
    if (document.activeElement !== byId("search")) byId("search").value = view.q;
    const sum = Object.values(counts).reduce((a, b) => a + b, 0);
    for (const input of byId("states").querySelectorAll("input")) {
      input.checked = input.value === view.state;
      const n = input.value ? (counts[input.value] ?? 0) : sum;
      setText(input.nextElementSibling.querySelector(".count"), number(n));
      input.nextElementSibling.classList.toggle("zero", n === 0);
    }
    const select = byId("overlay");
    const names = overlays.map((o) => o.name);
    if (view.overlay && !names.includes(view.overlay)) names.push(view.overlay);
    if (names.join("\n") !== this.names) {
      this.names = names.join("\n");
      select.replaceChildren(el("option", { value: "" }, "All"), ...names.map((n) => el("option", { value: n }, n)));
    }
    select.value = view.overlay;
    setText(byId("found"), matching === total ? plural(total, "agent", "agents") : `${number(matching)} of ${plural(total, "agent", "agents")}`);
    for (const th of byId("agents").querySelectorAll("th[data-sort]")) {
      const { sort } = view;
      if (sort.replace("-", "") !== th.dataset.sort) th.removeAttribute("aria-sort");
      else th.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
    }
  }

  showEmpty({ total, matching }) {
    const empty = byId("no-agents");
    empty.hidden = matching > 0;
    byId("tools").hidden = total === 0;
    const kind = total === 0 ? "none" : "no match";
    if (empty.hidden || empty.dataset.kind === kind) return;
    empty.dataset.kind = kind;
    if (total > 0) {
      empty.replaceChildren(el("h3", {}, "No agent fits"),
        el("p", {}, "Every word has to be found: in addresses, subnets, names of overlays, or errors."),
        el("button", {
          type: "button",
          onclick: () => {
            byId("search").value = "";
            this.change({ q: "", overlay: "", state: "", offset: 0 });
            byId("search").focus();
          },
        }, "Clear search and filters"));
      return;
    }
    empty.replaceChildren(el("h3", {}, "No agent yet"),
      el("ol", {},
        el("li", {}, "On each host, name this coordinator in ", el("code", {}, "/etc/dcos-overlay/agent.json"), ":",
          el("pre", {}, el("code", {}, `{"master": "${location.origin}"}`))),
        el("li", {}, "Start the companion there:",
          el("pre", {}, el("code", {}, "systemctl enable --now dcos-overlay-companion"))),
        el("li", {}, "The host is here as soon as it has its lease. If it is not, its log says why:",
          el("pre", {}, el("code", {}, "journalctl -u dcos-overlay-companion")))));
  }

  showPages({ matching, offset, agents }) {
    const { limit } = this.view;
    byId("pages").hidden = matching === 0;
    byId("limit").value = String(limit);
    setText(byId("range"), `${number(offset + 1)}–${number(offset + agents.length)} of ${number(matching)}`);
    const atEnd = offset + agents.length >= matching;
    const off = { first: offset === 0, previous: offset === 0, next: atEnd, last: atEnd };
    for (const button of byId("pages").querySelectorAll("button")) {
      // A button that were disabled would lose the focus of who pressed it.
      button.setAttribute("aria-disabled", String(off[button.dataset.page]));
    }
  }

  row(a) {
    const held = a.overlays ?? [];
    const subnets = held.flatMap((o) => [...(o.subnets ?? []), ...(o.subnets6 ?? [])].map((s) => [o.name, s]));
    return el("tr", { role: "row", class: a.state },
      el("th", { scope: "row", role: "rowheader" },
        el("a", { href: `?agent=${encodeURIComponent(a.ip)}`, "aria-haspopup": "dialog" }, a.ip)),
      el("td", { role: "cell", class: "state" }, badge(a.state), a.words ? el("p", { class: "why" }, a.words) : null),
      cell("VTEP", el("span", { class: "addr" }, address(a.vtep))),
      cell("Subnets", subnets.length
        ? el("ul", { class: "subnets" },
          subnets.slice(0, shownSubnets).map(([name, s]) => el("li", {}, el("span", { class: "quiet" }, name), " ", el("span", { class: "addr" }, s))),
          subnets.length > shownSubnets ? el("li", { class: "quiet" }, `and ${subnets.length - shownSubnets} more`) : null)
        : el("span", { class: "none" }, "VTEP only")),
      cell("Addresses in use", a.fullest
        ? [use(a.fullest, `${a.fullest.overlay}, ${a.fullest.containerizer}`),
          el("span", { class: "quiet part" }, `${a.fullest.overlay}, ${a.fullest.containerizer === "docker" ? "Docker" : "Mesos"}`)]
        : el("span", { class: "none" }, subnets.length ? "Not reported" : "None")));
  }
}
