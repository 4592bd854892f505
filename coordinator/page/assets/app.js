// Puts the parts of the page together: what the reader looks at is in the
// address, so that it can be sent to somebody, and is there after a reload.
import { Agents } from "./agents.js";
import { Detail } from "./detail.js";
import { byId, setText } from "./dom.js";
import { age, clock } from "./format.js";
import { Live } from "./live.js";
import { Overlays } from "./overlays.js";

const defaults = { q: "", overlay: "", state: "", sort: "ip", offset: 0, limit: 50 };
const limits = [25, 50, 100, 250];
const linkWords = { live: "Live", wait: "Connecting", stale: "Out of date", lost: "Connection lost", denied: "No access" };

const view = { ...defaults };
let agent = "";
let link = { kind: "wait", at: 0, stale: 0 };

function readAddress() {
  const given = new URLSearchParams(location.search);
  Object.assign(view, defaults);
  for (const name of ["q", "overlay", "state", "sort"]) view[name] = given.get(name) ?? defaults[name];
  view.offset = Math.max(0, Number.parseInt(given.get("offset"), 10) || 0);
  view.limit = limits.find((l) => l === Number(given.get("limit"))) ?? defaults.limit;
  agent = given.get("agent") ?? "";
}

function parameters() {
  const p = new URLSearchParams();
  for (const [name, value] of Object.entries(view)) {
    if (value !== defaults[name]) p.set(name, value);
  }
  return p;
}

function writeAddress() {
  const p = parameters();
  if (agent) p.set("agent", agent);
  const search = String(p) ? `?${p}` : location.pathname;
  if (search !== location.search) history.replaceState(null, "", search);
}

function ask() {
  const p = parameters();
  p.set("limit", view.limit);
  live.ask(String(p));
}

function change(part) {
  Object.assign(view, part);
  writeAddress();
  ask();
}

function open(ip) {
  agent = ip;
  writeAddress();
  detail.open(ip);
}

function showLink() {
  byId("link").dataset.state = link.kind;
  setText(byId("link-text"), linkWords[link.kind]);
  const notice = byId("notice");
  const seen = link.at ? ` What is shown is of ${clock(link.at - 1000 * link.stale)}.` : "";
  let text = "";
  if (link.kind === "denied") text = `${link.message}. Import a certificate that may read into this browser, and open the page again.${seen}`;
  else if (link.kind === "lost") text = `${link.message ? `Refused: ${link.message}.` : "The coordinator does not answer; trying again."}${seen}`;
  else if (link.kind === "stale") text = `The coordinator can't reach etcd. Nothing can be changed, and hosts go on as they are.${seen}`;
  setText(notice, text);
  notice.hidden = text === "";
  if (link.kind === "denied") byId("main").removeAttribute("aria-busy");
  document.body.classList.toggle("old", text !== "");
  showAge();
}

// showAge says beside the words how old the picture is; it is no live region,
// which would speak every second.
function showAge() {
  const old = ["lost", "stale", "denied"].includes(link.kind) && link.at;
  byId("link").dataset.age = old ? age(Date.now() - link.at + 1000 * link.stale) : "";
}

function themes() {
  const select = byId("theme");
  select.value = document.documentElement.dataset.theme ?? "";
  select.addEventListener("change", () => {
    if (select.value) document.documentElement.dataset.theme = select.value;
    else delete document.documentElement.dataset.theme;
    try {
      if (select.value) localStorage.setItem("theme", select.value);
      else localStorage.removeItem("theme");
    } catch {
      // The browser keeps nothing for this page: the choice ends with it.
    }
  });
}

const overlays = new Overlays((name) => {
  change({ ...defaults, limit: view.limit, overlay: name });
  byId("overlay").focus();
});
const agents = new Agents({ view, change, open });
const detail = new Detail(() => {
  const link = byId("agents").querySelector(`tr[data-key="${CSS.escape(agent)}"] a`);
  agent = "";
  writeAddress();
  // The browser gives the focus back, unless its row was drawn anew meanwhile.
  if (document.activeElement === document.body) link?.focus();
});
const live = new Live({
  onOverview(overview, changed) {
    view.offset = overview.offset;
    overlays.show(overview);
    agents.show(overview, changed);
    detail.load(Date.parse(overview.now));
    if (byId("main").getAttribute("aria-busy")) {
      byId("main").removeAttribute("aria-busy");
      performance.mark("shown");
    }
  },
  onLink(now) {
    link = now;
    showLink();
  },
});

readAddress();
themes();
setText(byId("host"), location.host);
setInterval(showAge, 1000);
window.addEventListener("popstate", () => {
  readAddress();
  ask();
  if (agent) detail.open(agent);
  else detail.close();
});
ask();
if (agent) detail.open(agent);
