// One lock: its holders, its queue, its last leases, its documents.

import { describe, history, isReachable, path, serverNow, url } from "./api.js";
import { ForceOff, RemoveWaiter } from "./actions.js";
import { Documents } from "./documents.js";
import { live, watch } from "./live.js";
import { may, useServer } from "./now.js";
import {
  Ago, commandLine, curl, Elsewhere, Gap, html, Left, Refresher, State, Text, Trouble,
  useEffect, useLayoutEffect, useRef, useState, useVisibleRows,
} from "./parts.js";
import { absolute, clock, count, number, span } from "./text.js";

const GAP_MS = 200;
// How old values may be that change without an event (renewals, signs of life).
const ANYWAY_MS = 4000;
const QUEUE = 20;
const QUEUE_MAX = 1000;
const WAITER_PX = 41;

/** The state of the lock, loaded again after each event of it. */
function useLock(name) {
  const [state, set] = useState({ lock: null, error: null, at: 0, changes: 0, queue: QUEUE, past: undefined });
  const ref = useRef();
  ref.current = state;
  const refresher = useRef(null);
  useEffect(() => {
    const end = new AbortController();
    let changes = 0;
    let known = -1;
    const ask = async () => {
      const change = changes;
      try {
        const lock = await describe(name, ref.current.queue, end.signal);
        const past = change === known ? ref.current.past : await history(name, end.signal).catch(() => null);
        known = change;
        set((old) => ({ ...old, lock, past, error: null, at: performance.now(), changes: change }));
      } catch (error) {
        if (end.signal.aborted) return;
        // Of a deleted name only the history is left to show.
        if (error.status === 404) {
          const past = await history(name, end.signal).catch(() => null);
          set((old) => ({ ...old, lock: null, past, error, at: performance.now() }));
        } else set((old) => ({ ...old, error }));
      }
    };
    refresher.current = new Refresher(ask, GAP_MS);
    const heard = (events) => {
      if (events && !events.some((event) => event.name === name)) return;
      changes += 1;
      refresher.current.want();
    };
    watch(name);
    if (!isReachable(name)) return () => {};
    live.listeners.add(heard);
    const timer = setInterval(() => !document.hidden && refresher.current.want(), ANYWAY_MS);
    refresher.current.want();
    return () => {
      end.abort();
      live.listeners.delete(heard);
      clearInterval(timer);
      refresher.current.stop();
    };
  }, [name]);
  const more = (queue) => {
    set((old) => ({ ...old, queue }));
    ref.current = { ...ref.current, queue };
    refresher.current.want();
  };
  return { ...state, more };
}

const Fact = ({ label, children }) => html`<div><dt>${label}</dt><dd>${children}</dd></div>`;

