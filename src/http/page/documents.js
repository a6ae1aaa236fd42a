// The documents of a resource: their sizes, and one of them to read, or to change if the key allows it.

import { documents, isReachable, path, read, url, write } from "./api.js";
import { may } from "./now.js";
import { commandLine, curl, Dialog, Elsewhere, html, tell, Text, useEffect, useLayoutEffect, useRef, useState } from "./parts.js";
import { bytes, number, pretty } from "./text.js";

// Longer documents are shown without colours, which would take the browser too long. In characters.
const PRETTY_MAX = 200_000;
const SHOWN_MAX = 500_000;

function Json({ text }) {
  const cut = text.length > SHOWN_MAX;
  const shown = cut ? text.slice(0, SHOWN_MAX) : text;
  return html`<pre class="json" tabindex="0" aria-label="The document">${
    shown.length > PRETTY_MAX ? shown : pretty(shown).map(([kind, token]) => (kind ? html`<span class=${kind}>${token}</span>` : token))
  }</pre>${cut && html`<p class="hint">The first ${number(SHOWN_MAX)} characters of ${number(text.length)}.</p>`}`;
}

function wrong(text) {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `This is no JSON: ${error.message}`;
  }
}

function Editor({ name, selector, document: { text, tag }, onDone, onCancel }) {
  const area = useRef();
  const [sentence, say] = useState("");
  const [busy, work] = useState(false);
  useLayoutEffect(() => area.current.focus(), []);
  const save = async (e) => {
    e.preventDefault();
    const changed = area.current.value;
    const fault = wrong(changed);
    if (fault) return say(fault);
    work(true);
    try {
      await write(name, selector, changed, tag);
      tell(`“${selector}” was written.`);
      onDone();
    } catch (error) {
      const words = {
        412: "Somebody else changed the document meanwhile. Nothing was written: read it again.",
        409: `Somebody holds the lock, and only the holder writes. Nothing was written. ${error.message}`,
      };
      say(words[error.status] ?? error.message);
      work(false);
    }
  };
  return html`<form onSubmit=${save}>
    <label class="field"><span>JSON</span><textarea ref=${area} rows="14" spellcheck="false" defaultValue=${text}></textarea></label>
    ${sentence && html`<p class="trouble" role="alert">${sentence}</p>`}
    <div class="buttons"><button type="submit" class="main" disabled=${busy}>Write it</button>
      <button type="button" onClick=${onCancel}>Leave it</button></div>
    <${Elsewhere} curl=${curl("PUT", url(path("resource", name, selector))).replace(" -H", ` -H 'If-Match: ${tag}' --data-binary @document.json -H`)}
      command=${`${commandLine("put", [name, selector])} < document.json`} />
  </form>`;
}

function Document({ name, selector, onClose }) {
  const [state, set] = useState({});
  const [edits, edit] = useState(false);
  const look = () => {
    edit(false);
    read(name, selector).then((document) => set({ document }), (error) => set({ error }));
  };
  useEffect(look, [name, selector]);
  const { document, error } = state;
  const title = html`<bdi>${selector}</bdi> of <bdi>${name}</bdi>`;
  return html`<${Dialog} title=${title} onClose=${onClose} wide>
    ${!document && html`<p>${error ? error.message : "Loading…"}</p>`}
    ${document && edits && html`<${Editor} name=${name} selector=${selector} document=${document} onDone=${look} onCancel=${() => edit(false)} />`}
    ${document && !edits && html`<${Json} text=${document.text} />
      <div class="buttons">
        ${may("write") && document.tag && html`<button type="button" onClick=${() => edit(true)}>Edit…</button>`}
        <button type="button" onClick=${look}>Read again</button>
      </div>
      <${Elsewhere} what="Read this" curl=${curl("GET", url(path("resource", name, selector), { lock: 0, raw: 1 }))} command=${commandLine("get", [name, selector])} />`}
  <//>`;
}

/** The list is loaded again when `count` or `changes` (how many events of the name came) changes, and when a document is
 * opened or closed. */
export function Documents({ name, count, changes }) {
  const [list, set] = useState(null);
  const [open, show] = useState(null);
  useEffect(() => {
    const end = new AbortController();
    if (count > 0) documents(name, end.signal).then((told) => set(told.documents), () => {});
    else set([]);
    return () => end.abort();
  }, [name, count, changes, open]);
  const [typed, type] = useState("");
  return html`<section aria-labelledby="documents">
    <h2 id="documents">Documents <span class="count">${number(count)}</span></h2>
    ${count === 0 && html`<p class="words">Nothing was written here.</p>`}
    ${list?.length > 0 && html`<ul class="documents">${list.map(
      (document) => html`<li key=${document.selector}><button type="button" class="link" disabled=${!isReachable(document.selector)} onClick=${() => show(document.selector)}><${Text} of=${document.selector} /></button>
        <span class="size">${bytes(document.bytes)}</span></li>`,
    )}</ul>${list.length < count && html`<p class="foot">${number(count - list.length)} more.</p>`}`}
    ${list !== null && list.length < count && html`<form class="inline" onSubmit=${(e) => (e.preventDefault(), typed && show(typed))}>
      <label class="field"><span>Selector</span><input type="text" value=${typed} onInput=${(e) => type(e.target.value)} autocomplete="off" spellcheck="false" /></label>
      <button type="submit">Read</button></form>`}
    ${open !== null && html`<${Document} name=${name} selector=${open} onClose=${() => show(null)} />`}
  </section>`;
}
