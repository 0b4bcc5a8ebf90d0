// The page works without this. With it, what is marked data-live is renewed while it is looked at, and "/" goes to the search.
"use strict";

const EVERY_MS = 10000;

function renew(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const focused = document.activeElement ? document.activeElement.id : "";
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(part.id);
    if (next && next.innerHTML !== part.innerHTML) part.replaceWith(document.adoptNode(next));
  }
  const again = focused && document.getElementById(focused);
  if (again && document.activeElement !== again) again.focus({ preventScroll: true });
}

async function look() {
  if (document.hidden || location.pathname === "/sign-in") return;
  const asOf = document.getElementById("as-of");
  try {
    const answer = await fetch(location.href, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(answer.status);
    renew(await answer.text());
    document.body.classList.remove("lost");
  } catch {
    document.body.classList.add("lost");
    if (asOf && !asOf.textContent.includes("the monitor does not answer")) {
      asOf.textContent += " – the monitor does not answer";
    }
  }
}

setInterval(look, EVERY_MS);
document.addEventListener("visibilitychange", look);
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  const search = document.getElementById("search");
  if (event.key === "/" && search && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});
