// One agent, in a dialog beside the table.
import { byId, el, setText } from "./dom.js";
import { age, moment, plural } from "./format.js";
import { badge, use } from "./parts.js";

const overlayStates = {
  STATUS_OK: ["ok", "OK"],
  STATUS_FAILED: ["failed", "Failed"],
  STATUS_INVALID: ["failed", "Invalid"],
  STATUS_CONFIGURING: ["configuring", "Configuring"],
};

function facts(...pairs) {
  return el("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value, kind]) =>
    el("div", {}, el("dt", {}, name), el("dd", { class: kind ?? "addr" }, value))));
}

function head(agent, now) {
  const { status } = agent;
  if (!status.alive) {
    const since = status.silent_since
      ? `Silent since ${moment(status.silent_since)}, for ${age(now - Date.parse(status.silent_since))}.`
      : "It has not reported yet.";
    return el("div", { class: "head-note silent" }, badge("silent"),
      el("p", {}, `${since} It keeps what it holds. What is below is what it reported last.`),
      el("p", {}, "Is the host gone for good? Then free what it held:"),
      el("pre", {}, el("code", {}, `dcos-overlayctl agents delete ${agent.ip}`)));
  }
  const failed = (agent.overlays ?? []).filter((o) => /FAILED|INVALID/.test(o.state.status));
  if (failed.length) {
    return el("div", { class: "head-note failed" }, badge("failed"),
      el("p", {}, `${plural(failed.length, "overlay does", "overlays do")} not work on this agent: ${failed.map((o) => o.name).join(", ")}.`));
  }
  return null;
}

function bridges(held, entry, addresses) {
  const sides = [["mesos", "Mesos", entry?.mesos_bridge], ["docker", "Docker", entry?.docker_bridge]].filter(([, , b]) => b);
  if (!sides.length) return el("p", { class: "quiet" }, "No bridges: this agent is only a tunnel end.");
  return el("div", { class: "bridges" }, sides.map(([key, title, bridge]) => {
    const usage = addresses?.[key];
    return el("div", { class: "bridge" },
      el("div", { class: "bridge-name" }, el("h4", {}, title), el("span", { class: "addr quiet" }, bridge.name)),
      el("div", { class: "addr" }, [bridge.ip, bridge.ip6].filter(Boolean).map((ip) => el("div", {}, ip))),
      usage ? use(usage, `${held.name}, ${title}`) : el("span", { class: "none" }, "Use not reported"));
  }));
}

function overlay(held, agent) {
  const entry = (agent.entry?.overlays ?? []).find((o) => o.info.name === held.name);
  const [state, word] = overlayStates[held.state.status] ?? ["configuring", "Not reported"];
  return el("section", { class: "held" },
    el("div", { class: "held-head" }, el("h3", {}, held.name), agent.status.alive ? badge(state, word) : null),
    held.state.error ? el("p", { class: "error" }, held.state.error) : null,
    facts(
      held.subnets?.length ? ["IPv4 subnet", held.subnets.join(", ")] : null,
      held.subnets6?.length ? ["IPv6 subnet", held.subnets6.join(", ")] : null,
      held.addresses?.length ? ["Fixed addresses", held.addresses.map((a) => `${a.ip} (${a.container})`).join(", ")] : null),
    bridges(held, entry, agent.status.addresses?.[held.name]));
}

function configuration(c) {
  return [
    c.allocate_subnet ? null : "takes no subnets",
    c.mesos_bridge ? null : "no Mesos containers",
    c.docker_bridge ? null : "no Docker networks",
    c.enable_ipv6 ? null : "no IPv6",
    c.overlay_mtu ? `MTU ${c.overlay_mtu}` : null,
  ].filter(Boolean).join(", ") || "Default";
}

function body(agent, now) {
  const { status } = agent;
  const routes = status.host_routes ?? [];
  return [
    head(agent, now),
    facts(
      ["VTEP IPv4", agent.vtep.ip],
      agent.vtep.ip6 ? ["VTEP IPv6", agent.vtep.ip6] : null,
      ["VTEP MAC", agent.vtep.mac],
      ["Last report", status.last_seen ? moment(status.last_seen) : status.alive ? "To another coordinator" : "None known", "text"],
      status.gone_since ? ["Gone from Mesos", `since ${moment(status.gone_since)}`, "text"] : null,
      ["Configuration", configuration(agent.network_config), "text"],
      ["Agent id", agent.id || "None: taken over, not claimed yet"]),
    (agent.overlays ?? []).map((o) => overlay(o, agent)),
    agent.overlays?.length ? null : el("p", { class: "quiet lone" }, "It holds no subnet of any overlay."),
    (status.route_clashes ?? []).length
      ? el("p", { class: "error lone" }, `Routes of the host's own overlap the network: ${status.route_clashes.map((c) => `${c.route} with ${c.with.join(", ")}`).join("; ")}.`)
      : null,
    routes.length
      ? el("details", { class: "routes" }, el("summary", {}, plural(routes.length, "route of the host's own", "routes of the host's own")),
        el("ul", { class: "addr" }, routes.map((r) => el("li", {}, r))))
      : null,
  ].flat().filter(Boolean);
}

export class Detail {
  // closed() is called when the reader has closed it.
  constructor(closed) {
    this.dialog = byId("detail");
    this.ip = "";
    byId("detail-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (e) => {
      if (e.target === this.dialog) this.dialog.close();
    });
    this.dialog.addEventListener("close", () => {
      this.ip = "";
      closed();
    });
  }

  open(ip) {
    this.ip = ip;
    this.print = "";
    setText(byId("detail-title"), ip);
    byId("detail-body").replaceChildren(el("p", { class: "quiet" }, "Loading…"));
    if (!this.dialog.open) this.dialog.showModal();
    byId("detail-title").focus();
    return this.load(Date.now());
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  // load brings it up to date; now is the coordinator's clock.
  async load(now) {
    const { ip } = this;
    if (!ip) return;
    let content;
    try {
      const response = await fetch(`/v1/agents/${encodeURIComponent(ip)}`, { cache: "no-store", signal: AbortSignal.timeout(15000) });
      const answer = await response.json();
      if (response.status === 404) content = [el("p", {}, "This agent is gone: what it held is released.")];
      else if (!response.ok) content = [el("p", {}, answer.error?.message ?? `The coordinator answers ${response.status}.`)];
      else content = body(answer, now);
    } catch {
      // The page says that the connection is lost; what is shown stays.
      return;
    }
    if (this.ip !== ip) return;
    // Nodes that are as before stay, and with them what is selected or open.
    const shown = byId("detail-body");
    const print = content.map((e) => e.outerHTML).join("");
    if (print === this.print) return;
    this.print = print;
    const open = shown.querySelector("details")?.open;
    shown.replaceChildren(...content);
    if (open && shown.querySelector("details")) shown.querySelector("details").open = true;
  }
}
