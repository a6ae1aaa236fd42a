// The stream of events, newest first. It stands still while the user reads it.

import { url } from "./api.js";
import { live, watch } from "./live.js";
import { commandLine, curl, Elsewhere, Gap, html, lockHref, Search, Text, useEffect, useRedraw, useRef, useState, useVisibleRows } from "./parts.js";
import { absolute, clock, number } from "./text.js";

const KEPT = 1000;
const ROW_PX = 33;
const TYPING_MS = 300;

/** The last events. Kept while the tab is open, so that a visit to another view does not lose them. */
const kept = { prefix: null, events: [], next: 1, left: 0 };

function keep(events, left) {
  if (events === null) return;
  const numbered = events.map((event) => ({ ...event, number: kept.next++ }));
  kept.events = [...numbered.reverse(), ...kept.events].slice(0, KEPT);
  kept.left += left;
}

const Row = ({ of }) => html`<tr>
  <td class="c-time"><time datetime=${of.at} title=${of.at && absolute(of.at)}>${of.at ? clock(of.at) : "–"}</time></td>
  <td><span class=${`event ${of.type}`}>${of.type.replace("_", " ")}</span></td>
  <th scope="row"><a href=${lockHref(of.name)}><${Text} of=${of.name} /></a>${of.selector && html`<span class="more">/<bdi>${of.selector}</bdi></span>`}</th>
  <td class="c-owner"><${Text} of=${of.owner} /></td>
  <td class="why"><${Text} of=${of.reason} /></td>
  <td class="n c-token">${of.fencingToken && html`<code>${of.fencingToken}</code>`}</td>
  <td class="c-client"><${Text} of=${of.client} /></td>
</tr>`;

export function Events({ params, go }) {
  const q = params.get("q") ?? "";
  const redraw = useRedraw();
  const table = useRef();
  const frozen = useRef({ by: new Set(), events: null }).current;
  const [stopped, stop] = useState(false);
  const hold = (why, on) => {
    on ? frozen.by.add(why) : frozen.by.delete(why);
    if (!frozen.by.size) frozen.events = null;
    else frozen.events ??= kept.events;
    redraw();
  };
  useEffect(() => {
    if (kept.prefix !== q) Object.assign(kept, { prefix: q, events: [], left: 0 });
    frozen.events = frozen.by.size ? kept.events : null;
    watch(q);
    const take = (events, left) => {
      keep(events, left);
      redraw();
    };
    const state = () => redraw();
    live.listeners.add(take);
    live.watchers.add(state);
    return () => {
      live.listeners.delete(take);
      live.watchers.delete(state);
    };
  }, [q]);
  useEffect(() => {
    const scrolled = () => {
      const reads = scrollY > 0 && table.current.tBodies[0].getBoundingClientRect().top < 60;
      if (reads !== frozen.by.has("scroll")) hold("scroll", reads);
    };
    addEventListener("scroll", scrolled, { passive: true });
    return () => removeEventListener("scroll", scrolled);
  }, []);
  const rows = frozen.events ?? kept.events;
  const [first, last] = useVisibleRows(table, rows.length, ROW_PX);
  const fresh = frozen.events ? kept.events.findIndex((event) => event === frozen.events[0]) : 0;
  const waiting = fresh < 0 ? kept.events.length : fresh;
  const change = (text) => go(`#/events${text ? `?q=${encodeURIComponent(text)}` : ""}`, true);
  const show = () => {
    frozen.events = kept.events;
    if (frozen.by.delete("scroll")) scrollTo(0, 0);
    if (!frozen.by.size) frozen.events = null;
    redraw();
  };
  const word = (label, css = "") => html`<th scope="col" class=${css}>${label}</th>`;
  return html`<div class="view">
    <h1 class="hidden">Events</h1>
    <div class="toolbar">
      <${Search} value=${q} pauseMs=${TYPING_MS} change=${change} />
      <button type="button" aria-pressed=${stopped} onClick=${() => (stop(!stopped), hold("button", !stopped))}>${stopped ? "Go on" : "Pause"}</button>
      <button type="button" class=${`changed ${waiting ? "" : "away"}`} disabled=${!waiting} onClick=${show}>${number(waiting)}${waiting >= KEPT ? " or more" : ""} new: show</button>
    </div>
    ${live.state === "polling" && html`<p class="words" role="status">The stream of events cannot be had here now. The other views ask every two seconds instead.</p>`}
    ${kept.left > 0 && html`<p class="hint">${number(kept.left)} events came too fast and were left out.</p>`}
    <table class="list events" ref=${table} aria-label="Events, newest first">
      <thead><tr>${word("Time", "c-time")}${word("What")}${word("Name")}${word("Owner", "c-owner")}${word("Reason", "why")}${word("Token", "n c-token")}${word("Client", "c-client")}</tr></thead>
      <tbody onPointerEnter=${(e) => e.pointerType === "mouse" && hold("pointer", true)} onPointerLeave=${() => hold("pointer", false)}
        onFocusIn=${() => hold("focus", true)} onFocusOut=${() => hold("focus", false)}>
        <${Gap} rows=${first} rowHeight=${ROW_PX} columns="7" />
        ${rows.slice(first, last).map((event) => html`<${Row} key=${event.number} of=${event} />`)}
        <${Gap} rows=${rows.length - last} rowHeight=${ROW_PX} columns="7" />
      </tbody>
    </table>
    ${rows.length === 0 && live.state !== "polling" && html`<p class="words">Nothing has happened since this page listens${q && html` to names that begin with <bdi><code>${q}</code></bdi>`}.</p>`}
    <${Elsewhere} what="Listen" curl=${`${curl("GET", url("events", { prefix: q }))} --no-buffer`} command=${commandLine("watch", q ? [q] : [])} />
  </div>`;
}
