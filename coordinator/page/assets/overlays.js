// The table of overlays.
import { byId, el, update } from "./dom.js";
import { number, plural } from "./format.js";
import { badge, space } from "./parts.js";

function state(overlay) {
  if (overlay.deleting) {
    return [badge("draining", "Draining"),
      el("p", { class: "why" }, `Being deleted; ${plural(overlay.holders, "agent holds", "agents hold")} subnets of it.`)];
  }
  if (overlay.enabled === false) {
    return [badge("disabled", "Disabled"), el("p", { class: "why" }, "Nothing more is leased.")];
  }
  const units = [overlay.subnets, overlay.subnets6].filter(Boolean);
  if (units.some((u) => u.free === 0)) {
    return [badge("failed", "Full"), el("p", { class: "why" }, "No agent can get a subnet.")];
  }
  return [badge("ok", "Enabled"), overlay.isolated ? el("p", { class: "why" }, "Isolated from other overlays.") : null];
}

const cell = (label, ...children) => el("td", { role: "cell", "data-label": label }, children);

export class Overlays {
  // choose(name) is called when the agents of an overlay are asked for.
  constructor(choose) {
    this.choose = choose;
    this.body = byId("overlays").tBodies[0];
  }

  show({ overlays, vteps }) {
    byId("no-overlays").hidden = overlays.length > 0;
    const items = overlays.length ? [...overlays, { vteps }] : [];
    byId("overlays").hidden = items.length === 0;
    update(this.body, items, (o) => o.name ?? "", (o) => (o.vteps ? this.vteps(o.vteps) : this.row(o)));
  }

  row(o) {
    return el("tr", { role: "row" },
      el("th", { scope: "row", role: "rowheader" }, el("span", { class: "name" }, o.name)),
      cell("State", state(o)),
      el("td", { role: "cell", "data-label": "Agents", class: "num" }, o.holders
        ? el("button", {
          type: "button", class: "as-link", onclick: () => this.choose(o.name),
          "aria-label": `${plural(o.holders, "agent", "agents")} on ${o.name}: show them`,
        }, number(o.holders))
        : "0"),
      cell("IPv4 subnets", space(o.subnets, o.subnet, `in /${o.prefix}`)),
      cell("IPv6 subnets", space(o.subnets6, o.subnet6, `in /${o.prefix6}`)));
  }

  vteps(v) {
    return el("tr", { role: "row", class: "vteps" },
      el("th", { scope: "row", role: "rowheader" }, "VTEPs"),
      cell("State", el("span", { class: "quiet" }, "Tunnel ends")),
      el("td", { role: "cell", "data-label": "Agents", class: "num" }, number(v.addresses?.leased ?? 0)),
      cell("IPv4 addresses", space(v.addresses, v.subnet, "one each")),
      cell("IPv6 addresses", space(v.addresses6, v.subnet6, "one each")));
  }
}
