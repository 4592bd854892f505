// Elements, made of data as text only: nothing that an agent reports can
// become markup.

const svgNames = new Set(["svg", "rect", "path", "circle"]);

// el makes an element. Attributes that are null, undefined or false are left
// out; children are elements, texts, or null for none.
export function el(name, attributes = {}, ...children) {
  const e = svgNames.has(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick") e.addEventListener("click", value);
    else if (value === true) e.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) e.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) e.append(child);
  }
  return e;
}

export const byId = (id) => document.getElementById(id);

// setText writes only what differs: a live region speaks at every write.
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

// update makes the rows of a table body those of items. Rows that are as they
// were stay the same elements, and keep focus and selection. key names an
// item, and draw makes its row.
export function update(body, items, key, draw) {
  const had = new Map();
  for (const row of body.children) had.set(row.dataset.key, row);
  const rows = items.map((item) => {
    const print = JSON.stringify(item);
    const old = had.get(key(item));
    if (old && old.print === print) return old;
    const row = draw(item);
    row.dataset.key = key(item);
    row.print = print;
    row.changed = Boolean(old);
    return row;
  });
  const focused = document.activeElement;
  const focusedRow = body.contains(focused) ? focused.closest("tr").dataset.key : null;
  let at = body.firstElementChild;
  for (const row of rows) {
    if (row === at) {
      at = at.nextElementSibling;
      continue;
    }
    body.insertBefore(row, at);
  }
  while (at) {
    const next = at.nextElementSibling;
    at.remove();
    at = next;
  }
  if (focusedRow !== null && !body.contains(document.activeElement)) {
    const row = rows.find((r) => r.dataset.key === focusedRow);
    row?.querySelector("a, button")?.focus({ preventScroll: true });
  }
  return rows;
}
