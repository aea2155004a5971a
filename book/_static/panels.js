// The theme listens to the first button of each kind only, and hides it: those that are seen pass their clicks on to it.

document.addEventListener("DOMContentLoaded", () => {
  for (const side of ["primary", "secondary"]) {
    const [first, ...seen] = document.querySelectorAll(`.${side}-toggle`);
    for (const button of seen) button.addEventListener("click", () => first.click());
    // A link may lead to a place on this page, and the open panel would cover it.
    document.getElementById(`pst-${side}-sidebar-modal`)?.addEventListener("click", (event) => {
      if (event.target.closest("a")) event.currentTarget.close();
    });
  }
});

// Wide equations scroll, so the keyboard must reach them.
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  for (const equation of document.querySelectorAll("div.math mjx-container")) equation.tabIndex = 0;
});
