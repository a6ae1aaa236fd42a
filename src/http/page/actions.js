// Dialogs that end somebody else's lease or wait. The request names exactly the lease or waiter that was shown,
// so that a later one is not ended by mistake.

import { describe, forceOff, path, removeWaiter, url } from "./api.js";
import { Ago, commandLine, curl, Dialog, Elsewhere, html, Left, tell, Text, useEffect, useLayoutEffect, useRef, useState } from "./parts.js";
import { count } from "./text.js";

const REASON_MAX = 255;

/** Who gets the lock when this lease ends, as far as is known now. */
function Next({ lock, isLast }) {
  if (!isLast) return html`<p>The other holders keep theirs.</p>`;
  const delay = lock.lockDelay > 0 ? html` after its lock-delay of ${lock.lockDelay} s` : "";
  const near = lock.queue.find((waiter) => waiter.near);
  if (near) {
    return html`<p>Next is <strong><${Text} of=${near.owner} none="an unnamed client" /></strong>
      ${near.reason && html` (<${Text} of=${near.reason} />)`}, place ${near.position}, waiting for <${Ago} at=${near.waitingSince} />:
      the lock goes there${delay || " at once"}.</p>`;
  }
  if (lock.waiting > 0) {
    return html`<p>${count(lock.waiting, "client")} ${lock.waiting === 1 ? "waits" : "wait"}${
      lock.queue.length ? ", but none of the first has asked lately" : ""
    }: the first that asks again gets the lock${delay}.</p>`;
  }
  return html`<p>Nobody waits: the lock is free${delay}.</p>`;
}

/** The form that ends what `children` show. `end` is called with the reason, `onReason` while it is typed. */
function EndForm({ children, button, sending, look, onReason, onClose, end }) {
  const input = useRef();
  useLayoutEffect(() => input.current.focus(), []);
  const submit = (e) => {
    e.preventDefault();
    const reason = input.current.value.trim();
    if (!reason) return input.current.focus();
    end(reason);
  };
  const again = look && html` <button type="button" class="link" onClick=${look}>Look again</button>`;
  return html`<form onSubmit=${submit} onInput=${(e) => onReason(e.target.value)}>
    ${children}
    <label class="field"><span>Why (required)</span>
    <input ref=${input} type="text" required maxlength=${REASON_MAX} autocomplete="off" aria-describedby="reason-hint" /></label>
    <p class="hint" id="reason-hint">Told to the client that loses it, and logged.</p>
    ${sending.sentence && html`<p class="trouble" role="alert">${sending.sentence}${again}</p>`}
    <div class="buttons">
      <button type="submit" class="danger" disabled=${sending.busy}>${button}</button>
      <button type="button" onClick=${onClose}>Keep it</button>
    </div>
  </form>`;
}

function Holder({ of }) {
  return html`<dl class="facts">
    <div><dt>Holder</dt><dd><${Text} of=${of.owner} none="unnamed" /></dd></div>
    ${of.reason && html`<div><dt>Why</dt><dd><${Text} of=${of.reason} /></dd></div>`}
    <div><dt>Held for</dt><dd><${Ago} at=${of.acquiredAt} /></dd></div>
    <div><dt>Ends in</dt><dd><${Left} lease=${of} /></dd></div>
    <div><dt>Fencing token</dt><dd><code>${of.fencingToken}</code></dd></div>
  </dl>`;
}

/** The lock as it is when the dialog opens: only a lease that is shown then is ended. */
function useLock(name) {
  const [lock, set] = useState(null);
  const [error, fail] = useState(null);
  const look = () => {
    fail(null);
    describe(name, 20).then(set, fail);
  };
  useEffect(look, [name]);
  return { lock, error, look };
}

function now(lock) {
  const [holder] = lock.holders;
  if (!holder) return lock.state === "reserved" ? "it is reserved for the next in line" : "it is free";
  const owner = holder.owner ? `“${holder.owner}”` : "an unnamed client";
  return `it is held by ${owner} with fencing token ${holder.fencingToken}`;
}