function Holder({ lease, onForce }) {
  return html`<li class="holder">
    <div class="holder-top">
      <strong><${Text} of=${lease.owner} none="unnamed client" /></strong>
      ${lease.mode !== "exclusive" && html`<span class="tag">${lease.mode}</span>`}
      ${onForce && html`<button type="button" class="danger" onClick=${onForce}>Force off…</button>`}
    </div>
    ${lease.reason && html`<p class="reason"><${Text} of=${lease.reason} /></p>`}
    <dl class="facts">
      <${Fact} label="Held for"><${Ago} at=${lease.acquiredAt} /><//>
      <${Fact} label="Ends in"><${Left} lease=${lease} /><//>
      ${lease.renewedAt !== undefined && html`<${Fact} label="Renewed">${lease.renewedAt ? html`<${Ago} at=${lease.renewedAt} /> ago` : "never"}<//>`}
      <${Fact} label="Token"><code>${lease.fencingToken}</code><//>
      ${lease.client !== undefined && html`<${Fact} label="Client"><${Text} of=${lease.client} /><//>`}
      <${Fact} label="Since">${absolute(lease.acquiredAt)}<//>
    </dl>
  </li>`;
}

function Holders({ lock, onForce }) {
  const words = {
    reserved: "Nobody holds it: it is reserved for the next in line.",
    free: lock.waiting ? "It is free: no client that waits has asked lately." : "It is free.",
  };
  return html`<section aria-labelledby="holders">
    <h2 id="holders">${lock.holders.length > 1 ? `Held by ${number(lock.holders.length)}` : "Held by"}</h2>
    ${lock.holders.length
      ? html`<ul class="holders">${lock.holders.map(
          (lease) => html`<${Holder} key=${lease.fencingToken} lease=${lease} onForce=${may("admin") && isReachable(lock.name) && (() => onForce(lease.fencingToken))} />`,
        )}</ul>`
      : html`<p class="words">${words[lock.state]}</p>`}
  </section>`;
}

function Waiter({ of, columns, onRemove }) {
  const seen = of.near
    ? html`<span class="near"><span class="dot" aria-hidden="true"></span>near</span>`
    : html`<span class="far"><${Ago} at=${of.lastSeenAt} /> ago</span>`;
  return html`<tr>
    <td class="n place">${of.position}</td>
    <th scope="row"><${Text} of=${of.owner} none="unnamed" /></th>
    <td class="why"><${Text} of=${of.reason} /></td>
    <td class="c-mode">${of.mode}</td>
    <td class="n"><${Ago} at=${of.waitingSince} /></td>
    <td>${seen}</td>
    <td class="c-client"><${Text} of=${of.client} /></td>
    ${columns === 8 && html`<td class="act">${of.id && html`<button type="button" class="small" onClick=${onRemove}
      aria-label=${`Remove the waiter at place ${of.position}`}><span class="long">Remove…</span><span class="short">✕</span></button>`}</td>`}
  </tr>`;
}

function Queue({ lock, more, onRemove }) {
  const table = useRef();
  const [first, last] = useVisibleRows(table, lock.queue.length, WAITER_PX);
  const columns = may("admin") && isReachable(lock.name) && lock.queue.some((waiter) => waiter.id) ? 8 : 7;
  const missing = lock.waiting - lock.queue.length;
  const next = Math.min(QUEUE_MAX, lock.queue.length < 100 ? 100 : QUEUE_MAX);
  const word = (label, css = "") => html`<th scope="col" class=${css}>${label}</th>`;
  return html`<section aria-labelledby="queue">
    <h2 id="queue">Queue <span class="count">${number(lock.waiting)}</span></h2>
    ${lock.waiting === 0 && html`<p class="words">Nobody waits.</p>`}
    ${lock.queue.length > 0 &&
    html`<table class="list queue" ref=${table} aria-labelledby="queue" aria-rowcount=${lock.waiting + 1}>
      <thead><tr>${word("Place", "n place")}${word("Owner")}${word("Reason", "why")}${word("Mode", "c-mode")}${word("Waiting", "n")}${word("Seen")}${word("Client", "c-client")}
        ${columns === 8 && html`<th scope="col" class="act"><span class="hidden">Action</span></th>`}</tr></thead>
      <tbody>
        <${Gap} rows=${first} rowHeight=${WAITER_PX} columns=${columns} />
        ${lock.queue.slice(first, last).map(
          (waiter) => html`<${Waiter} key=${waiter.id ?? waiter.position} of=${waiter} columns=${columns} onRemove=${() => onRemove(waiter)} />`,
        )}
        <${Gap} rows=${lock.queue.length - last} rowHeight=${WAITER_PX} columns=${columns} />
      </tbody>
    </table>`}
    ${missing > 0 &&
    html`<p class="foot">${lock.queue.length ? count(missing, "more waits", "more wait") : count(missing, "client waits", "clients wait")}${lock.queue.length < QUEUE_MAX && lock.queue.length > 0 &&
    html`: <button type="button" class="link" onClick=${() => more(next)}>show the first ${number(Math.min(next, lock.waiting))}</button>`}</p>`}
  </section>`;
}

const ENDS = { released: "released", expired: "expired", forced_off: "forced off", deleted: "deleted" };

/** The last leases on a time line from the first of them to now. */
function Strip({ leases, lock }) {
  const now = serverNow();
  const current = (lock?.holders ?? []).map((lease) => ({ ...lease, endedAt: null, end: "held" }));
  const all = [...leases, ...current];
  const from = Math.min(...all.map((lease) => Date.parse(lease.acquiredAt)));
  const room = Math.max(1, now - from);
  const at = (time) => (100 * (time - from)) / room;
  return html`<svg class="strip" role="img" aria-label=${`The last ${count(all.length, "lease")}, from ${absolute(new Date(from).toISOString())} until now`} viewBox="0 0 100 10" preserveAspectRatio="none">
    <rect class="none" x="0" y="0" width="100" height="10" />
    ${all.map((lease) => {
      const left = at(Date.parse(lease.acquiredAt));
      const right = lease.endedAt ? at(Date.parse(lease.endedAt)) : 100;
      return html`<rect key=${lease.fencingToken} class=${lease.end} x=${left} y="0" width=${Math.max(0.4, right - left)} height="10"><title>${lease.owner ?? "unnamed"}, ${lease.end}</title></rect>`;
    })}
  </svg>`;
}

function Past({ past, lock, name }) {
  if (!past) return null;
  const { leases } = past;
  return html`<section aria-labelledby="past">
    <h2 id="past">History</h2>
    ${leases.length === 0 && html`<p class="words">No lease has ended yet, or history is switched off.</p>`}
    ${leases.length > 0 &&
    html`<${Strip} leases=${leases} lock=${lock} />
      <p class="legend" aria-hidden="true">${["held", ...Object.keys(ENDS)].map((end) => html`<span><i class=${end}></i>${ENDS[end] ?? "held now"}</span>`)}</p>
      <div class="scroll"><table class="plain" aria-labelledby="past">
        <thead><tr><th scope="col">Owner</th><th scope="col">Reason</th><th scope="col" class="n">Token</th><th scope="col" class="n">Waited</th>
          <th scope="col" class="n">Held</th><th scope="col">Ended</th><th scope="col">How</th></tr></thead>
        <tbody>${leases.map((lease) => html`<tr key=${lease.fencingToken}>
          <th scope="row"><${Text} of=${lease.owner} none="unnamed" /></th>
          <td><${Text} of=${lease.reason} /></td>
          <td class="n"><code>${lease.fencingToken}</code></td>
          <td class="n">${span(lease.queuedMs)}</td>
          <td class="n">${span(lease.heldMs)}</td>
          <td><time datetime=${lease.endedAt} title=${absolute(lease.endedAt)}>${clock(lease.endedAt)}</time></td>
          <td><span class=${`end ${lease.end}`}>${ENDS[lease.end] ?? lease.end}</span>
            ${lease.forced && html` by <${Text} of=${lease.forced.by} />: <${Text} of=${lease.forced.reason} />`}</td>
        </tr>`)}</tbody>
      </table></div>`}
    <${Elsewhere} what="Ask for history" curl=${curl("GET", url(path("history", name)))} command=${isReachable(name) && commandLine("history", [name])} />
  </section>`;
}

function Facts({ lock }) {
  return html`<dl class="facts top">
    ${(lock.slots ?? 1) > 1 && html`<${Fact} label="Slots">${number(lock.holders.length)} of ${number(lock.slots)} taken<//>`}
    <${Fact} label="Timeout">${lock.timeout ? `${number(lock.timeout)} s` : "none"}<//>
    ${lock.lockDelay > 0 && html`<${Fact} label="Lock-delay">${lock.lockDelay} s<//>`}
    ${lock.ephemeral && html`<${Fact} label="Kind">ephemeral: it goes when nobody uses it<//>`}
  </dl>`;
}

export function Lock({ name }) {
  useServer();
  const { lock, error, at, changes, past, more } = useLock(name);
  const [open, show] = useState(null);
  const close = () => show(null);
  const force = (token) => show({ token });
  // A layout effect, so that `f` always acts on the lease that is on the screen.
  useLayoutEffect(() => {
    const press = (e) => {
      if (e.detail === "f" && may("admin") && lock?.holders.length === 1) force(lock.holders[0].fencingToken);
    };
    addEventListener("page-key", press);
    return () => removeEventListener("page-key", press);
  });
  return html`<div class="view one">
    <a class="back" href="#/locks" onClick=${(e) => history_back(e)}>‹ Locks</a>
    <header class="title"><h1><bdi>${name}</bdi></h1>${lock && html`<${State} of=${lock.state} />`}</header>
    ${!isReachable(name) && html`<p class="trouble">A browser cannot ask for this name: it takes it for a step in a path. The curl command below can.</p>`}
    ${error?.status === 404 ? html`<p class="words">There is no resource of this name now.</p>` : html`<${Trouble} error=${error} at=${at} />`}
    ${!lock && !error && isReachable(name) && html`<p class="words">Loading…</p>`}
    ${lock &&
    html`<div class=${error ? "old" : ""}>
      <${Facts} lock=${lock} />
      <${Holders} lock=${lock} onForce=${force} />
      <${Queue} lock=${lock} more=${more} onRemove=${(waiter) => show({ waiter })} />
    </div>`}
    <${Elsewhere} what="Look at this lock" curl=${curl("GET", url(path("resource", name)))} command=${isReachable(name) && commandLine("show", [name])} />
    <${Past} past=${past} lock=${lock} name=${name} />
    ${lock && html`<${Documents} name=${name} count=${lock.selectors} changes=${changes} />`}
    ${open && (open.waiter ? html`<${RemoveWaiter} name=${name} waiter=${open.waiter} onClose=${close} />` : html`<${ForceOff} name=${name} token=${open.token} onClose=${close} />`)}
  </div>`;
}

/** Goes back to the list as the user left it, if the user came from there. */
function history_back(e) {
  if (!sessionStorage.getItem("came from list")) return;
  e.preventDefault();
  window.history.back();
}
