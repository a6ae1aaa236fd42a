// The page: its routes, its frame, the form for the key, the keyboard.

import { address, session } from "./api.js";
import { Events } from "./events.js";
import { live, watch } from "./live.js";
import { Lock } from "./lock.js";
import { Locks } from "./locks.js";
import { refresher, server, useServer, useServerKept } from "./now.js";
import { Dialog, html, News, useCalls, useEffect, useLayoutEffect, useRef, useSession, useState } from "./parts.js";
import { render } from "./preact.js";

// ---- routes --------------------------------------------------------------------------------------------

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  const [view, ...rest] = path.split("/");
  const params = new URLSearchParams(query.replaceAll("+", "%2B"));
  if (view === "lock" && rest.length) {
    try {
      return { view, name: decodeURIComponent(rest.join("/")), params };
    } catch {
      return { view: "locks", params };
    }
  }
  return { view: view === "events" ? "events" : "locks", params };
}

/** Goes to another address. `replace`: without a new entry in the browser's history. */
function go(href, replace = false) {
  if (replace) history.replaceState(null, "", href);
  else history.pushState(null, "", href);
  dispatchEvent(new HashChangeEvent("hashchange"));
}

function useRoute() {
  const [now, set] = useState(route);
  useEffect(() => {
    let before = route().view;
    const change = () => {
      const next = route();
      if (next.view === "lock" && before === "locks") sessionStorage.setItem("came from list", "1");
      else if (next.view !== "lock") sessionStorage.removeItem("came from list");
      if (next.view !== before) scrollTo(0, 0);
      before = next.view;
      set(next);
    };
    addEventListener("hashchange", change);
    addEventListener("popstate", change);
    return () => {
      removeEventListener("hashchange", change);
      removeEventListener("popstate", change);
    };
  }, []);
  return now;
}

// ---- the frame -----------------------------------------------------------------------------------------

const WORDS = {
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  polling: "every 2 s",
  stopped: "paused",
};

const MEANINGS = {
  connecting: "The stream of events is being opened.",
  live: "What happens is shown as it happens.",
  reconnecting: "The server cannot be reached. It is tried again and again.",
  polling: "There is no stream of events. The page asks the server every two seconds.",
  stopped: "The page is hidden, and asks the server nothing.",
};

function Liveness() {
  useCalls(live.watchers);
  return html`<span class=${`live ${live.state}`} role="status" title=${MEANINGS[live.state]}><span class="dot" aria-hidden="true"></span>${WORDS[live.state]}</span>`;
}

const THEMES = ["auto", "light", "dark"];

function dress(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
}

function Theme() {
  const [theme, set] = useState(localStorage.getItem("theme") ?? "auto");
  const change = (e) => {
    set(e.target.value);
    localStorage.setItem("theme", e.target.value);
    dress(e.target.value);
  };
  return html`<label class="theme"><span>Colours</span><select value=${theme} onChange=${change}>
    ${THEMES.map((name) => html`<option value=${name} selected=${name === theme}>${name}</option>`)}</select></label>`;
}

/** Rarely used functions. Closes on a click or focus outside it, and with Escape. */
function Menu({ told, onHelp }) {
  const menu = useRef();
  const close = () => (menu.current.open = false);
  useEffect(() => {
    // The form for the key may take the focus while this menu is being removed.
    const elsewhere = (e) => !menu.current || menu.current.contains(e.target) || close();
    const escape = (e) => {
      if (e.key !== "Escape" || !menu.current?.open) return;
      close();
      menu.current.firstElementChild.focus();
    };
    addEventListener("pointerdown", elsewhere);
    addEventListener("focusin", elsewhere);
    addEventListener("keydown", escape);
    return () => {
      removeEventListener("pointerdown", elsewhere);
      removeEventListener("focusin", elsewhere);
      removeEventListener("keydown", escape);
    };
  }, []);
  const help = () => {
    close();
    onHelp();
  };
  return html`<details class="menu" ref=${menu}>
    <summary><span class="hidden">Menu, key: </span>${told?.key?.rights.replace("_", " ") ?? "…"}<span aria-hidden="true"> ▾</span></summary>
    <div class="sheet">
      ${told?.key && told.key.name !== told.key.rights && html`<p>Key <strong><bdi>${told.key.name}</bdi></strong></p>`}
      <${Theme} />
      <button type="button" onClick=${help}>Keys and help <kbd>?</kbd></button>
      <button type="button" onClick=${() => session.use("")}>Forget key</button>
    </div>
  </details>`;
}

