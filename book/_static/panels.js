// The theme listens to the first button of each kind only, and hides it: those that are seen pass their clicks on to it.

document.addEventListener("DOMContentLoaded", () => {
  for (const side of ["primary", "secondary"]) {
    const [first, ...seen] = document.querySelectorAll(`.${side}-toggle`);
    for (const button of seen) button.addEventListener("click", () => first.click());
    // A link may lead to a place on this page, which the open panel would cover. Once it is closed, the theme gives the
    // focus back to the button, and the browser scrolls to that: hence once more to the place.
    const panel = document.getElementById(`pst-${side}-sidebar-modal`);
    panel?.addEventListener("click", (event) => {
      const place = event.target.closest("a")?.hash.slice(1);
      if (place === undefined) return;
      panel.addEventListener("close", () => document.getElementById(place)?.scrollIntoView(), { once: true });
      panel.close();
    });
  }
});

// On a phone wide figures scroll, see book.css.
document.addEventListener("DOMContentLoaded", () => {
  const phone = matchMedia("(max-width: 480px)");
  const reach = () => {
    for (const figure of document.querySelectorAll(".cell_output:has(> img), figure.wide-figure"))
      phone.matches ? figure.setAttribute("tabindex", "0") : figure.removeAttribute("tabindex");
  };
  phone.addEventListener("change", reach);
  reach();
});

// Wide equations scroll, so the keyboard must reach them.
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  for (const equation of document.querySelectorAll("div.math mjx-container")) equation.tabIndex = 0;
});
