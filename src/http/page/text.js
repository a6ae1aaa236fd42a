// Durations, times, numbers and JSON as text for people, and words for a shell.

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A length of time in at most its two largest units: `4 s`, `3 m 20 s`, `2 h`, `5 d 3 h`. */
export function span(ms) {
  if (ms < SECOND) return ms < 0 || ms >= 100 ? `${Math.max(0, Math.floor(ms / 100) / 10)} s` : "0 s";
  const two = (big, unit, small, name) => {
    const count = Math.floor(ms / big);
    const rest = Math.floor((ms - count * big) / small);
    return rest && count < 10 * (unit === "m" ? 6 : 1) ? `${count} ${unit} ${rest} ${name}` : `${count} ${unit}`;
  };
  if (ms < MINUTE) return `${Math.floor(ms / SECOND)} s`;
  if (ms < HOUR) return two(MINUTE, "m", SECOND, "s");
  if (ms < DAY) return two(HOUR, "h", MINUTE, "m");
  return two(DAY, "d", HOUR, "h");
}

const NUMBER = new Intl.NumberFormat("en");
export const number = (n) => NUMBER.format(n);

export const count = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/** Date and time in the reader's own time zone. */
export function absolute(text) {
  const at = new Date(text);
  const options = { dateStyle: "medium", timeStyle: "medium" };
  return Number.isNaN(at.getTime()) ? String(text) : at.toLocaleString(undefined, options);
}

export function clock(text) {
  return new Date(text).toLocaleTimeString(undefined, { hour12: false });
}

export function bytes(n) {
  if (n < 1000) return `${n} B`;
  const units = ["kB", "MB", "GB"];
  let value = n / 1000;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** Quotes text, where needed, as one word for a POSIX shell. */
export function shellWord(text) {
  return /^[A-Za-z0-9_.,:/@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Compares names in the server's order: by code point, whereas JavaScript compares UTF-16 units. */
export function compareNames(a, b) {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i += 1) {
    let [x, y] = [a.charCodeAt(i), b.charCodeAt(i)];
    if (x === y) continue;
    // Surrogates stand for code points above all other units.
    if (x >= 0xd800 && y >= 0xd800) {
      x = x <= 0xdfff ? x + 0x2000 : x - 0x800;
      y = y <= 0xdfff ? y + 0x2000 : y - 0x800;
    }
    return x - y;
  }
  return a.length - b.length;
}

const TOKEN = /("(?:[^"\\]|\\.)*")|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null)|([{}[\],:])|\s+/g;

/**
 * JSON with line breaks, as a list of `[kind, text]`. Strings and numbers keep their text: a number that JavaScript
 * would round is shown as it was written.
 */
export function pretty(json) {
  const out = [];
  let depth = 0;
  let last = "";
  const line = () => out.push(["", "\n" + "  ".repeat(depth)]);
  for (const [token, string, digits, word, mark] of json.matchAll(TOKEN)) {
    if (string === undefined && digits === undefined && word === undefined && mark === undefined) continue;
    const closes = token === "}" || token === "]";
    if (closes) depth -= 1;
    if (last === "," || ((last === "{" || last === "[") !== closes && (last === "{" || last === "[" || closes))) line();
    if (token === "{" || token === "[") depth += 1;
    const kind = string !== undefined ? "string" : digits !== undefined ? "number" : word !== undefined ? "word" : "";
    if (token === ":" && out.length && out[out.length - 1][0] === "string") out[out.length - 1][0] = "field";
    out.push([kind, token === ":" ? ": " : token]);
    last = token;
  }
  return out;
}