function Frame({ view, children, onHelp }) {
  const { told } = useServer();
  const tab = (name, label) => html`<a href=${`#/${name}`} aria-current=${view === name ? "page" : undefined}>${label}</a>`;
  return html`<header class="bar">
      <a class="mark" href="#/locks" aria-label="Locks, the first page"><img src="page/icon.svg" alt="" width="22" height="22" /></a>
      <nav aria-label="Views">${tab("locks", "Locks")}${tab("events", "Events")}</nav>
      <span class="where" title=${address}>${location.host}</span>
      <${Liveness} />
      <${Menu} told=${told} onHelp=${onHelp} />
    </header>
    <main id="main">${children}</main>
    <${News} />`;
}

const Help = ({ onClose }) => html`<${Dialog} title="Keys" onClose=${onClose}>
  <dl class="keys">
    ${[
      ["/", "search"],
      ["j k", "down and up in the list"],
      ["Enter", "open the lock"],
      ["f", "force off the lock (with an ADMIN key)"],
      ["r", "sort the list again"],
      ["?", "this help"],
      ["Esc", "close, leave the search"],
    ].map(([key, words]) => html`<div><dt>${key.split(" ").map((one) => html`<kbd>${one}</kbd> `)}</dt><dd>${words}</dd></div>`)}
  </dl>
  <p class="hint">While the pointer or the keyboard is in a list, its rows keep their places; their contents go on changing.
    This page uses the public API only, which <a href="openapi.json">openapi.json</a> describes.</p>
<//>`;

// ---- the key -------------------------------------------------------------------------------------------

function Key() {
  const { refused } = useSession();
  const input = useRef();
  const use = (e) => {
    e.preventDefault();
    const key = input.current.value.trim();
    if (key) session.use(key);
  };
  useLayoutEffect(() => input.current.focus(), [refused]);
  return html`<main class="gate" id="main"><form class="card" onSubmit=${use}>
    <img src="page/icon.svg" alt="" width="40" height="40" />
    <h1>Locks</h1>
    <p class="where">${location.host}</p>
    <input class="hidden" type="text" name="username" autocomplete="username" value="locks" tabindex="-1" aria-hidden="true" readonly />
    <label class="field"><span>Key</span><input ref=${input} type="password" name="key" autocomplete="current-password" required
      aria-describedby="key-words" aria-invalid=${refused ? "true" : undefined} /></label>
    <p id="key-words" class=${refused ? "trouble" : "hint"} role=${refused ? "alert" : undefined}>${
      refused ? `The server did not take this key. ${refused}` : "Any of the server's keys: what it allows is what you can do here. It stays in this tab only."
    }</p>
    <button type="submit" class="main">Look</button>
  </form></main>`;
}

// ---- the app -------------------------------------------------------------------------------------------

function useKeys(onHelp) {
  useLayoutEffect(() => {
    const press = (e) => {
      const typing = e.target.closest?.("input, textarea, select");
      if (e.key === "Escape" && typing?.type === "search") return e.target.blur();
      if (typing || e.ctrlKey || e.metaKey || e.altKey || document.querySelector("dialog[open]")) return;
      if (e.key === "/") {
        const search = document.querySelector("input[type=search]");
        if (search) {
          e.preventDefault();
          search.focus();
          search.select();
        }
      } else if (e.key === "?") onHelp();
      else if (["j", "k", "f", "r"].includes(e.key)) {
        e.preventDefault();
        dispatchEvent(new CustomEvent("page-key", { detail: e.key }));
      }
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

function Open({ now }) {
  const [help, setHelp] = useState(false);
  useKeys(() => setHelp(true));
  useServerKept();
  useEffect(() => {
    document.title = now.view === "lock" ? `${now.name} · Locks` : now.view === "events" ? "Events · Locks" : "Locks";
  }, [now.view, now.name]);
  const view =
    now.view === "lock" ? html`<${Lock} key=${now.name} name=${now.name} />`
    : now.view === "events" ? html`<${Events} params=${now.params} go=${go} />`
    : html`<${Locks} params=${now.params} go=${go} />`;
  return html`<${Frame} view=${now.view === "lock" ? "locks" : now.view} onHelp=${() => setHelp(true)}>${view}<//>
    ${help && html`<${Help} onClose=${() => setHelp(false)} />`}`;
}

function App() {
  const { key } = useSession();
  const now = useRoute();
  useEffect(() => {
    server.told = null;
    if (key) refresher.want();
    else watch(null);
  }, [key]);
  return key ? html`<${Open} key=${key} now=${now} />` : html`<${Key} />`;
}

dress(localStorage.getItem("theme") ?? "auto");
history.scrollRestoration = "manual";
const root = document.getElementById("app");
root.textContent = "";
render(html`<${App} />`, root);
