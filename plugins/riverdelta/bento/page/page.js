(() => {
  "use strict";
  const every = 5000;
  // Without the name and password that the address may have: a request with those is refused.
  const here = location.origin + location.pathname;
  const note = document.getElementById("note");
  const sentence = () => document.getElementById("state").textContent;
  let last = Date.now();

  async function refresh() {
    const selected = getSelection();
    const main = document.querySelector("main");
    if (document.hidden || (!selected.isCollapsed && main.contains(selected.anchorNode))) return;
    try {
      const answer = await fetch(here, { cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(String(answer.status));
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = document.adoptNode(next.querySelector("main"));
      for (const open of main.querySelectorAll("details[open]")) fresh.querySelector("#" + open.id)?.setAttribute("open", "");
      const focused = main.contains(document.activeElement) ? document.activeElement.id : "";
      const before = sentence();
      main.replaceWith(fresh);
      if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
      document.title = next.title;
      last = Date.now();
      note.textContent = sentence() === before ? "" : sentence();
      note.className = "unseen";
    } catch {
      note.textContent = `The service does not answer; this is ${Math.round((Date.now() - last) / 1000)} s old.`;
      note.className = "stale";
    }
  }

  setInterval(refresh, every);
  document.addEventListener("visibilitychange", refresh);
})();
