// The state of the server: counts of locks and waiters, the instances, the rights of the key.

import { status, url } from "./api.js";
import { Ago, Elsewhere, Refresher, Text, curl, html, lockHref, useCalls, useEffect } from "./parts.js";
import { live } from "./live.js";
import { number } from "./text.js";

const GAP_MS = 1000;
const ANYWAY_MS = 5000;
const RIGHTS = ["read", "read_lock", "write", "admin"];

/** The last answer to GET /status, shared by all views. */
export const server = { told: null, error: null, at: 0, watchers: new Set() };

/** Whether the key carries this right. A right includes all lesser ones. */
export const may = (right) => RIGHTS.indexOf(server.told?.key?.rights) >= RIGHTS.indexOf(right);

// Samples of the last minute: the time, and the number of grants until then.
let samples = [];

/** Grants per minute, from the counts that this page has seen; `null`: not known yet. */
function rate() {
  const [first, last] = [samples[0], samples.at(-1)];
  if (!first || last.at - first.at < 2000) return null;
  return Math.round(((last.grants - first.grants) * 60_000) / (last.at - first.at));
}

function sample(grants) {
  const at = performance.now();
  // Fewer grants than before: the count is that of another process.
  if (samples.length && samples.at(-1).grants > grants) samples = [];
  samples = samples.filter((one) => at - one.at < 60_000);
  samples.push({ at, grants });
}

async function ask() {
  try {
    server.told = await status();
    sample(server.told.locks.grants);
    server.error = null;
    server.at = performance.now();
  } catch (error) {
    server.error = error;
  }
  for (const watcher of server.watchers) watcher();
}

export const refresher = new Refresher(ask, GAP_MS);

export function useServer() {
  useCalls(server.watchers);
  return server;
}

/** Keeps `server` up to date while the page has a key and is visible. */
export function useServerKept() {
  useEffect(() => {
    const want = () => !document.hidden && refresher.want();
    live.listeners.add(want);
    const timer = setInterval(want, ANYWAY_MS);
    want();
    return () => {
      live.listeners.delete(want);
      clearInterval(timer);
    };
  }, []);
}

const Tile = ({ label, href, children, hot }) => html`<a class=${`tile ${hot ? "hot" : ""}`} href=${href}>
  <span class="figure">${children}</span><span class="label">${label}</span>
</a>`;

export function Tiles() {
  const { told } = useServer();
  const locks = told?.locks;
  const figure = (n) => (n === undefined || n === null ? "…" : number(n));
  const oldest = locks?.oldestWait;
  return html`<nav class="tiles" aria-label="Now">
    <${Tile} label="held" href="#/locks?sort=held">${figure(locks?.held)}<//>
    <${Tile} label="reserved" href="#/locks?show=reserved">${figure(locks?.reserved)}<//>
    <${Tile} label="waiting" href="#/locks?sort=waiting" hot=${locks?.waiting > 0}>${figure(locks?.waiting)}<//>
    <${Tile} label="oldest wait" href=${oldest ? lockHref(oldest.name) : "#/locks?sort=waiting"} hot=${!!oldest}>
      ${locks?.oldestWait === undefined ? "…" : oldest ? html`<${Ago} at=${oldest.since} />` : "none"}<//>
    <${Tile} label="grants a minute" href="#/events">${locks ? figure(rate()) : "…"}<//>
  </nav>`;
}

const Instance = ({ of }) => html`<tr>
  <th scope="row"><${Text} of=${of.address ?? of.id} />${of.you && html` <span class="tag">this one</span>`}</th>
  <td><span class=${`state ${of.state === "serving" ? "free" : "away"}`}>${of.state}</span></td>
  <td>${of.version}</td>
  <td class="n">${number(of.slots)}</td>
</tr>`;

export function Server() {
  const { told } = useServer();
  if (!told) return null;
  const instances = told.instances ?? [];
  return html`<section class="server" aria-labelledby="server-title">
    <h2 id="server-title">Server</h2>
    <dl class="facts">
      <div><dt>Version</dt><dd>${told.version}</dd></div>
      <div><dt>Store</dt><dd>${told.store}</dd></div>
      <div><dt>Profile</dt><dd>${told.profile}</dd></div>
      <div><dt>Key</dt><dd><${Text} of=${told.key?.name} /> <span class="tag">${told.key?.rights}</span>
        ${told.key?.prefixes && html` for ${told.key.prefixes.map((prefix, i) => html`${i ? ", " : ""}<bdi><code>${prefix}</code></bdi>`)}`}</dd></div>
    </dl>
    ${instances.length > 0 &&
    html`<div class="scroll"><table class="plain" aria-label="Instances">
      <thead><tr><th scope="col">Instance</th><th scope="col">State</th><th scope="col">Version</th>
        <th scope="col" class="n">Slots</th></tr></thead>
      <tbody>${instances.map((instance) => html`<${Instance} key=${instance.id} of=${instance} />`)}</tbody>
    </table></div>`}
    <${Elsewhere} what="Ask this" curl=${curl("GET", url("status"))} />
  </section>`;
}
