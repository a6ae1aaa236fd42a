// The locks in a view's list: loaded page by page, and kept up to date where they are visible.

import { list } from "./api.js";
import { useEffect, useRedraw, useRef, Refresher } from "./parts.js";
import { compareNames } from "./text.js";
import { live, watch } from "./live.js";

const PAGE = 100;
const MAX = 1000;
const GAP_MS = 250;
// How old values may be that change without an event (renewals, who is near).
const ANYWAY_MS = 10_000;

/** The query parameters for each value of `show` in the address. */
export const SHOWN = {
  locked: { locked: 1 },
  reserved: { reserved: 1 },
  all: {},
};

/** One listing of the server. It grows as the user scrolls: by name to the end, in other orders up to `MAX`. */
class Listing {
  constructor({ q, sort, show }, changed) {
    this.query = { prefix: q, ...SHOWN[show] };
    this.sort = sort;
    this.changed = changed;
    this.items = [];
    /** There may be more resources. */
    this.more = true;
    this.error = null;
    /** When the last answer came, on performance.now(); 0: none yet. */
    this.at = 0;
    this.seen = [0, PAGE];
    /** How often grow() loaded more. */
    this.grown = 0;
    this.end = new AbortController();
    this.refresher = new Refresher(() => this.refresh(), GAP_MS);
  }

  get isByName() {
    return this.sort === "name";
  }

  async ask(work) {
    try {
      await work();
      this.error = null;
      this.at = performance.now();
    } catch (error) {
      if (this.end.signal.aborted) return;
      this.error = error;
    }
    if (!this.end.signal.aborted) this.changed();
  }

  async refresh() {
    await this.ask(() => (this.isByName ? this.refreshSeen() : this.loadFirst(this.items.length)));
  }

  /** Loads the first `count`, at least one page and `MAX` at most. */
  async loadFirst(count) {
    const limit = Math.min(MAX, Math.max(PAGE, count));
    const page = await list({ ...this.query, sort: this.sort, limit }, this.end.signal);
    this.items = page.resources;
    this.more = page.resources.length === limit && limit < MAX;
    this.isCut = page.resources.length === MAX;
  }

  /** Loads the visible part of the names again, and replaces it by what exists now. */
  async refreshSeen() {
    const [first, last] = this.seen;
    const after = first > 0 ? this.items[Math.min(first, this.items.length) - 1]?.name : undefined;
    const limit = Math.min(MAX, Math.max(PAGE, last - first));
    await this.replace(after, limit);
  }

  async replace(after, limit) {
    const page = await list({ ...this.query, after, limit }, this.end.signal);
    const begin = after === undefined ? 0 : this.items.findLastIndex((item) => compareNames(item.name, after) <= 0) + 1;
    const past = (item) => page.next !== null && compareNames(item.name, page.next) > 0;
    const end = this.items.findIndex((item, index) => index >= begin && past(item));
    const rest = end < 0 ? [] : this.items.slice(end);
    this.items = [...this.items.slice(0, begin), ...page.resources, ...rest];
    if (!rest.length) this.more = page.next !== null;
  }

  /** Loads more when the user has scrolled to the end. */
  async grow() {
    if (!this.more || this.growing || !this.at) return;
    this.growing = true;
    const count = this.items.length;
    await this.ask(() => (this.isByName ? this.replace(this.items.at(-1)?.name, PAGE) : this.loadFirst(count + PAGE)));
    this.growing = false;
    this.grown += 1;
  }

  /** Loads as many as were shown before the page was reloaded. */
  async growTo(count) {
    while (this.more && this.items.length < count && !this.error && !this.end.signal.aborted) await this.grow();
  }

  stop() {
    this.end.abort();
    this.refresher.stop();
  }
}

/** The listing of this query. It redraws the view when it changes. */
export function useListing({ q, sort, show }) {
  const redraw = useRedraw();
  const ref = useRef(null);
  const key = JSON.stringify([q, sort, show]);
  if (ref.current?.key !== key) {
    const before = ref.current?.listing;
    before?.stop();
    const listing = new Listing({ q, sort, show }, redraw);
    // While the user types, the previous result stays visible until the new one arrives.
    listing.before = before?.at ? before.items : null;
    ref.current = { key, listing };
  }
  const { listing } = ref.current;
  useEffect(() => {
    const ask = () => listing.refresher.want();
    watch(q);
    live.listeners.add(ask);
    const timer = setInterval(ask, ANYWAY_MS);
    ask();
    return () => {
      live.listeners.delete(ask);
      clearInterval(timer);
      listing.stop();
    };
  }, [key]);
  return listing;
}
