// Numbers and times as people read them.

const plain = new Intl.NumberFormat("en");
const superscripts = "⁰¹²³⁴⁵⁶⁷⁸⁹";

// number is n in digits, or as a power of ten where nobody would count them.
export function number(n) {
  if (n < 1e9) return plain.format(n);
  const power = Math.floor(Math.log10(n));
  const digits = [...String(power)].map((d) => superscripts[d]).join("");
  return `${(n / 10 ** power).toFixed(1)} × 10${digits}`;
}

// share is part of all, in percent.
export function share(part, all) {
  if (part === 0 || all === 0) return "0 %";
  const percent = (100 * part) / all;
  if (percent < 0.1) return "< 0.1 %";
  if (percent > 99.9 && part < all) return "99.9 %";
  return `${percent < 10 ? percent.toFixed(1).replace(/\.0$/, "") : Math.round(percent)} %`;
}

export function plural(n, one, many) {
  return `${number(n)} ${n === 1 ? one : many}`;
}

// age is how long ms is, in its greatest unit.
export function age(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 2 * 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

// moment is a point in time with the day, in the reader's own time zone.
export function moment(text) {
  return new Date(text).toLocaleString("en-GB", {
    day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit",
  });
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString("en-GB");
}

// address is a prefix without its length.
export const address = (prefix) => (prefix ?? "").split("/")[0];