/** Sends the change and says what came of it. */
function useSending(name, onDone) {
  const [state, set] = useState({ busy: false, sentence: "" });
  const act = async (work, done) => {
    set({ busy: true, sentence: "" });
    try {
      await work();
      tell(done);
      onDone();
    } catch (error) {
      let sentence = error.message;
      if (error.code === "not_waiting") {
        sentence = `It changed meanwhile: ${error.message.replace(/^No/, "no")} Nothing was ended.`;
      } else if (error.status === 409) {
        const lock = await describe(name, 1).catch(() => null);
        sentence = `It changed meanwhile: ${lock ? now(lock) : error.message} Nothing was ended.`.replace(/([^.]) Nothing/, "$1. Nothing");
      } else if (error.status === 0 || error.status >= 500) {
        sentence = `${error.message} It may have happened all the same: look again before you repeat it.`;
      }
      set({ busy: false, sentence });
    }
  };
  return { ...state, act };
}

/** `token`: fencing token of the lease to end; without one, the first lease is ended. */
export function ForceOff({ name, token, onClose }) {
  const { lock, error, look } = useLock(name);
  const sending = useSending(name, onClose);
  const [text, setText] = useState("");
  const title = html`Force off <bdi>${name}</bdi>`;
  if (!lock) {
    return html`<${Dialog} title=${title} onClose=${onClose}><p>${error ? error.message : "Looking at the lock…"}</p><//>`;
  }
  const holder = lock.holders.find((lease) => token === undefined || lease.fencingToken === token);
  if (!holder) {
    return html`<${Dialog} title=${title} onClose=${onClose}><p>${token === undefined ? "Nobody holds it" : "That lease is over"}: ${now(lock)}.</p><//>`;
  }
  const end = (reason) => {
    const who = holder.owner ? `“${holder.owner}”` : "The holder";
    sending.act(() => forceOff(name, reason, holder.fencingToken), `${who} was forced off “${name}”.`);
  };
  const why = text || "why";
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <${EndForm} button=${`Force off token ${holder.fencingToken}`} sending=${sending} look=${look} onReason=${setText} onClose=${onClose} end=${end}>
      <${Holder} of=${holder} />
      <${Next} lock=${lock} isLast=${lock.holders.length === 1} />
    <//>
    <${Elsewhere} curl=${curl("POST", url(path("resource", name, "force-unlock")), { reason: why, fencingToken: holder.fencingToken })}
      command=${commandLine("force-unlock", [name], [`--reason=${why}`, `--fencing-token=${holder.fencingToken}`])} />
  <//>`;
}

/** Removes one waiting client from the queue. */
export function RemoveWaiter({ name, waiter, onClose }) {
  const sending = useSending(name, onClose);
  const [text, setText] = useState("");
  const end = (reason) => {
    const who = waiter.owner ? `“${waiter.owner}”` : "The client";
    sending.act(() => removeWaiter(name, reason, waiter.id), `${who} was removed from the queue of “${name}”.`);
  };
  const body = { reason: text || "why", waiter: waiter.id };
  return html`<${Dialog} title=${html`Remove a waiter of <bdi>${name}</bdi>`} onClose=${onClose}>
    <${EndForm} button="Remove it" sending=${sending} onReason=${setText} onClose=${onClose} end=${end}>
      <dl class="facts">
        <div><dt>Waits</dt><dd><${Text} of=${waiter.owner} none="unnamed" /></dd></div>
        ${waiter.reason && html`<div><dt>For</dt><dd><${Text} of=${waiter.reason} /></dd></div>`}
        <div><dt>Place</dt><dd>${waiter.position}</dd></div>
        <div><dt>Waiting for</dt><dd><${Ago} at=${waiter.waitingSince} /></dd></div>
      </dl>
      <p>It loses its place and is told why. If it asks again, it stands at the end.</p>
    <//>
    <${Elsewhere} curl=${curl("POST", url(path("resource", name, "force-unlock")), body)}
      command=${commandLine("force-unlock", [name], [`--reason=${body.reason}`, `--waiter=${waiter.id}`])} />
  <//>`;
}
