(() => { // The address is without a name and password, with which fetch fails.
  const here = location.origin + location.pathname, note = document.getElementById("note");
  const sentence = () => document.getElementById("state").textContent; let last = Date.now();
  async function refresh() {
    const main = document.querySelector("main"), selected = getSelection();
    if (document.hidden || (!selected.isCollapsed && main.contains(selected.anchorNode))) return;
    try {
      const answer = await fetch(here, { cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.status);
      const next = new DOMParser().parseFromString(await answer.text(), "text/html"), before = sentence();
      const open = main.querySelector("details").open, active = document.activeElement;
      main.replaceWith(next.querySelector("main"));
      document.querySelector("details").open = open;
      if (main.contains(active)) document.getElementById(active.id)?.focus({ preventScroll: true });
      [document.title, last, note.className] = [next.title, Date.now(), ""];
      note.textContent = sentence() === before ? "" : sentence();
    } catch {
      note.textContent = `The service does not answer; this is ${Math.round((Date.now() - last) / 1000)} s old.`;
      note.className = "stale";
    }
  }
  setInterval(refresh, 5000); document.addEventListener("visibilitychange", refresh);
})();
